//! RTMP's messages, and the chunks that they are cut into.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::Failure;

/// The largest message: a coded picture.
const MAX_MESSAGE: usize = 8 << 20;
/// Messages that may be under way at once.
const MAX_STREAMS: usize = 32;
/// What is under way of all of them together.
const MAX_WAITING: usize = 16 << 20;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    /// Milliseconds, which begin again after 2^32.
    pub(super) time_ms: u32,
    pub(super) data: Vec<u8>,
}

/// Puts messages together.
pub(super) struct Reader {
    size: usize,
    streams: HashMap<u32, Stream>,
    /// Bytes that were read, which the server may want to know.
    pub(super) read: u64,
}

#[derive(Default)]
struct Stream {
    time_ms: u32,
    delta_ms: u32,
    length: usize,
    kind: u8,
    extended: bool,
    data: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            size: 128,
            streams: HashMap::new(),
            read: 0,
        }
    }
}

impl Reader {
    /// Reads on until a message is whole. Not to be cut off.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is too large.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Message, Failure> {
        loop {
            if let Some(message) = self.chunk(from).await? {
                return Ok(message);
            }
        }
    }

    /// The server cuts its messages into chunks of this size from now on.
    pub(super) fn set_size(&mut self, size: u32) {
        self.size = (size as usize).clamp(1, MAX_MESSAGE);
    }

    /// Throws away what is under way there.
    pub(super) fn abort(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.data = Vec::new();
        }
    }

    async fn chunk(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Message>, Failure> {
        let [first] = self.bytes(from).await?;
        let id = match first & 0x3f {
            0 => 64 + u32::from(self.bytes::<1>(from).await?[0]),
            1 => {
                let [low, high] = self.bytes(from).await?;
                64 + u32::from(low) + (u32::from(high) << 8)
            }
            id => u32::from(id),
        };
        let mut stream = match self.streams.remove(&id) {
            Some(stream) => stream,
            None if self.streams.len() < MAX_STREAMS => Stream::default(),
            None => return Err(excessive()),
        };
        self.header(from, first >> 6, &mut stream).await?;
        let left = stream.length - stream.data.len();
        let count = left.min(self.size);
        let waiting: usize = self.streams.values().map(|s| s.data.len()).sum();
        if waiting + stream.data.len() + count > MAX_WAITING {
            return Err(excessive());
        }
        let start = stream.data.len();
        stream.data.resize(start + count, 0);
        from.read_exact(&mut stream.data[start..])
            .await
            .map_err(broken)?;
        self.read += count as u64;
        let whole = stream.data.len() == stream.length;
        let message = whole.then(|| Message {
            kind: stream.kind,
            time_ms: stream.time_ms,
            data: std::mem::take(&mut stream.data),
        });
        self.streams.insert(id, stream);
        Ok(message)
    }

    async fn header(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        format: u8,
        stream: &mut Stream,
    ) -> Result<(), Failure> {
        let begins = stream.data.is_empty();
        if format < 3 && !begins {
            // A new header in the middle of a message.
            return Err(Failure::passing("what answers there speaks no proper RTMP"));
        }
        if format < 3 {
            let [a, b, c] = self.bytes(from).await?;
            stream.delta_ms = u32::from_be_bytes([0, a, b, c]);
            stream.extended = stream.delta_ms == 0xff_ffff;
        }
        if format < 2 {
            let [a, b, c, kind] = self.bytes(from).await?;
            stream.length = u32::from_be_bytes([0, a, b, c]) as usize;
            stream.kind = kind;
            if stream.length > MAX_MESSAGE {
                return Err(excessive());
            }
        }
        if format == 0 {
            let _stream_id: [u8; 4] = self.bytes(from).await?;
        }
        if stream.extended {
            let time_ms = u32::from_be_bytes(self.bytes(from).await?);
            // A chunk without a header of its own only repeats it.
            if format < 3 {
                stream.delta_ms = time_ms;
            }
        }
        if begins {
            stream.time_ms = match format {
                0 => stream.delta_ms,
                _ => stream.time_ms.wrapping_add(stream.delta_ms),
            };
            if format == 0 {
                // Messages that repeat this header come at the same time.
                stream.delta_ms = 0;
            }
        }
        Ok(())
    }

    async fn bytes<const COUNT: usize>(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<[u8; COUNT], Failure> {
        let mut bytes = [0; COUNT];
        from.read_exact(&mut bytes).await.map_err(broken)?;
        self.read += COUNT as u64;
        Ok(bytes)
    }
}

/// A message in one chunk, for a server that was told that they may be that large.
pub(super) fn write(message: &Message, stream_id: u32) -> Vec<u8> {
    let length = (message.data.len() as u32).to_be_bytes();
    // Control messages have a stream of their own.
    let id = if message.kind < 7 { 2 } else { 3 };
    let mut bytes = vec![id, 0, 0, 0, length[1], length[2], length[3], message.kind];
    bytes.extend(stream_id.to_le_bytes());
    bytes.extend(&message.data);
    bytes
}

fn broken(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::passing("the camera closed the connection"),
        _ => Failure::passing(format!("the connection broke: {error}")),
    }
}

fn excessive() -> Failure {
    Failure::permanent("what answers there sends larger messages than any camera")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], size: u32) -> Result<Vec<Message>, Failure> {
        let (mut reader, mut rest) = (Reader::default(), bytes);
        reader.set_size(size);
        let mut messages = Vec::new();
        while !rest.is_empty() {
            messages.push(reader.next(&mut rest).await?);
        }
        Ok(messages)
    }

    fn message(kind: u8, time_ms: u32, data: &[u8]) -> Message {
        Message {
            kind,
            time_ms,
            data: data.to_vec(),
        }
    }

    #[tokio::test]
    async fn messages_are_put_together_from_interleaved_chunks() {
        #[rustfmt::skip]
        let bytes = [
            // The first half of a picture at 10 ms, a sound at 11 ms, the second half; then another picture 40 ms later.
            4, 0, 0, 10, 0, 0, 4, 9, 1, 0, 0, 0, 1, 2,
            5, 0, 0, 11, 0, 0, 1, 8, 1, 0, 0, 0, 7,
            0xc4, 3, 4,
            0x84, 0, 0, 40, 5, 6, 0xc4, 7, 8,
            // The same header again, then an extended time.
            0xc4, 5, 6, 0xc4, 7, 8,
            5, 0xff, 0xff, 0xff, 0, 0, 3, 8, 1, 0, 0, 0, 1, 0, 0, 0, 9, 9,
            // Its other half, and a sound with the same header.
            0xc5, 1, 0, 0, 0, 9, 0xc5, 1, 0, 0, 0, 8, 8, 0xc5, 1, 0, 0, 0, 8,
        ];
        let expected = [
            message(8, 11, &[7]),
            message(9, 10, &[1, 2, 3, 4]),
            message(9, 50, &[5, 6, 7, 8]),
            message(9, 90, &[5, 6, 7, 8]),
            message(8, 0x0100_0000, &[9, 9, 9]),
            message(8, 0x0100_0000, &[8, 8, 8]),
        ];
        assert_eq!(read(&bytes, 2).await.expect("sound"), expected);
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused() {
        let large = [4, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0];
        let failure = read(&large, 128).await.expect_err("too large");
        assert!(failure.permanent, "{failure}");
        let many: Vec<u8> = (0..40u8)
            .flat_map(|id| [id + 3, 0, 0, 0, 0, 0, 9, 9, 0, 0, 0, 0, 1])
            .collect();
        let failure = read(&many, 1).await.expect_err("too many");
        assert!(failure.permanent, "{failure}");
    }

    #[tokio::test]
    async fn what_fuzzing_found_is_read_or_refused() {
        let folder = sightline_testkit::repository().join("fuzz/corpus/rtmp_messages");
        let mut messages = 0;
        for file in std::fs::read_dir(folder).expect("a corpus") {
            let bytes = std::fs::read(file.expect("a file").path()).expect("read");
            let (mut reader, mut rest) = (Reader::default(), bytes.as_slice());
            while let Ok(message) = reader.next(&mut rest).await {
                assert!(message.data.len() <= MAX_MESSAGE);
                super::super::amf::read_all(&message.data);
                messages += 1;
            }
        }
        assert!(messages > 0);
    }
}
