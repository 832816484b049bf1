//! Stands between GStreamer's RTSP client and the camera.
//!
//! The client follows redirects to any host and believes every length it is told (1.6 GB for one description). So it is
//! given a port of this process to connect to; the guard connects to the camera, to an address that it may connect to and
//! nowhere else, and looks at every answer before the client sees it. It also knows why there is no connection, which the
//! client does not tell, and speaks TLS.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::answers::Answers;
use crate::background::Background;
use crate::error::Failure;
use crate::session::Session;
use crate::target::Target;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// A running guard. Dropping it breaks its connections.
pub(crate) struct Guard {
    port: u16,
    background: Background,
}

impl Guard {
    /// Listens for the client, on a port of this machine alone.
    ///
    /// # Errors
    /// When it can't listen.
    pub(crate) fn start(target: Target, session: Arc<Session>) -> Result<Self, Failure> {
        let failed = |e: io::Error| Failure::passing(format!("cannot prepare to connect: {e}"));
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let background = Background::start("rtsp-guard", move || async move {
            relay_all(listener, &target, &session).await;
        })?;
        Ok(Self { port, background })
    }

    /// Where the client is to connect to, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has to be kept for as long as the client is to be connected.
    pub(crate) fn into_background(self) -> Background {
        self.background
    }
}

/// Relays one connection after the other: the client makes a new one where a camera closes it after refusing a request.
async fn relay_all(listener: StdListener, target: &Target, session: &Session) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        session.fail(Failure::passing("cannot prepare to connect"));
        return;
    };
    while let Ok((mut client, _)) = listener.accept().await {
        // The reason is known before the client notices that its connection is gone.
        if let Err(failure) = relay(&mut client, target, session).await {
            session.fail(failure);
            return;
        }
    }
}

async fn relay(client: &mut TcpStream, target: &Target, session: &Session) -> Result<(), Failure> {
    let camera = target.connect().await?;
    // Requests are small: waiting to fill a packet only delays them.
    let _ = client.set_nodelay(true);
    if target.tls {
        let secured = target.secure(camera).await?;
        pass(client, secured, session).await
    } else {
        pass(client, camera, session).await
    }
}

/// Passes bytes both ways until one side is done.
async fn pass(
    client: &mut TcpStream,
    camera: impl AsyncRead + AsyncWrite,
    session: &Session,
) -> Result<(), Failure> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_camera, mut to_camera) = tokio::io::split(camera);
    let asking = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_camera).await;
        // The client is done; what the camera still sends is for nobody.
        Ok(())
    };
    let answering = async {
        let mut answers = Answers::default();
        let mut piece = vec![0; PIECE];
        loop {
            let count = match from_camera.read(&mut piece).await {
                Ok(0) => return Err(closed(session, "the camera closed the connection")),
                Ok(count) => count,
                Err(error) => {
                    return Err(closed(session, &format!("the connection broke: {error}")));
                }
            };
            session.activity.received();
            let sound = answers.check(&piece[..count])?;
            if to_client.write_all(&sound).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = answering => match ended {
            // Before anything was played, cameras close after refusing a request, and the client tries again.
            Err(Closed::Early) => Ok(()),
            Err(Closed::Failed(failure)) => Err(failure),
            Ok(()) => Ok(()),
        },
    }
}

/// Why a connection is over.
enum Closed {
    Early,
    Failed(Failure),
}

impl From<Failure> for Closed {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn closed(session: &Session, why: &str) -> Closed {
    if session.is_open() {
        Closed::Failed(Failure::passing(why))
    } else {
        Closed::Early
    }
}
