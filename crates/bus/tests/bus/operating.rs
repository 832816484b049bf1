//! Servers as operators run them: with keys and encryption, and with streams from other releases.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nkeys::KeyPair;
use sightline_bus::{Bus, BusConfig, BusError, Login, StreamName};

use crate::harness::{Platform, eventually, observation, scene};

/// A server with a configuration of its own, on a port that it chooses; killed when it is dropped.
struct Server(Child);

impl Server {
    fn start(dir: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(dir.join("ports"))?;
        let file = dir.join("nats.conf");
        let [store, ports] = ["store", "ports"].map(|name| dir.join(name).display().to_string());
        fs::write(
            &file,
            format!(
                "listen: \"127.0.0.1:-1\"\nports_file_dir: {ports:?}\njetstream {{ store_dir: {store:?} }}\n{config}\n"
            ),
        )?;
        // Debian puts it where only administrators' shells look.
        let program = ["/usr/sbin/nats-server", "nats-server"]
            .into_iter()
            .find(|program| Path::new(program).exists());
        let child = Command::new(program.unwrap_or("nats-server"))
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .context("nats-server")?;
        Ok(Self(child))
    }

    /// Where it listens: it writes that to a file once it does.
    async fn port(dir: &Path) -> Result<u16> {
        eventually(|| async {
            let Some(file) = fs::read_dir(dir.join("ports"))?.next() else {
                return Ok(None);
            };
            let text = fs::read_to_string(file?.path())?;
            let after = text.split("127.0.0.1:").nth(1);
            let port = after.and_then(|rest| rest.split('"').next()?.parse().ok());
            Ok(port)
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(url: String) -> BusConfig {
    BusConfig {
        url,
        name: "test".to_owned(),
        ..BusConfig::default()
    }
}

/// A certificate for 127.0.0.1 that is its own authority.
fn certificate(dir: &Path) -> Result<[std::path::PathBuf; 2]> {
    let [certificate, key] = ["server.pem", "server.key"].map(|name| dir.join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=sightline test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .context("openssl")?;
    ensure!(made.success(), "openssl makes a certificate");
    Ok([certificate, key])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_encrypts_and_knows_keys_takes_the_right_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let key = KeyPair::new_user();
    let [certificate, private] = certificate(dir.path())?;
    let text = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}\ntls {{ cert_file: {:?}, key_file: {:?} }}",
        key.public_key(),
        certificate.display().to_string(),
        private.display().to_string(),
    );
    let nats = dir.path().join("nats");
    let _server = Server::start(&nats, &text)?;
    let port = Server::port(&nats).await?;
    let seed = key.seed()?;
    let right = BusConfig {
        login: Login::Nkey(seed.clone()),
        ca_file: Some(certificate),
        ..config(format!("tls://127.0.0.1:{port}"))
    };
    let bus = Bus::connect(&right).await?;
    bus.publish(&scene(), "a", &observation("a")).await?;
    let other = KeyPair::new_user().seed()?;
    for (login, ca_file) in [
        (Login::Nkey(other.clone()), right.ca_file.clone()),
        (Login::None, right.ca_file.clone()),
        (Login::Nkey(seed), None),
    ] {
        let wrong = BusConfig {
            login,
            ca_file,
            ..right.clone()
        };
        let refused = Bus::connect(&wrong).await.err().context("refused")?;
        ensure!(matches!(refused, BusError::Connect { .. }), "{refused}");
        let said = format!("{refused:?}");
        ensure!(!said.contains(&other), "the key is shown: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told_and_changed_when_asked() -> Result<()> {
    let platform = Platform::start().await?;
    let told = platform.server.config("operator");
    platform.bus.key_value("CATALOG").await?;
    assert_eq!(platform.bus.plan(&["CATALOG"]).await?, []);
    platform.observe("kept").await?;

    // As an operator, or another release, left them.
    let context = jetstream::new(platform.client().await?);
    let mut observations = context.get_stream("OBSERVATIONS").await?;
    let mut changed = observations.info().await?.config.clone();
    changed.max_age = Duration::from_secs(3600);
    changed.description = Some("an operator's".to_owned());
    context.update_stream(changed).await?;
    context.delete_stream("EXPORTS").await?;
    context.delete_stream("FRAMES").await?;
    context
        .create_stream(jetstream::stream::Config {
            name: "FRAMES".to_owned(),
            subjects: vec!["frames.>".to_owned()],
            ..jetstream::stream::Config::default()
        })
        .await?;
    // Looking makes nothing; starting again makes what is missing, and changes nothing else.
    let looking = Bus::reach(&told).await?.plan(&["CATALOG"]).await?;
    ensure!(
        looking
            .iter()
            .any(|one| one.to_string() == "EXPORTS: missing"),
        "{looking:#?}"
    );
    let bus = Bus::connect(&told).await?;
    let plan = bus.plan(&["CATALOG"]).await?;
    let lines: Vec<String> = plan.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    ensure!(
        lines[0].starts_with("FRAMES: subjects is frames.>, not frames.*.*.*; retention is Limits"),
        "{lines:#?}"
    );
    ensure!(
        lines[0].contains("cannot be changed in place"),
        "{lines:#?}"
    );
    assert_eq!(
        lines[1],
        "OBSERVATIONS: max_age is 3600s, not 259200s; can be changed in place"
    );
    ensure!(bus.apply(&plan[0]).await.is_err(), "nothing is thrown away");
    bus.apply(&plan[1]).await?;
    assert_eq!(bus.plan(&["CATALOG"]).await?, plan[..1]);
    let description = observations.info().await?.config.description.clone();
    assert_eq!(description.as_deref(), Some("an operator's"));
    let kept: Vec<sightline_proto::internal::Observation> =
        platform.held(StreamName::Observations, "obs.>", 1).await?;
    assert_eq!(kept[0].id, "kept");
    Ok(())
}
