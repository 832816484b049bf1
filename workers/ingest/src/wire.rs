//! Messages between a worker and its child: each preceded by its length, a varint.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use sightline_proto::internal::RecordedSegment;
use tokio::io::{AsyncRead, AsyncReadExt};

/// No message is larger: 28 s of audio are 0.9 MB, a window of 16 frames a few MB.
const LARGEST: usize = 64 << 20;
/// Numbers of the fields ChildReport.segment and RecordedSegment.ts.
const REPORT_SEGMENT: u32 = 6;
const SEGMENT_TS: u32 = 3;
/// Bytes of a varint at most.
const VARINT: u32 = 10;

/// Reads a message; `None` at the end.
pub(crate) fn read<M: Message + Default>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = Varint::default();
    let mut byte = [0];
    loop {
        if from.read(&mut byte)? == 0 {
            return length.ended();
        }
        if let Some(length) = length.push(byte[0])? {
            let mut payload = vec![0; length];
            from.read_exact(&mut payload)?;
            return Ok(Some(M::decode(payload.as_slice())?));
        }
    }
}

/// Writes a message, and makes sure that it is on its way.
pub(crate) fn write(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    to.write_all(&message.encode_length_delimited_to_vec())?;
    to.flush()
}

/// Writes a report of a segment, whose megabytes are not copied for it.
pub(crate) fn write_segment(to: &mut impl Write, mut segment: RecordedSegment) -> io::Result<()> {
    let ts = std::mem::take(&mut segment.ts);
    let mut body = segment.encode_to_vec();
    encode_key(SEGMENT_TS, WireType::LengthDelimited, &mut body);
    encode_varint(ts.len() as u64, &mut body);
    let mut report = Vec::with_capacity(2 * VARINT as usize);
    encode_key(REPORT_SEGMENT, WireType::LengthDelimited, &mut report);
    encode_varint((body.len() + ts.len()) as u64, &mut report);
    let mut head = Vec::with_capacity(VARINT as usize + report.len() + body.len());
    let length = report.len() + body.len() + ts.len();
    encode_varint(length as u64, &mut head);
    head.append(&mut report);
    head.append(&mut body);
    to.write_all(&head)?;
    to.write_all(&ts)?;
    to.flush()
}

/// Reads a message without blocking; `None` at the end. Not safe to cancel: what was read of a message is lost.
pub(crate) async fn read_async<M: Message + Default>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<M>> {
    let mut length = Varint::default();
    let mut byte = [0];
    loop {
        if from.read(&mut byte).await? == 0 {
            return length.ended();
        }
        if let Some(length) = length.push(byte[0])? {
            let mut payload = BytesMut::with_capacity(length);
            let mut rest = from.take(length as u64);
            while payload.len() < length {
                if rest.read_buf(&mut payload).await? == 0 {
                    return Err(malformed("it was cut off"));
                }
            }
            return Ok(Some(M::decode(payload.freeze())?));
        }
    }
}

/// A length as its bytes come in.
#[derive(Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// Takes a byte; the length when it was the last.
    fn push(&mut self, byte: u8) -> io::Result<Option<usize>> {
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes).min(63);
        self.bytes += 1;
        if byte & 0x80 != 0 {
            return if self.bytes < VARINT {
                Ok(None)
            } else {
                Err(malformed("its length has no end"))
            };
        }
        match usize::try_from(self.value) {
            Ok(length) if length <= LARGEST => Ok(Some(length)),
            _ => Err(malformed("it is too large")),
        }
    }

    fn ended<M>(&self) -> io::Result<Option<M>> {
        if self.bytes == 0 {
            Ok(None)
        } else {
            Err(malformed("it was cut off"))
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a message is malformed: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::child_report::Report;
    use sightline_proto::internal::{ChildReport, Failed};

    use super::*;

    fn failed(reason: &str) -> Failed {
        Failed {
            reason: reason.to_owned(),
            permanent: true,
        }
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in() {
        let messages = [failed(""), failed("a"), failed(&"b".repeat(70_000))];
        let mut written = Vec::new();
        for message in &messages {
            write(&mut written, message).expect("memory takes all");
        }
        let (mut blocking, mut waiting) = (written.as_slice(), written.as_slice());
        for message in &messages {
            assert_eq!(
                read::<Failed>(&mut blocking).expect("sound").as_ref(),
                Some(message)
            );
            assert_eq!(
                read_async::<Failed>(&mut waiting)
                    .await
                    .expect("sound")
                    .as_ref(),
                Some(message)
            );
        }
        assert_eq!(read::<Failed>(&mut blocking).expect("the end"), None);
        assert_eq!(
            read_async::<Failed>(&mut waiting).await.expect("the end"),
            None
        );
    }

    #[test]
    fn a_segment_reads_as_any_other_report() {
        let segment = RecordedSegment {
            start_position_us: 5,
            duration_us: 4_000_000,
            ts: vec![0x47; 70_000].into(),
        };
        let mut written = Vec::new();
        write_segment(&mut written, segment.clone()).expect("memory takes all");
        let report = ChildReport {
            report: Some(Report::Segment(segment)),
        };
        assert_eq!(read(&mut written.as_slice()).expect("sound"), Some(report));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            &[0x80][..],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[5, 1, 2],
        ] {
            let mut bad = bad;
            assert!(read::<Failed>(&mut bad).is_err());
        }
    }
}
