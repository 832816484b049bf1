//! Servers as operators run them: with keys and encryption, three at a time, with streams from other releases.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nkeys::KeyPair;
use sightline_bus::{Bus, BusConfig, BusError, Login, StreamName};
use tempfile::TempDir;

use crate::harness::{Platform, eventually, observation, scene};

/// A server with a configuration of its own; killed when it is dropped.
struct Server {
    child: Child,
}

impl Server {
    fn start(dir: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let file = dir.join("nats.conf");
        let store = dir.join("store").display().to_string();
        fs::write(
            &file,
            format!("jetstream {{ store_dir: {store:?} }}\n{config}\n"),
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
        Ok(Self { child })
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
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
    let [port] = free_ports()?;
    let key = KeyPair::new_user();
    let [certificate, private] = certificate(dir.path())?;
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nauthorization {{ users: [ {{ nkey: {} }} ] }}\ntls {{ cert_file: {:?}, key_file: {:?} }}",
        key.public_key(),
        certificate.display().to_string(),
        private.display().to_string(),
    );
    let _server = Server::start(&dir.path().join("nats"), &text)?;
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

/// Three servers that keep every stream three times.
struct Cluster {
    servers: Vec<Server>,
    url: String,
    dir: TempDir,
}

impl Cluster {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (clients, routes) = (free_ports::<3>()?, free_ports::<3>()?);
        let peers = routes.map(|port| format!("nats://127.0.0.1:{port}"));
        let servers = clients.iter().zip(routes).enumerate();
        let servers = servers.map(|(number, (client, route))| {
            let text = format!(
                "server_name: n{number}\nlisten: \"127.0.0.1:{client}\"\ncluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
                peers.join(", "),
            );
            Server::start(&dir.path().join(number.to_string()), &text)
        });
        let urls = clients.map(|port| format!("nats://127.0.0.1:{port}"));
        Ok(Self {
            servers: servers.collect::<Result<_>>()?,
            url: urls.join(","),
            dir,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_of_three_servers_may_die() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let told = BusConfig {
        replicas: 3,
        ..config(cluster.url.clone())
    };
    // A cluster takes some seconds to agree on who leads it.
    let bus = eventually(|| async { Ok(Bus::connect(&told).await.ok()) }).await?;
    assert_eq!(bus.plan(&[]).await?, []);
    let mut number = 0;
    for dying in 0..3 {
        let id = number.to_string();
        eventually(|| async { Ok(bus.publish(&scene(), &id, &observation(&id)).await.ok()) })
            .await?;
        number += 1;
        cluster.servers[dying].kill()?;
        let id = number.to_string();
        eventually(|| async { Ok(bus.publish(&scene(), &id, &observation(&id)).await.ok()) })
            .await
            .with_context(|| format!("without server {dying}"))?;
        number += 1;
        let config = cluster.dir.path().join(dying.to_string()).join("nats.conf");
        let again = Command::new("/usr/sbin/nats-server")
            .arg("-c")
            .arg(config)
            .stderr(Stdio::null())
            .spawn()?;
        cluster.servers[dying] = Server { child: again };
    }
    let held = eventually(|| async {
        let read = bus.read::<sightline_proto::internal::Observation>(
            StreamName::Observations,
            "obs.>",
            100,
        );
        Ok(read.await.ok().filter(|held| held.len() == number))
    })
    .await?;
    let ids: Vec<String> = held.into_iter().map(|held| held.message.id).collect();
    let expected: Vec<String> = (0..number).map(|number| number.to_string()).collect();
    assert_eq!(ids, expected);
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
    let token = told.login.token().context("a token")?.to_owned();
    let client = async_nats::ConnectOptions::with_token(token)
        .connect(&told.url)
        .await?;
    let context = jetstream::new(client);
    let mut observations = context.get_stream("OBSERVATIONS").await?;
    let mut changed = observations.info().await?.config.clone();
    changed.max_age = Duration::from_secs(60);
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
    // Starting again makes what is missing, and changes nothing else.
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
        "OBSERVATIONS: max_age is 60s, not 259200s; can be changed in place"
    );
    ensure!(bus.apply(&plan[0]).await.is_err(), "nothing is thrown away");
    bus.apply(&plan[1]).await?;
    assert_eq!(bus.plan(&["CATALOG"]).await?, plan[..1]);
    let kept: Vec<sightline_proto::internal::Observation> =
        platform.held(StreamName::Observations, "obs.>", 1).await?;
    assert_eq!(kept[0].id, "kept");
    Ok(())
}
