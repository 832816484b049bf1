//! A link between two processes that fails as a test says: it passes bytes, swallows them as a half-open link does, or is cut.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::{AsyncRead, copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// What is sent arrives.
    Passes,
    /// Connections stay open and can be made, and nothing arrives at either end. They are cut when the link is another one.
    Swallows,
    /// All connections are cut, and new ones at once.
    Cut,
}

/// A TCP proxy on a free port; it stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Leads to `to`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let link = watch::Sender::new(Link::Passes);
        let seen = link.subscribe();
        let accepting = tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while carried.try_join_next().is_some() {}
                carried.spawn(carry(client, to, seen.clone()));
            }
        });
        Ok(Self {
            address,
            link,
            accepting,
        })
    }

    /// Where to connect instead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the link is like this.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until it ends or is cut.
async fn carry(mut client: TcpStream, to: SocketAddr, mut link: watch::Receiver<Link>) {
    let is = *link.borrow_and_update();
    if is == Link::Passes {
        let Ok(mut server) = TcpStream::connect(to).await else {
            return;
        };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = link.changed() => {}
        }
        if *link.borrow_and_update() == Link::Swallows {
            swallow(&mut client, &mut server, &mut link).await;
        }
    } else if is == Link::Swallows {
        swallow(&mut client, &mut tokio::io::empty(), &mut link).await;
    }
}

/// Takes what both ends send, until the link is another one or the client has gone.
async fn swallow(
    client: &mut TcpStream,
    server: &mut (impl AsyncRead + Unpin),
    link: &mut watch::Receiver<Link>,
) {
    let both = async {
        // Nobody is told that the server hung up.
        let _ = copy(server, &mut sink()).await;
        std::future::pending::<()>().await;
    };
    let mut nowhere = sink();
    tokio::select! {
        _ = copy(client, &mut nowhere) => {}
        () = both => {}
        _ = link.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::soon;

    /// Answers each byte with itself.
    async fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    copy(&mut from, &mut to).await
                });
            }
        });
        Ok(address)
    }

    #[tokio::test]
    async fn a_link_passes_swallows_and_is_cut() -> Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        let mut byte = [0];
        let mut before = TcpStream::connect(proxy.address()).await?;
        before.write_all(b"a").await?;
        before.read_exact(&mut byte).await?;
        assert_eq!(&byte, b"a");

        proxy.set(Link::Swallows);
        let mut during = TcpStream::connect(proxy.address()).await?;
        for stream in [&mut before, &mut during] {
            stream.write_all(b"b").await?;
        }
        proxy.set(Link::Cut);
        let mut cut = TcpStream::connect(proxy.address()).await?;
        for stream in [&mut before, &mut during, &mut cut] {
            // What was swallowed never comes: the end does, in whatever form.
            let end = soon("the end", stream.read(&mut byte)).await?;
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }

        proxy.set(Link::Passes);
        let mut after = TcpStream::connect(proxy.address()).await?;
        after.write_all(b"c").await?;
        after.read_exact(&mut byte).await?;
        assert_eq!(&byte, b"c");
        Ok(())
    }
}
