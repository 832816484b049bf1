//! What operators look at: probes, and metrics against the page that lists them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::process::Process;
use sightline_testkit::{repository, until};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::ground;
use crate::playback::get;

/// A row of docs/metrics.md.
struct Row {
    kind: String,
    /// What each label may say; nothing where the page says it in words.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Where a process says that it serves metrics and probes.
async fn admin(process: &Process) -> Result<String> {
    let address = until("the address of metrics and probes", async || {
        let log = process.log();
        let line = log
            .iter()
            .find(|line| line.contains("metrics and probes are served"));
        let address = line.and_then(|line| line.split_once("address="));
        Ok(address.map(|(_, address)| address.trim().to_owned()))
    });
    Ok(format!("http://{}", address.await?))
}

/// Waits until a process that serves probes is ready.
pub async fn ready(process: &Process) -> Result<()> {
    let probe = format!("{}/readyz", admin(process).await?);
    until("the process to be ready", async || {
        Ok((get(&probe).await?.0 == 200).then_some(()))
    })
    .await
}

/// What a process exposes is on the page, and what is on the page without labels is exposed.
pub async fn exposes_what_the_page_lists(process: &Process) -> Result<()> {
    let (status, text) = get(&format!("{}/metrics", admin(process).await?)).await?;
    ensure!(status == 200, "{status}");
    let text = String::from_utf8(text)?;
    let page = std::fs::read_to_string(repository().join("docs/metrics.md"))?;
    let page = rows(&page);
    let mut exposed = BTreeSet::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').context("a name and a kind")?;
            let total = if kind == "counter" { "_total" } else { "" };
            let name = format!("{name}{total}");
            let row = page.get(&name);
            let row = row.with_context(|| format!("{name} is not on docs/metrics.md"))?;
            ensure!(row.kind == kind, "{name} is a {kind}");
            exposed.insert(name);
        } else if let Some((name, labels)) = line.split_once('{') {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| name.strip_suffix(part));
            let row = page.get(name).or_else(|| page.get(whole?));
            check(row.context("it has a type")?, labels).with_context(|| line.to_owned())?;
        }
    }
    for (name, row) in page {
        let missing = row.labels.is_empty() && !exposed.contains(&name);
        ensure!(!missing, "{name} is on docs/metrics.md, and nobody has it");
    }
    Ok(())
}

/// The labels of one sample are those of the page.
fn check(row: &Row, mut labels: &str) -> Result<()> {
    while let Some((name, rest)) = labels.split_once("=\"") {
        let (value, rest) = rest.split_once('"').context("a value ends")?;
        labels = rest.trim_start_matches(',');
        if name != "le" {
            let values = row.labels.get(name).context("a label of the page")?;
            ensure!(values.is_empty() || values.contains(value), "{value}");
        }
        // What follows is the sample's value, or that and an exemplar.
        if rest.starts_with('}') {
            break;
        }
    }
    Ok(())
}

fn rows(page: &str) -> BTreeMap<String, Row> {
    let quoted = |text: &str| text.trim().trim_matches('`').to_owned();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let labels = cells[3].split("<br>").filter_map(|label| {
            let (name, values) = label.split_once(": ")?;
            let listed = values.starts_with('`');
            let values = values.split(", ").filter(|_| listed).map(quoted);
            Some((quoted(name), values.collect()))
        });
        let row = Row {
            kind: cells[1].to_owned(),
            labels: labels.collect(),
        };
        (quoted(&cells[0][2..]), row)
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn a_role_alone_is_ready_once_the_bus_and_its_model_are_there() -> Result<()> {
    let ground = ground().await?;
    let nats = Url::parse(ground.nats_url())?;
    // The bus is behind a door that the test opens: until then nobody answers there.
    let door = TcpListener::bind("127.0.0.1:0").await?;
    let mut url = nats.clone();
    url.set_port(Some(door.local_addr()?.port()))
        .ok()
        .context("a port")?;
    let arguments = ["transcribe", "--admin-listen", "127.0.0.1:0", "--nats-url"];
    let mut role = Process::start(&ground.binary, arguments.iter().chain([&url.as_str()]), &[])?;
    let admin = admin(&role).await?;
    let probe = async |path: &str| {
        let (status, text) = get(&format!("{admin}{path}")).await?;
        anyhow::Ok((status, String::from_utf8(text)?))
    };
    let lacks_all = (503, "not ready: bus, transcribe\n".to_owned());
    assert_eq!(probe("/readyz").await?, lacks_all);
    assert_eq!(probe("/livez").await?.0, 200);

    tokio::spawn(async move {
        while let Ok((mut from, _)) = door.accept().await {
            let host = (
                nats.host_str().unwrap_or_default(),
                nats.port().unwrap_or(0),
            );
            let mut to = TcpStream::connect(host).await?;
            tokio::spawn(async move { copy_bidirectional(&mut from, &mut to).await });
        }
        anyhow::Ok(())
    });
    let lacks_model = (503, "not ready: transcribe\n".to_owned());
    until("the role to be ready", async || {
        let answer = probe("/readyz").await?;
        let ready = answer.0 == 200;
        ensure!(
            ready || answer == lacks_all || answer == lacks_model,
            "{answer:?}"
        );
        Ok(ready.then_some(()))
    })
    .await?;
    ensure!(role.terminate().await?.success(), "{:#?}", role.log());
    no_surprises(&role, &[])
}
