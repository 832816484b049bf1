//! Any number of processes of each role over one bus, each of which a test may end and start again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use sightline_catalog::Catalog;
use sightline_proto::client::Client;
use sightline_proto::internal::RunRecord;
use sightline_testkit::hosts::Host;
use sightline_testkit::oracle::surprises;
use sightline_testkit::platform::{Ground, KEY};
use sightline_testkit::process::Process;
use sightline_testkit::until;

/// A process: its role, and which of them.
pub type Who = (&'static str, usize);

/// One process of each role, in an order in which they can be started.
pub const ONE_EACH: [(&str, usize); 6] = [
    ("embeddings", 1),
    ("gateway", 1),
    ("alerts", 1),
    ("ingest", 1),
    ("caption", 1),
    ("transcribe", 1),
];

struct Member {
    process: Process,
    /// Where it listens.
    url: Option<String>,
}

/// Running processes of roles.
pub struct Fleet {
    pub ground: Ground,
    /// The binary of processes that are started from now on.
    pub binary: PathBuf,
    /// Where they are, if not all on this machine's loopback.
    places: BTreeMap<Who, Host>,
    /// What every process of a role is told besides.
    told: Vec<(&'static str, Vec<String>)>,
    members: BTreeMap<Who, Member>,
    /// What processes that are gone have logged.
    logs: Vec<(Who, Vec<String>)>,
}

impl Fleet {
    /// A fleet without ships.
    pub fn new(ground: Ground) -> Self {
        Self {
            binary: ground.binary.clone(),
            ground,
            places: BTreeMap::new(),
            told: Vec::new(),
            members: BTreeMap::new(),
            logs: Vec::new(),
        }
    }

    /// What processes of a role are told from now on.
    pub fn tell(&mut self, role: &'static str, further: &[&str]) {
        let further = further.iter().map(|&word| word.to_owned());
        self.told.push((role, further.collect()));
    }

    /// Where a process is from its next start on.
    pub fn place(&mut self, who: Who, host: &Host) {
        self.places.insert(who, host.clone());
    }

    /// Starts so many of each.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn begin_all(&mut self, roles: &[(&'static str, usize)]) -> Result<()> {
        for &(role, count) in roles {
            for number in 0..count {
                self.begin((role, number)).await?;
            }
        }
        Ok(())
    }

    /// Starts a process, where one of that name listened before if there was one.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn begin(&mut self, who: Who) -> Result<()> {
        self.begin_told(who, &[]).await
    }

    /// The same, and this one alone is told something.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn begin_told(&mut self, who: Who, alone: &[&str]) -> Result<()> {
        let (role, _) = who;
        let host = self.places.get(&who).cloned();
        let address = host
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |host| host.address);
        let anywhere = format!("{address}:0");
        let before = self.url(who);
        let listen = before
            .as_deref()
            .map_or(&*anywhere, |url| url.trim_start_matches("http://"));
        let embeddings = self.url(("embeddings", 0)).unwrap_or_default();
        let mut further = Vec::new();
        if ["embeddings", "gateway"].contains(&role) {
            further.extend(["--listen", listen]);
        }
        if role == "gateway" {
            further.extend(["--embeddings-url", &embeddings]);
        }
        let told = self.told.iter().filter(|(of, _)| *of == role);
        further.extend(told.flat_map(|(_, words)| words.iter().map(String::as_str)));
        further.extend(alone);
        // One that does not reach the bus in time ends, and is started again, as supervisors do.
        let mut failed = None;
        let starting = until(&format!("{role} to start"), async || {
            let starting = self
                .ground
                .role_of(&self.binary, host.as_ref(), role, &further);
            Ok(starting.await.map_err(|error| failed = Some(error)).ok())
        })
        .await;
        let (process, url) = starting.with_context(|| format!("{failed:?}"))?;
        self.bury(who);
        self.members.insert(who, Member { process, url });
        Ok(())
    }

    /// Starts those again that have ended by themselves, as supervisors do: one that loses the bus while it starts ends.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn supervise(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for (who, member) in &mut self.members {
            if member.process.has_ended()? {
                ended.push(*who);
            }
        }
        for who in ended {
            self.begin(who).await?;
        }
        Ok(())
    }

    /// Where a process listens.
    pub fn url(&self, who: Who) -> Option<String> {
        self.members.get(&who)?.url.clone()
    }

    /// A process.
    ///
    /// # Errors
    /// When there never was one of that name.
    pub fn process(&self, who: Who) -> Result<&Process> {
        let member = self.members.get(&who);
        Ok(&member.with_context(|| format!("no {who:?}"))?.process)
    }

    fn process_mut(&mut self, who: Who) -> Result<&mut Process> {
        let member = self.members.get_mut(&who);
        Ok(&mut member.with_context(|| format!("no {who:?}"))?.process)
    }

    /// All that run, with their process ids.
    pub fn running(&self) -> Vec<(Who, Pid)> {
        let members = self.members.iter();
        let running = members.filter_map(|(who, member)| Some((*who, member.process.pid()?)));
        running.collect()
    }

    /// A client of a gateway.
    ///
    /// # Errors
    /// When there is none.
    pub async fn client(&self, number: usize) -> Result<Client> {
        let url = self.url(("gateway", number)).context("a gateway")?;
        until("the gateway", async || {
            Ok(Client::connect(&url, KEY).await.ok())
        })
        .await
    }

    /// The ingest process that holds a stream.
    pub fn holder(&self, catalog: &Catalog, stream: &str) -> Option<Who> {
        let holder = catalog.get::<RunRecord>(stream)?.value.holder.clone();
        let of = |pid: Pid| holder.ends_with(&format!("-{}", pid.as_raw_nonzero()));
        let running = self.running().into_iter();
        let mut holders = running.filter(|((role, _), pid)| *role == "ingest" && of(*pid));
        holders.next().map(|(who, _)| who)
    }

    /// Waits for the end of a process that kills itself.
    ///
    /// # Errors
    /// When it does not, or ends well.
    pub async fn dies(&mut self, who: Who) -> Result<()> {
        let process = self.process_mut(who)?;
        let status = process.ended().await?;
        ensure!(!status.success(), "{who:?}: {:#?}", process.log());
        Ok(())
    }

    /// Kills a process as `kill -9` does.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn kill(&mut self, who: Who) -> Result<()> {
        self.process_mut(who)?.kill().await
    }

    /// Asks a process to stop, which has to succeed.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(&mut self, who: Who) -> Result<()> {
        let process = self.process_mut(who)?;
        let status = process.terminate().await?;
        ensure!(status.success(), "{who:?}: {status} {:#?}", process.log());
        Ok(())
    }

    /// Stops all, which has to succeed and to have been quiet but for what is `expected` of each role.
    ///
    /// # Errors
    /// When one does not end well, or logged something else.
    pub async fn end(mut self, expected: &[&str]) -> Result<()> {
        // The ones that work first, then those that are asked.
        let mut all: Vec<Who> = self.running().into_iter().map(|(who, _)| who).collect();
        all.sort_by_key(|(role, _)| ["gateway", "embeddings"].contains(role));
        for who in all {
            self.stop(who).await?;
        }
        let members: Vec<Who> = self.members.keys().copied().collect();
        for who in members {
            self.bury(who);
        }
        let logs = self.logs.iter();
        let surprises: Vec<String> = logs
            .flat_map(|(who, log)| {
                let lines = surprises(log, expected).into_iter();
                lines.map(move |line| format!("{who:?}: {line}"))
            })
            .collect();
        ensure!(surprises.is_empty(), "unexpected in logs: {surprises:#?}");
        Ok(())
    }

    /// Writes all that was logged until now below a directory, a file for each process that there was.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_logs(&self, dir: &Path) -> Result<()> {
        // Those of an earlier run would be taken for this one's.
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)?;
        let gone = self.logs.iter().cloned();
        let running = self.members.iter();
        let all = gone.chain(running.map(|(who, member)| (*who, member.process.log())));
        for (life, ((role, number), log)) in all.enumerate() {
            let file = dir.join(format!("{life:03}-{role}-{number}.log"));
            std::fs::write(file, log.join("\n"))?;
        }
        Ok(())
    }

    /// Keeps what a process that is gone has logged.
    fn bury(&mut self, who: Who) {
        if let Some(member) = self.members.remove(&who) {
            self.logs.push((who, member.process.log()));
        }
    }
}
