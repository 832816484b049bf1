//! TLS on the public port, with clients that people use: tonic, HTTP/1.1 on a socket, Python's grpcio and requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sightline_gateway::Tls;
use sightline_testkit::{python, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::harness::{Client, Gateway, KEY};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// A certificate and its key in files that are replaced as operators do it.
struct Pair(TempDir);

impl Pair {
    fn of(name: &str) -> Result<Self> {
        let pair = Self(tempfile::tempdir()?);
        pair.put(name)?;
        Ok(pair)
    }

    fn put(&self, name: &str) -> Result<()> {
        for part in ["cert", "key"] {
            let new = self.0.path().join("new");
            std::fs::copy(testdata(&format!("{name}.{part}.pem")), &new)?;
            std::fs::rename(new, self.0.path().join(part))?;
        }
        Ok(())
    }

    async fn gateway(&self) -> Result<Gateway> {
        let tls = Tls::load(&self.0.path().join("cert"), &self.0.path().join("key"))?;
        let records = Endpoint::from_static("http://127.0.0.1:1");
        let gateway = Gateway::start_at("127.0.0.1:0", records, |config| config.tls = Some(tls));
        Ok(gateway.await)
    }
}

/// A client of tonic that trusts the tests' authority.
async fn tonic(gateway: &Gateway) -> Result<Client> {
    let trusted = Certificate::from_pem(std::fs::read(testdata("ca.cert.pem"))?);
    let tls = ClientTlsConfig::new().ca_certificate(trusted);
    let url = format!("https://localhost:{}", gateway.address.port());
    let endpoint = Endpoint::from_shared(url)?.tls_config(tls)?;
    Ok(Client::on(endpoint.connect().await?))
}

/// A connection that offers these protocols.
async fn connect(gateway: &Gateway, protocols: &[&str]) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(testdata("ca.cert.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

/// The certificate that a new connection is shown.
async fn shown(gateway: &Gateway) -> Result<CertificateDer<'static>> {
    let stream = connect(gateway, &[]).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(<[_]>::first);
    Ok(first.context("a certificate")?.clone().into_owned())
}

#[tokio::test]
async fn grpc_and_http_1_are_spoken_over_tls() -> Result<()> {
    let gateway = Pair::of("first")?.gateway().await?;
    let mut client = tonic(&gateway).await?;
    let stream = client.camera().await;

    for (offered, agreed) in [
        (vec![], None),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec!["h2", "http/1.1"], Some("h2")),
    ] {
        let mut socket = connect(&gateway, &offered).await?;
        let found = socket
            .get_ref()
            .1
            .alpn_protocol()
            .map(String::from_utf8_lossy);
        ensure!(found.as_deref() == agreed, "{offered:?}: {found:?}");
        if agreed == Some("h2") {
            continue;
        }
        let path = format!("/rtstream/{}", stream.id);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-access-token: {KEY}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{offered:?}: {answer}");
        ensure!(answer.contains(&stream.id), "{offered:?}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn python_talks_over_tls() -> Result<()> {
    let gateway = Pair::of("first")?.gateway().await?;
    tonic(&gateway).await?.camera().await;
    let port = gateway.address.port().to_string();
    let ca = testdata("ca.cert.pem").display().to_string();
    let said = python::run("tls/client.py", &[&port, &ca, KEY]).await?;
    ensure!(
        said.trim() == "grpcio: rts-\nrequests: rts-\nuntrusted: refused",
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_new_pair_is_taken_up_and_open_connections_go_on() -> Result<()> {
    let pair = Pair::of("first")?;
    let gateway = pair.gateway().await?;
    let mut before = tonic(&gateway).await?;
    let first = shown(&gateway).await?;
    pair.put("second")?;
    let second = CertificateDer::from_pem_file(testdata("second.cert.pem"))?;
    until("the new certificate", async || {
        let shown = shown(&gateway).await?;
        ensure!(shown == first || shown == second, "one of the two");
        Ok((shown == second).then_some(()))
    })
    .await?;
    before.camera().await;
    tonic(&gateway).await?.camera().await;
    Ok(())
}

#[tokio::test]
async fn whoever_speaks_no_tls_or_nothing_holds_up_nobody() -> Result<()> {
    let gateway = Pair::of("first")?.gateway().await?;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(gateway.address).await?);
    }
    let mut plain = TcpStream::connect(gateway.address).await?;
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    ensure!(!answer.starts_with(b"HTTP"), "an answer in the clear");
    tonic(&gateway).await?.camera().await;
    Ok(())
}
