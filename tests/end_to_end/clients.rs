//! Programs that people would write, and `sightline` itself, as clients of one started platform: each generated from the protos as
//! their languages do it.

mod command_line;
mod examples;
mod reflection;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::clip_url;
use sightline_testkit::process::Process;
use sightline_testkit::{python, repository, soon};
use tempfile::TempDir;
use tokio::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_sightline");

#[tokio::test]
async fn every_language_is_served() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let told = server.in_python().await?;
    assert_eq!(
        told["unknown"],
        json!(["NOT_FOUND", "NOT_FOUND", ["rtstream_id"]])
    );
    assert_eq!(
        told["wrong"],
        json!(["INVALID_ARGUMENT", "INVALID_ARGUMENT", ["query"]])
    );
    served(&told)?;
    let told = server.in_typescript().await?;
    assert_eq!(told["unknown"], json!(["NotFound", "NOT_FOUND"]));
    assert_eq!(
        told["wrong"],
        json!(["InvalidArgument", "INVALID_ARGUMENT"])
    );
    served(&told)?;
    reflection::calls(&server.url, &server.key).await?;
    server.stop().await
}

/// What a program told of its way through the API: scenes in order and none twice, a page, a hit, and nothing left.
fn served(told: &Value) -> Result<()> {
    let watched = told["watched"].as_array().context("scenes")?;
    ensure!(
        watched.len() == 3 && watched.iter().all(|text| text != ""),
        "{told}"
    );
    assert_eq!(told["listed"], json!([1, true]), "{told}");
    ensure!(
        told["best"].as_f64().is_some_and(|best| best > 0.5),
        "{told}"
    );
    assert_eq!(told["gone"], told["unknown"], "{told}");
    Ok(())
}

/// A started platform as its user has it: its address, and the key that it made and keeps in its data directory.
struct Server {
    up: Process,
    /// `http://HOST:PORT`
    url: String,
    key: String,
    /// For data, and for what clients generate.
    dir: TempDir,
}

impl Server {
    async fn start(listen: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (up, url) = started(&dir.path().join("data"), listen).await?;
        let key = std::fs::read_to_string(dir.path().join("data/api-key"))?;
        let key = key.trim().to_owned();
        Ok(Self { up, url, key, dir })
    }

    /// Stops it and starts it again where it was.
    async fn restart(&mut self) -> Result<()> {
        ensure!(self.up.terminate().await?.success(), "{:#?}", self.up.log());
        let listen = self.url.trim_start_matches("http://").to_owned();
        (self.up, _) = started(&self.dir.path().join("data"), &listen).await?;
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        ensure!(self.up.terminate().await?.success(), "{:#?}", self.up.log());
        no_surprises(&self.up, &[])
    }

    async fn in_python(&self) -> Result<Value> {
        let generated = self.folder("python")?;
        let script = repository().join("tests/clients/python/client.py");
        let mut python = self.tool(&python::interpreter()?, &generated);
        python
            .args([&script, &generated])
            .args([&self.url, &clip_url()?]);
        said(python).await
    }

    /// Generated, compiled with the types checked, and run.
    async fn in_typescript(&self) -> Result<Value> {
        let tests = repository().join("tests/clients/node");
        let folder = self.node_folder("typescript")?;
        let mut generate = self.tool(&modules().join(".bin/buf"), &tests);
        run(generate.args(["generate", "-o"]).arg(&folder)).await?;
        for file in ["client.ts", "tsconfig.json", "package.json"] {
            std::fs::copy(tests.join(file), folder.join(file))?;
        }
        run(&mut self.tool(&modules().join(".bin/tsc"), &folder)).await?;
        let mut node = self.tool(Path::new("node"), &folder);
        node.args(["out/client.js", &self.url, &clip_url()?]);
        said(node).await
    }

    /// A new folder for what a client generates.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// The same, in which programs find the packages of `tests/clients/node`.
    fn node_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder(name)?;
        ensure!(
            modules().exists(),
            "{} is missing: run `make test`, which installs it",
            modules().display()
        );
        std::os::unix::fs::symlink(modules(), folder.join("node_modules"))?;
        Ok(folder)
    }

    /// A program in a folder, with the key as users give it.
    fn tool(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env("SIGHTLINE_API_KEY", &self.key)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

fn modules() -> PathBuf {
    repository().join("tests/clients/node/node_modules")
}

/// An address to which a server can come back: below the ports that the system gives to those who name none, one of whom might have
/// it by then.
fn lasting_address() -> Result<String> {
    let first = std::process::id() % 10_000;
    let mut addresses = (0..100).map(|next| format!("127.0.0.1:{}", 20_000 + first + next));
    let free = addresses.find(|address| TcpListener::bind(address).is_ok());
    free.context("a free port")
}

/// An all-in-one over its own nats-server, without a key from outside, and its address.
async fn started(data: &Path, listen: &str) -> Result<(Process, String)> {
    let data = data.display().to_string();
    let media = repository().join("tests/media").display().to_string();
    let mut arguments = vec!["up", "--json", "--listen", listen, "--data-dir", &data];
    arguments.extend(["--admin-listen", "127.0.0.1:0", "--media-root", &media]);
    let mut up = Process::start(Path::new(BINARY), arguments, &[])?;
    let said: Value = serde_json::from_str(&up.line().await?)?;
    let listen = said["listen"].as_str();
    let listen = listen.context("it says where it listens")?;
    Ok((up, format!("http://{listen}")))
}

/// Runs a program to its end; what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let what = format!("{:?}", command.as_std().get_program());
    let output = soon(&what, command.output()).await?;
    let output = output.with_context(|| format!("cannot start {what}: run `make test`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success(),
        "{what}: {}\n{out}{err}",
        output.status
    );
    Ok(out)
}

/// The JSON object that a program prints.
async fn said(mut command: Command) -> Result<Value> {
    let out = run(&mut command).await?;
    serde_json::from_str(&out).context(out)
}
