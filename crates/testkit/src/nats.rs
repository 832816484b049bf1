//! nats-servers as an operator runs them: three that keep every stream three times, or one with a small disk.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use sightline_bus::{Bus, BusConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hosts::{Host, Hosts};
use crate::until;

/// How many servers there are, and how often each stream is kept.
pub const SERVERS: usize = 3;

/// The servers; killed when it is dropped.
pub struct Cluster {
    servers: Vec<Server>,
    /// The addresses of all, with commas between.
    pub url: String,
    _dir: TempDir,
}

struct Server {
    config: PathBuf,
    host: Host,
    /// Where it tells how it is.
    monitor: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that keeps so many bytes and refuses what is beyond; killed when it is dropped.
pub struct Small {
    child: Child,
    /// Its address.
    pub url: String,
    _dir: TempDir,
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Small {
    /// Starts it on a free port. Streams reserve what they may hold at most, which counts as kept.
    ///
    /// # Errors
    /// When nats-server can't be run.
    pub fn start(bytes: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let config = dir.path().join("nats.conf");
        let store = dir.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, max_file_store: {bytes} }}\n",
        );
        std::fs::write(&config, text)?;
        Ok(Self {
            child: run(Command::new(program()), &config)?,
            url: format!("nats://127.0.0.1:{port}"),
            _dir: dir,
        })
    }

    /// A connection.
    ///
    /// # Errors
    /// When the server does not answer, or its disk is too small for the streams.
    pub async fn bus(&self) -> Result<Bus> {
        let config = BusConfig {
            url: self.url.clone(),
            name: "test".to_owned(),
            ..BusConfig::default()
        };
        Ok(Bus::connect(&config).await?)
    }
}

impl Cluster {
    /// Starts a server on each of the first hosts.
    ///
    /// # Errors
    /// When nats-server can't be run, or there are too few hosts.
    pub fn start(hosts: &Hosts) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ports = free_ports::<{ 3 * SERVERS }>()?;
        let hosts = (0..SERVERS).map(|number| hosts.host(number).cloned());
        let hosts: Vec<Host> = hosts.collect::<Result<_>>()?;
        let at = |first: usize| {
            let addresses = hosts.iter().zip(&ports[first..first + SERVERS]);
            let addresses = addresses.map(|(host, port)| SocketAddr::from((host.address, *port)));
            addresses.collect::<Vec<_>>()
        };
        let (clients, routes, monitors) = (at(0), at(SERVERS), at(2 * SERVERS));
        let url = |address: &SocketAddr| format!("nats://{address}");
        let peers: Vec<String> = routes.iter().map(url).collect();
        let servers = hosts.iter().enumerate().map(|(number, host)| {
            let config = dir.path().join(format!("n{number}.conf"));
            let store = dir.path().join(format!("n{number}"));
            let text = format!(
                "server_name: n{number}\nlisten: \"{}\"\nhttp: \"{}\"\n\
                 jetstream {{ store_dir: {store:?} }}\n\
                 cluster {{ name: test, listen: \"{}\", routes: [{}] }}\n",
                clients[number],
                monitors[number],
                routes[number],
                peers.join(", "),
            );
            std::fs::write(&config, text)?;
            Ok(Server {
                child: run(host.command(program()), &config)?,
                config,
                host: host.clone(),
                monitor: monitors[number],
            })
        });
        let urls: Vec<String> = clients.iter().map(url).collect();
        Ok(Self {
            servers: servers.collect::<Result<_>>()?,
            url: urls.join(","),
            _dir: dir,
        })
    }

    /// A connection, once the servers have agreed on who leads: that takes them some seconds.
    ///
    /// # Errors
    /// When they never do.
    pub async fn bus(&self) -> Result<Bus> {
        let config = BusConfig {
            url: self.url.clone(),
            name: "test".to_owned(),
            replicas: SERVERS,
            ..BusConfig::default()
        };
        until("three nats-servers to lead", async || {
            Ok(Bus::connect(&config).await.ok())
        })
        .await
    }

    /// Kills a server.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        let server = self.servers.get_mut(number).context("no such server")?;
        server.child.kill()?;
        server.child.wait()?;
        Ok(())
    }

    /// Starts a killed server again, and waits until it has what the others have: before that, another one must not go.
    ///
    /// # Errors
    /// When nats-server can't be run, or does not catch up.
    pub async fn restart(&mut self, number: usize) -> Result<()> {
        let server = self.servers.get_mut(number).context("no such server")?;
        server.child = run(server.host.command(program()), &server.config)?;
        self.caught_up(number).await
    }

    /// Waits until a server has what the others have.
    ///
    /// # Errors
    /// When it does not catch up.
    pub async fn caught_up(&self, number: usize) -> Result<()> {
        let server = self.servers.get(number).context("no such server")?;
        let monitor = server.monitor;
        until("the nats-server to catch up", async || {
            Ok(is_healthy(monitor).await.unwrap_or(false).then_some(()))
        })
        .await
    }
}

/// What `/healthz` says.
async fn is_healthy(monitor: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(monitor).await?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.0 200"))
}

fn program() -> &'static str {
    // Debian puts it where only administrators' shells look.
    let all = ["/usr/sbin/nats-server", "nats-server"];
    let found = all.into_iter().find(|program| Path::new(program).exists());
    found.unwrap_or("nats-server")
}

fn run(mut program: Command, config: &Path) -> Result<Child> {
    program.arg("-c").arg(config).stderr(Stdio::null());
    program
        .spawn()
        .context("nats-server: scripts/setup demo installs it")
}

pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
