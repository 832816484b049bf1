//! Stands between GStreamer's RTSP client and the camera.
//!
//! The client follows redirects to any host and believes every length it is told (1.6 GB for one description). So it is
//! given a port of this process to connect to; the guard connects to the camera, to an address that it may connect to and
//! nowhere else, and looks at every answer before the client sees it. It also knows why there is no connection, which the
//! client does not tell, and speaks TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::answers::Answers;
use crate::error::Failure;
use crate::session::Session;

/// How long connecting may take: resolving, all addresses, and TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// Which camera to connect to.
pub(crate) struct Target {
    host: String,
    port: u16,
    tls: bool,
    /// The addresses that may be connected to; empty for whatever the host resolves to.
    addresses: Vec<IpAddr>,
}

impl Target {
    /// From a camera's URL and the addresses that are allowed.
    ///
    /// # Errors
    /// When the URL names no host.
    pub(crate) fn new(url: &Url, addresses: &[String]) -> Result<Self, Failure> {
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(Failure::permanent("its URL names no host")),
        };
        let tls = url.scheme() == "rtsps";
        let parsed: Result<Vec<IpAddr>, _> = addresses.iter().map(|a| a.parse()).collect();
        Ok(Self {
            host,
            port: url.port().unwrap_or(if tls { 322 } else { 554 }),
            tls,
            addresses: parsed.map_err(|e| Failure::permanent(format!("its address: {e}")))?,
        })
    }
}

/// A running guard. Dropping it breaks its connections.
pub(crate) struct Guard {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("rtsp-guard".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        runtime.block_on(async {
                            tokio::select! {
                                () = relay_all(listener, &target, &session) => {}
                                _ = stopped => {}
                            }
                        });
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(failed)?;
        starting
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
            .map_err(failed)?;
        Ok(Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where the client is to connect to, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
    let camera = match timeout(CONNECT_DEADLINE, connect(target)).await {
        Ok(connected) => connected?,
        Err(_) => {
            let seconds = CONNECT_DEADLINE.as_secs();
            return Err(unreachable(
                target,
                &format!("no answer within {seconds} s"),
            ));
        }
    };
    // Requests are small: waiting to fill a packet only delays them.
    let _ = client.set_nodelay(true);
    if !target.tls {
        return pass(client, camera, session).await;
    }
    let secured = match timeout(CONNECT_DEADLINE, secure(camera, target)).await {
        Ok(secured) => secured?,
        Err(_) => return Err(unreachable(target, "no TLS within the deadline")),
    };
    pass(client, secured, session).await
}

/// Connects to the first allowed address that answers.
async fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let addresses: Vec<SocketAddr> = if target.addresses.is_empty() {
        tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|e| unreachable(target, &e.to_string()))?
            .collect()
    } else {
        let allowed = target.addresses.iter();
        allowed.map(|a| SocketAddr::new(*a, target.port)).collect()
    };
    let mut last = unreachable(target, "its name has no address");
    for address in &addresses {
        let share = CONNECT_DEADLINE / u32::try_from(addresses.len()).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(camera)) => {
                let _ = camera.set_nodelay(true);
                return Ok(camera);
            }
            Ok(Err(error)) => last = unreachable(target, &error.to_string()),
            Err(_) => last = unreachable(target, "no answer"),
        }
    }
    Err(last)
}

async fn secure(
    camera: TcpStream,
    target: &Target,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::permanent(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(target.host.clone())
        .map_err(|e| Failure::permanent(format!("TLS: {e}")))?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, camera).await.map_err(|error| {
        let untrusted = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
            .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)));
        if untrusted {
            Failure::permanent(format!(
                "the camera's certificate is not trusted by this machine: {error}"
            ))
        } else {
            unreachable(target, &format!("TLS: {error}"))
        }
    })
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

fn unreachable(target: &Target, why: &str) -> Failure {
    let Target { host, port, .. } = target;
    Failure::passing(format!("cannot connect to {host}:{port}: {why}"))
}
