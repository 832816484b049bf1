//! The programs of `examples/`, each as its README says, all at once.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use sightline_testkit::platform::clip_url;
use sightline_testkit::{python, repository, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::{BINARY, Server, modules, run};

#[tokio::test]
async fn each_example_shows_what_happens() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let (python, node) = (server.python_example().await?, server.node_example().await?);
    let shell = repository().join("examples/shell/scenes.sh");
    let rust = Path::new(BINARY).with_file_name("examples/scenes");
    let (shell, rust) = (
        server.tool(&shell, Path::new("/")),
        server.tool(&rust, Path::new("/")),
    );
    let host = server.url.trim_start_matches("http://");
    tokio::try_join!(
        shows(python, host),
        shows(node, &server.url),
        shows(shell, &server.url),
        shows(rust, &server.url),
    )?;
    server.stop().await
}

impl Server {
    async fn python_example(&self) -> Result<Command> {
        let generated = self.folder("python-example")?;
        let protos = repository().join("proto");
        let mut generate = self.tool(&python::interpreter()?, &generated);
        generate
            .args([
                "-m",
                "grpc_tools.protoc",
                "--python_out=.",
                "--grpc_python_out=.",
                "-I",
            ])
            .arg(&protos)
            .args(public(&protos)?);
        run(&mut generate).await?;
        let mut python = self.tool(&python::interpreter()?, &generated);
        python
            .arg(repository().join("examples/python/scenes.py"))
            .env("PYTHONPATH", &generated);
        Ok(python)
    }

    async fn node_example(&self) -> Result<Command> {
        let folder = self.node_folder("node-example")?;
        for file in ["scenes.mjs", "buf.gen.yaml"] {
            let example = repository().join("examples/node").join(file);
            std::fs::copy(example, folder.join(file))?;
        }
        let protos = repository().join("proto");
        let mut generate = self.tool(&modules().join(".bin/buf"), &folder);
        generate.arg("generate").arg(&protos).arg("--path");
        run(generate.arg(protos.join("sightline/v1"))).await?;
        let mut node = self.tool(Path::new("node"), &folder);
        node.arg("scenes.mjs");
        Ok(node)
    }
}

/// The files of the public package.
fn public(protos: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(protos.join("sightline/v1"))?;
    files.map(|file| Ok(file?.path())).collect()
}

/// It prints a description, as soon as there is one.
async fn shows(mut example: Command, server: &str) -> Result<()> {
    let mut child = example
        .args([server, &clip_url()?])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {example:?}"))?;
    let out = child.stdout.take().context("a standard output")?;
    let mut lines = BufReader::new(out).lines();
    let line = soon("a description", lines.next_line()).await??;
    if let Some(line) = line {
        ensure!(line.contains(' '), "{line}");
        return Ok(child.kill().await?);
    }
    let mut words = String::new();
    let mut err = child.stderr.take().context("a standard error")?;
    err.read_to_string(&mut words).await?;
    anyhow::bail!("{example:?} ended: {words}")
}
