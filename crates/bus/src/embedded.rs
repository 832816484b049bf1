//! A nats-server of one's own: started as a child in a data directory, started again when it dies, stopped with its parent.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::{BusConfig, Login};
use crate::error::BusError;

/// How long the server may take to answer after its start.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How long it may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long to hold back before a server that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How often to look for what has no signal.
const LOOK: Duration = Duration::from_millis(20);
/// Where to look for a program that is named without its folder.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// A running nats-server with JetStream, reachable from this machine alone and with a token alone.
///
/// One that dies is started again on the same port, and connections come back by themselves.
pub struct EmbeddedServer {
    url: String,
    token: String,
    files: Files,
    child: Arc<Mutex<Running>>,
    ended: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Running {
    /// None while it is dead.
    pid: Option<Pid>,
    /// Whether it ever answered: one that never did has a fault that starting again does not mend.
    answered: bool,
    stopping: bool,
}

/// The server's files, all below its directory.
#[derive(Clone)]
struct Files {
    dir: PathBuf,
    config: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    ports: PathBuf,
}

impl EmbeddedServer {
    /// Starts `program` (normally "nats-server") with its files below `dir`, on a free port of 127.0.0.1. Blocks until it
    /// answers.
    ///
    /// A server that an earlier process left behind in `dir` is stopped first; nothing else ever is.
    ///
    /// # Errors
    /// When the program is missing or does not answer within 15 s; the error says what to do.
    pub fn start(program: &Path, dir: &Path) -> Result<Self, BusError> {
        let files = Files::below(dir)?;
        let program = find_program(program)?;
        stop_stale(&program, &files);
        let token = uuid::Uuid::new_v4().simple().to_string();
        let sync = syncs_always(&version(&program));
        write_config(&files, "-1", &token, sync)?;
        let child = Arc::new(Mutex::new(Running::default()));
        let ended = spawn(&program, &files, &child)?;
        let mut server = Self {
            url: String::new(),
            token,
            files,
            child,
            ended,
        };
        server.url = server.wait_for_port()?;
        // From now on the port is kept, so that clients find the server again.
        let port = server.url.rsplit(':').next().unwrap_or_default();
        write_config(&server.files, port, &server.token, sync)?;
        lock(&server.child).answered = true;
        Ok(server)
    }

    /// How to connect to it.
    pub fn config(&self, name: &str) -> BusConfig {
        BusConfig {
            url: self.url.clone(),
            name: name.to_owned(),
            login: Login::Token(self.token.clone()),
            ..BusConfig::default()
        }
    }

    /// The server's process id; none while it is dead.
    pub fn pid(&self) -> Option<u32> {
        let pid = lock(&self.child).pid?;
        Some(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// The server writes the address that it took to a file: reading it there leaves no race for a port.
    fn wait_for_port(&self) -> Result<String, BusError> {
        let started = Instant::now();
        loop {
            if let Some(url) = read_ports(&self.files.ports) {
                return Ok(url);
            }
            let gone = self.ended.recv_timeout(LOOK);
            if gone.is_ok() || started.elapsed() > START_DEADLINE {
                let log = fs::read_to_string(&self.files.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it wrote no log").to_owned();
                return Err(failed(format!(
                    "it did not come up in {}: {last}",
                    self.files.dir.display()
                )));
            }
        }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        signal(&self.child, Signal::TERM);
        if self.ended.recv_timeout(STOP_DEADLINE).is_err() {
            signal(&self.child, Signal::KILL);
        }
        let _ = fs::remove_file(&self.files.pid);
    }
}

impl Files {
    fn below(dir: &Path) -> Result<Self, BusError> {
        let unusable = |error: io::Error| failed(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(unusable)?;
        // Absolute, because the path in the configuration names the server that an earlier process left behind.
        let dir = dir.canonicalize().map_err(unusable)?;
        Ok(Self {
            config: dir.join("nats-server.conf"),
            pid: dir.join("nats-server.pid"),
            log: dir.join("nats-server.log"),
            ports: dir.join("ports"),
            dir,
        })
    }
}

fn failed(reason: String) -> BusError {
    BusError::Server { reason }
}

fn lock(child: &Mutex<Running>) -> MutexGuard<'_, Running> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the server for good.
fn signal(child: &Mutex<Running>, signal: Signal) {
    let mut running = lock(child);
    running.stopping = true;
    if let Some(pid) = running.pid {
        let _ = kill_process(pid, signal);
    }
}

fn write_config(files: &Files, port: &str, token: &str, sync: bool) -> Result<(), BusError> {
    let quoted = |p: &Path| format!("{:?}", p.display().to_string());
    let _ = fs::remove_dir_all(&files.ports);
    fs::create_dir_all(&files.ports)
        .map_err(|e| failed(format!("{}: {e}", files.ports.display())))?;
    let sync = if sync { ", sync_interval: always" } else { "" };
    let text = format!(
        "# Written by sightline at every start.\n\
         listen: \"127.0.0.1:{port}\"\n\
         ports_file_dir: {}\n\
         authorization {{ token: \"{token}\" }}\n\
         max_payload: 1MB\n\
         jetstream {{ store_dir: {}, max_memory_store: 512MB{sync} }}\n",
        quoted(&files.ports),
        quoted(&files.dir.join("jetstream")),
    );
    private_file(&files.config)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| failed(format!("{}: {e}", files.config.display())))
}

/// The file holds the token: for its owner only.
fn private_file(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// What the program says of itself, for example "nats-server: v2.9.10"; empty if it says nothing.
fn version(program: &Path) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// Whether this version can confirm a message only once it is on the disk: from 2.10 on. Earlier ones refuse the setting.
fn syncs_always(version: &str) -> bool {
    let numbers = version.rsplit_once('v').map_or("", |(_, numbers)| numbers);
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 10),
        _ => false,
    }
}

/// Starts the server from a thread that lives as long as it does: the parent-death signal that `setpriv` asks for is sent
/// when the thread that started the child ends, not only when the process does.
fn spawn(
    program: &Path,
    files: &Files,
    child: &Arc<Mutex<Running>>,
) -> Result<mpsc::Receiver<()>, BusError> {
    let log_file = fs::File::create(&files.log)
        .map_err(|e| failed(format!("{}: {e}", files.log.display())))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .arg("-c")
        .arg(&files.config)
        // Ctrl-C in a terminal is for this process, which needs its server until it has drained.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file);
    let (started_sender, started) = mpsc::sync_channel(1);
    let (ended_sender, ended) = mpsc::sync_channel(1);
    let (files, child) = (files.clone(), Arc::clone(child));
    std::thread::Builder::new()
        .name("nats-server".to_owned())
        .spawn(move || {
            keep_running(command, &files, &child, &started_sender);
            let _ = ended_sender.send(());
        })
        .map_err(|e| failed(format!("no thread could be started: {e}")))?;
    started
        .recv()
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(format!("setpriv (package util-linux): {e}")))?;
    Ok(ended)
}

/// Starts the server, and again whenever it dies, until it is to stop.
fn keep_running(
    mut command: Command,
    files: &Files,
    child: &Mutex<Running>,
    started: &mpsc::SyncSender<io::Result<()>>,
) {
    loop {
        let spawned = {
            let mut running = lock(child);
            if running.stopping {
                return;
            }
            let spawned = command.spawn();
            running.pid = spawned.as_ref().ok().map(Pid::from_child);
            spawned
        };
        let outcome = spawned.map(|mut process: Child| {
            let _ = fs::write(&files.pid, process.id().to_string());
            let _ = started.try_send(Ok(()));
            let _ = process.wait();
        });
        let (again, stopping) = {
            let mut running = lock(child);
            running.pid = None;
            (running.answered, running.stopping)
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "nats-server can't be started");
            let _ = started.try_send(Err(error));
        }
        if stopping || !again {
            return;
        }
        tracing::warn!(log = %files.log.display(), "nats-server died and is started again");
        std::thread::park_timeout(RESTART_PAUSE);
    }
}

/// The program itself or its place in the usual folders, so that a missing one is named before anything starts.
fn find_program(program: &Path) -> Result<PathBuf, BusError> {
    let named = program.components().count() > 1;
    let folders = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
    let found = if named {
        program.is_file().then(|| program.to_owned())
    } else {
        folders.into_iter().find(|path| path.is_file())
    };
    found.ok_or_else(|| {
        failed(format!(
            "{} was not found: install it (Debian: apt-get install nats-server) or name a running server with --nats-url",
            program.display()
        ))
    })
}

/// The address in the file that the server writes once it listens.
fn read_ports(ports: &Path) -> Option<String> {
    let entry = fs::read_dir(ports).ok()?.flatten().next()?;
    let text = fs::read_to_string(entry.path()).ok()?;
    let start = text.find("nats://")?;
    let end = text[start..].find('"')?;
    Some(text[start..start + end].to_owned())
}

/// Stops a server that a killed process left behind: only if the recorded process still is this program with this very
/// configuration.
fn stop_stale(program: &Path, files: &Files) {
    let recorded = fs::read_to_string(&files.pid).unwrap_or_default();
    let Some(pid) = recorded.trim().parse().ok().and_then(Pid::from_raw) else {
        return;
    };
    for signal in [Signal::TERM, Signal::KILL] {
        if !is_ours(pid, program, files) {
            break;
        }
        tracing::info!(pid = %recorded, "stopping the nats-server that an earlier run left behind");
        let _ = kill_process(pid, signal);
        let started = Instant::now();
        while started.elapsed() < STOP_DEADLINE && is_ours(pid, program, files) {
            std::thread::park_timeout(LOOK);
        }
    }
    let _ = fs::remove_file(&files.pid);
}

/// Whether the process runs, and is this program with this configuration.
fn is_ours(pid: Pid, program: &Path, files: &Files) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let command_line = fs::read(path).unwrap_or_default();
    let mut words = command_line.split(|byte| *byte == 0);
    words.next() == Some(program.as_os_str().as_bytes())
        && words.next() == Some(b"-c")
        && words.next() == Some(files.config.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_know_the_setting_are_told_to_sync() {
        for (version, expected) in [
            ("nats-server: v2.9.10", false),
            ("nats-server: v2.10.0", true),
            ("nats-server: v2.10.18-beta.1", true),
            ("nats-server: v3.0.0", true),
            ("nats-server: v1.10.0", false),
            ("", false),
            ("nats-server: vX", false),
        ] {
            assert_eq!(syncs_always(version), expected, "{version:?}");
        }
    }
}
