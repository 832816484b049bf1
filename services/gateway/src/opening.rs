//! The first bytes of a connection: they tell HTTP/2 from HTTP/1.
//!
//! They are read here because hyper waits for them without a deadline.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1 or older.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection whose first bytes were looked at: reading begins with them. It holds its place among the connections for as
/// long as it is open, also when it is no longer HTTP.
pub(crate) struct Opened<S> {
    stream: S,
    first: Vec<u8>,
    _slot: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> Opened<S> {
    /// Reads until it is clear what is spoken.
    pub(crate) async fn read(
        mut stream: S,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<(Version, Self)> {
        let mut first = Vec::with_capacity(PREFACE.len());
        let version = loop {
            if !PREFACE.starts_with(&first) {
                break Version::Http1;
            }
            let left = PREFACE.len() - first.len();
            if left == 0 {
                break Version::Http2;
            }
            if (&mut stream).take(left as u64).read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let opened = Self {
            stream,
            first,
            _slot: slot,
        };
        Ok((version, opened))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let fits = self.first.len().min(buf.remaining());
        let rest = self.first.split_off(fits);
        buf.put_slice(&self.first);
        self.first = rest;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_say_what_is_spoken_and_are_read_again() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", Some(Version::Http1)),
            (
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more",
                Some(Version::Http2),
            ),
            ("PRI * HTTP/1.1\r\n\r\n", Some(Version::Http1)),
            ("POST /collection HTTP/1.1\r\n\r\n", Some(Version::Http1)),
            ("PRI * HT", None),
            ("", None),
        ] {
            // A byte at a time: nothing may depend on how the text is cut.
            let (mut client, server) = duplex(1);
            let slot = Arc::new(Semaphore::new(1))
                .acquire_owned()
                .await
                .expect("a slot");
            let sending = tokio::spawn(async move { client.write_all(text.as_bytes()).await });
            match Opened::read(server, slot).await {
                Ok((version, mut opened)) => {
                    assert_eq!(Some(version), expected, "{text:?}");
                    let mut all = String::new();
                    opened.read_to_string(&mut all).await.expect("read");
                    assert_eq!(all, text);
                }
                Err(error) => assert_eq!(expected, None, "{text:?}: {error}"),
            }
            sending.await.expect("no panic").expect("sent");
        }
    }
}
