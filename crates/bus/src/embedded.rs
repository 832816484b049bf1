//! A nats-server of one's own: started as a child in a data directory, stopped with its parent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::connection::BusConfig;
use crate::error::BusError;

/// How long the server may take to answer after its start.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How long it may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running nats-server with JetStream, reachable from this machine alone and with a token alone.
pub struct EmbeddedServer {
    url: String,
    token: String,
    pid: Pid,
    pid_file: PathBuf,
    stopped: mpsc::Receiver<()>,
}

impl EmbeddedServer {
    /// Starts `program` (normally "nats-server") with its files below `dir`, on a free port of 127.0.0.1.
    ///
    /// A server that an earlier process left behind in `dir` is stopped first; nothing else ever is.
    ///
    /// # Errors
    /// When the program is missing or does not answer within 15 s; the error says what to do.
    pub fn start(program: &Path, dir: &Path) -> Result<Self, BusError> {
        fs::create_dir_all(dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
        let pid_file = dir.join("nats-server.pid");
        stop_stale(&pid_file);
        let token = uuid::Uuid::new_v4().simple().to_string();
        let config = write_config(dir, &token)?;
        let (pid, stopped) = spawn(program, &config, &dir.join("nats-server.log"))?;
        let _ = fs::write(&pid_file, pid.as_raw_nonzero().to_string());
        let mut server = Self {
            url: String::new(),
            token,
            pid,
            pid_file,
            stopped,
        };
        server.url = server.wait_for_port(dir)?;
        Ok(server)
    }

    /// How to connect to it.
    pub fn config(&self, name: &str) -> BusConfig {
        BusConfig {
            url: self.url.clone(),
            name: name.to_owned(),
            token: Some(self.token.clone()),
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The server writes the address that it took to a file: reading it there leaves no race for a port.
    fn wait_for_port(&self, dir: &Path) -> Result<String, BusError> {
        let started = Instant::now();
        loop {
            if let Some(url) = read_ports(dir) {
                return Ok(url);
            }
            let gone = self.stopped.recv_timeout(Duration::from_millis(20));
            if gone.is_ok() || started.elapsed() > START_DEADLINE {
                let log = fs::read_to_string(dir.join("nats-server.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it wrote no log").to_owned();
                return Err(failed(format!(
                    "it did not come up in {}: {last}",
                    dir.display()
                )));
            }
        }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
        if self.stopped.recv_timeout(STOP_DEADLINE).is_err() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn failed(reason: String) -> BusError {
    BusError::Server { reason }
}

fn write_config(dir: &Path, token: &str) -> Result<PathBuf, BusError> {
    let path = dir.join("nats-server.conf");
    let quoted = |p: &Path| format!("{:?}", p.display().to_string());
    let ports = dir.join("ports");
    let _ = fs::remove_dir_all(&ports);
    fs::create_dir_all(&ports).map_err(|e| failed(format!("{}: {e}", ports.display())))?;
    let text = format!(
        "# Written by sightline at every start.\n\
         listen: \"127.0.0.1:-1\"\n\
         ports_file_dir: {}\n\
         authorization {{ token: \"{token}\" }}\n\
         max_payload: 1MB\n\
         jetstream {{ store_dir: {}, max_memory_store: 512MB }}\n",
        quoted(&ports),
        quoted(&dir.join("jetstream")),
    );
    let mut file = private_file(&path)?;
    file.write_all(text.as_bytes())
        .map_err(|e| failed(format!("{}: {e}", path.display())))?;
    Ok(path)
}

/// The file holds the token: for its owner only.
fn private_file(path: &Path) -> Result<fs::File, BusError> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| failed(format!("{}: {e}", path.display())))
}

/// Starts the server from a thread that lives as long as it does: the parent-death signal that `setpriv` asks for is sent
/// when the thread that started the child ends, not only when the process does.
fn spawn(program: &Path, config: &Path, log: &Path) -> Result<(Pid, mpsc::Receiver<()>), BusError> {
    let log_file = fs::File::create(log).map_err(|e| failed(format!("{}: {e}", log.display())))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(find_program(program)?)
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file);
    let (pid_sender, pid_receiver) = mpsc::sync_channel(1);
    let (stopped_sender, stopped) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("nats-server".to_owned())
        .spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = pid_sender.send(Ok(pid_of(&child)));
                let _ = child.wait();
                let _ = stopped_sender.send(());
            }
            Err(error) => {
                let _ = pid_sender.send(Err(error));
            }
        })
        .map_err(|e| failed(format!("no thread could be started: {e}")))?;
    let pid = pid_receiver
        .recv()
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(format!("setpriv (package util-linux): {e}")))?;
    Ok((pid, stopped))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The program itself or its place on the PATH of this process, so that a missing one is named before anything starts.
fn find_program(program: &Path) -> Result<PathBuf, BusError> {
    let missing = || {
        failed(format!(
            "{} was not found: install it (Debian: apt-get install nats-server) or name a running server with --nats-url",
            program.display()
        ))
    };
    if program.components().count() > 1 {
        return program
            .is_file()
            .then(|| program.to_owned())
            .ok_or_else(missing);
    }
    let usual = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    usual
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}

/// The address in the file that the server writes once it listens.
fn read_ports(dir: &Path) -> Option<String> {
    let entry = fs::read_dir(dir.join("ports")).ok()?.flatten().next()?;
    let text = fs::read_to_string(entry.path()).ok()?;
    let start = text.find("nats://")?;
    let end = text[start..].find('"')?;
    Some(text[start..start + end].to_owned())
}

/// Stops a server that a killed process left behind: only if the recorded process still is a nats-server of this very
/// configuration.
fn stop_stale(pid_file: &Path) {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return;
    };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return;
    };
    let command_line = fs::read(format!("/proc/{text}/cmdline")).unwrap_or_default();
    let config = pid_file.with_extension("conf");
    let ours = String::from_utf8_lossy(&command_line).contains(&*config.to_string_lossy());
    if ours {
        tracing::info!(pid = %text, "stopping the nats-server that an earlier run left behind");
        let _ = kill_process(pid, Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < STOP_DEADLINE && Path::new(&format!("/proc/{text}")).exists() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    let _ = fs::remove_file(pid_file);
}
