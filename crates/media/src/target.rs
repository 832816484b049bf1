//! Where a source is, and connecting to it: what may be connected to is decided on the resolved address, and the connection
//! goes to exactly that one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sightline_egress::{Policy, Refused};
use sightline_proto::internal::OpenSource;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use crate::error::Failure;

/// How long connecting may take: resolving, all addresses, and TLS.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(8);

/// Which machine to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// Addresses that were decided on already; empty for whatever the host resolves to.
    addresses: Vec<IpAddr>,
    policy: Policy,
}

impl Target {
    /// From a source's URL. `ports` are those of its scheme, plain and with TLS.
    ///
    /// # Errors
    /// When the URL names no host.
    pub(crate) fn new(
        open: &OpenSource,
        url: &Url,
        ports: (u16, u16),
        policy: &Policy,
    ) -> Result<Self, Failure> {
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(Failure::permanent("its URL names no host")),
        };
        let tls = matches!(url.scheme(), "rtsps" | "rtmps");
        let parsed: Result<Vec<IpAddr>, _> = open.addresses.iter().map(|a| a.parse()).collect();
        Ok(Self {
            host,
            port: url.port().unwrap_or(if tls { ports.1 } else { ports.0 }),
            tls,
            addresses: parsed.map_err(|e| Failure::permanent(format!("its address: {e}")))?,
            policy: policy.clone(),
        })
    }

    /// The addresses that may be connected to, at least one.
    ///
    /// # Errors
    /// When the name is not known, or leads nowhere that may be connected to.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let found: Vec<SocketAddr> = if self.addresses.is_empty() {
            let looking = tokio::net::lookup_host((self.host.as_str(), self.port));
            let found = timeout(CONNECT_DEADLINE, looking).await;
            let found = found.map_err(|_| self.unreachable("its name is not resolved in time"))?;
            found
                .map_err(|e| self.unreachable(&e.to_string()))?
                .collect()
        } else {
            let decided = self.addresses.iter();
            decided.map(|a| SocketAddr::new(*a, self.port)).collect()
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found {
            match self.policy.check_addr(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        match refused {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(refusal) => Err(forbidden(&refusal)),
            None => Err(self.unreachable("its name has no address")),
        }
    }

    /// Connects to the first allowed address that answers.
    ///
    /// # Errors
    /// When none does, or none is allowed.
    pub(crate) async fn connect(&self) -> Result<TcpStream, Failure> {
        let addresses = self.resolve().await?;
        let mut last = self.unreachable("no answer");
        for address in &addresses {
            let share = CONNECT_DEADLINE / u32::try_from(addresses.len()).unwrap_or(1);
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(connected)) => {
                    // Requests are small: waiting to fill a packet only delays them.
                    let _ = connected.set_nodelay(true);
                    return Ok(connected);
                }
                Ok(Err(error)) => last = self.unreachable(&error.to_string()),
                Err(_) => last = self.unreachable("no answer"),
            }
        }
        Err(last)
    }

    /// Makes a connection secret, with a certificate that this machine trusts.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) async fn secure(
        &self,
        connected: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Failure::permanent(format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| Failure::permanent(format!("TLS: {e}")))?;
        let connector = TlsConnector::from(Arc::new(config));
        let secured = timeout(CONNECT_DEADLINE, connector.connect(name, connected)).await;
        let secured = secured.map_err(|_| self.unreachable("no TLS within the deadline"))?;
        secured.map_err(|error| {
            let untrusted = error
                .get_ref()
                .and_then(|e| e.downcast_ref::<rustls::Error>())
                .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)));
            if untrusted {
                Failure::permanent(format!(
                    "the camera's certificate is not trusted by this machine: {error}"
                ))
            } else {
                self.unreachable(&format!("TLS: {error}"))
            }
        })
    }

    /// Nothing can be reached there, for this reason.
    pub(crate) fn unreachable(&self, why: &str) -> Failure {
        let Self { host, port, .. } = self;
        Failure::passing(format!("cannot connect to {host}:{port}: {why}"))
    }
}

/// An address that the operator allows no source to be at.
pub(crate) fn forbidden(refused: &Refused) -> Failure {
    let Refused { address, what } = refused;
    Failure::permanent(format!(
        "connecting to {address} is not allowed: it is a {what} address; an operator can allow it with --allow-source {address}"
    ))
}
