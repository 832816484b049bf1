//! Hosts on one machine: network namespaces on a bridge, each with an address of its own, which can be cut off. Where namespaces are
//! not allowed (they take root), hosts are addresses of the loopback that cannot be cut off.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The network of benchmarks (RFC 2544), which no machine is really in.
const NETWORK: [u8; 2] = [198, 18];
/// What one such network may have of hosts beside this one.
const MOST: u8 = 200;

/// Some hosts and the network between them and the test, which is there as well; gone when it is dropped.
pub struct Hosts {
    /// The test's own address.
    pub address: Ipv4Addr,
    /// What the network's name and those of its hosts begin with; none where there are no namespaces.
    name: Option<String>,
    all: Vec<Host>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its namespace, and this end of the cable to it.
    place: Option<(String, String)>,
}

impl Hosts {
    /// So many, at most 200.
    ///
    /// # Errors
    /// When the kernel refuses more than namespaces as such.
    pub fn start(count: u8) -> Result<Self> {
        ensure!(count <= MOST, "at most {MOST} hosts");
        let may = Command::new("unshare").args(["--net", "true"]).output();
        if !may.is_ok_and(|done| done.status.success()) {
            return Ok(Self::on_loopback(count));
        }
        // Several tests may have a network each.
        let id = std::process::id();
        let [_, _, _, number] = id.to_be_bytes();
        let name = format!("sl{id:x}");
        let address = Ipv4Addr::new(NETWORK[0], NETWORK[1], number, 1);
        let mut hosts = Self {
            address,
            name: Some(name.clone()),
            all: Vec::new(),
        };
        ip(&["link", "add", &name, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{address}/24"), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        for host in 0..count {
            hosts.add(&name, number, host)?;
        }
        Ok(hosts)
    }

    fn on_loopback(count: u8) -> Self {
        let host = |number| Host {
            address: Ipv4Addr::new(127, 0, 0, number + 2),
            place: None,
        };
        Self {
            address: Ipv4Addr::LOCALHOST,
            name: None,
            all: (0..count).map(host).collect(),
        }
    }

    fn add(&mut self, network: &str, number: u8, host: u8) -> Result<()> {
        let (namespace, cable) = (format!("{network}-{host}"), format!("{network}v{host}"));
        let address = Ipv4Addr::new(NETWORK[0], NETWORK[1], number, host + 2);
        ip(&["netns", "add", &namespace])?;
        // Known before anything else can fail, so that it goes with the rest.
        self.all.push(Host {
            address,
            place: Some((namespace.clone(), cable.clone())),
        });
        let peer = ["peer", "name", "eth0", "netns", &namespace];
        ip(&[&["link", "add", &cable, "type", "veth"], &peer[..]].concat())?;
        ip(&["link", "set", &cable, "master", network])?;
        ip(&["link", "set", &cable, "up"])?;
        let inside = ["-n", &namespace];
        let address = format!("{address}/24");
        ip(&[&inside[..], &["addr", "add", &address, "dev", "eth0"]].concat())?;
        ip(&[&inside[..], &["link", "set", "eth0", "up"]].concat())?;
        ip(&[&inside[..], &["link", "set", "lo", "up"]].concat())
    }

    /// One of them, from 0.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn host(&self, number: usize) -> Result<&Host> {
        self.all.get(number).context("no such host")
    }
}

impl Host {
    /// A command that runs a program there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((namespace, _)) = &self.place else {
            return Command::new(program);
        };
        let mut command = Command::new("nsenter");
        // It becomes the program: the process id is the program's.
        command.arg(format!("--net=/run/netns/{namespace}"));
        command.arg(program);
        command
    }

    /// Cuts it off: nothing reaches it, or comes from it, and nobody is told. False where that cannot be done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut(&self) -> Result<bool> {
        self.set("down")
    }

    /// It is there again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mend(&self) -> Result<()> {
        self.set("up").map(drop)
    }

    fn set(&self, state: &str) -> Result<bool> {
        let Some((_, cable)) = &self.place else {
            return Ok(false);
        };
        ip(&["link", "set", cable, state])?;
        Ok(true)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        for host in &self.all {
            if let Some((namespace, _)) = &host.place {
                // Its end of the cable goes with it, and with that the other.
                let _ = ip(&["netns", "del", namespace]);
            }
        }
        let _ = ip(&["link", "del", name]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    // Debian puts it where only administrators' shells look.
    let program = ["/usr/sbin/ip", "ip"];
    let program = program.iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or(&"ip"));
    let done = command.args(arguments).output();
    let done = done.context("ip: scripts/setup test installs it (iproute2)")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "ip {}: {said}", arguments.join(" "));
    Ok(())
}
