//! The nats-server: how to reach it, and `sightline bus plan | apply`, which show and change how its streams are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use sightline_bus::{Bus, BusConfig, Difference, Login};

/// The key-value buckets beside the streams.
const BUCKETS: [&str; 1] = [sightline_catalog::BUCKET];

/// Who asks a nats-server, and how it keeps what is made.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The nats-server")]
pub struct NatsArgs {
    /// A file with the credentials (JWT and seed) for the nats-server, as nsc writes it.
    #[arg(
        long,
        value_name = "FILE",
        env = "SIGHTLINE_NATS_CREDS",
        conflicts_with = "nats_nkey"
    )]
    pub nats_creds: Option<PathBuf>,
    /// A file with the seed (SU…) of the nkey that the nats-server knows.
    #[arg(long, value_name = "FILE", env = "SIGHTLINE_NATS_NKEY")]
    pub nats_nkey: Option<PathBuf>,
    /// Certificates (PEM) of who signed the nats-server's, beside those that this machine trusts.
    #[arg(long, value_name = "FILE", env = "SIGHTLINE_NATS_CA")]
    pub nats_ca: Option<PathBuf>,
    /// The certificate (PEM) to show to the nats-server.
    #[arg(long, value_name = "FILE", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,
    /// On how many nats-servers each stream is kept that is made from now on. Streams that are there stay as they are: see
    /// `sightline bus plan`.
    #[arg(long, value_name = "N", env = "SIGHTLINE_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
}

impl NatsArgs {
    /// How to connect to the servers at `url`, called `name` there.
    ///
    /// # Errors
    /// When an address is not understood or a file can't be read.
    pub fn config(&self, url: &str, name: &str) -> Result<BusConfig> {
        let mut config = addresses(url)?;
        name.clone_into(&mut config.name);
        if let Some(file) = &self.nats_creds {
            config.login = Login::Credentials(read(file)?);
        }
        if let Some(file) = &self.nats_nkey {
            config.login = Login::Nkey(read(file)?.trim().to_owned());
        }
        config.ca_file.clone_from(&self.nats_ca);
        config.client_certificate = self.nats_cert.clone().zip(self.nats_key.clone());
        config.replicas = self.nats_replicas.into();
        Ok(config)
    }
}

/// Says where streams are kept otherwise than this release would: nothing is changed by itself.
pub async fn compare(bus: &Bus) {
    match bus.plan(&BUCKETS).await {
        Ok(planned) => {
            for difference in planned {
                tracing::warn!(%difference, "a stream is kept otherwise than this release would; `sightline bus plan` shows all");
            }
        }
        Err(error) => tracing::debug!(%error, "streams cannot be compared"),
    }
}

/// Options of `bus`.
#[derive(Debug, Args)]
pub struct BusArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show how the bus's streams differ from how this release makes them; exit code 2 if they do.
    Plan(Reached),
    /// Change them, keeping what they hold. What can't be changed in place stays as it is, and is told.
    Apply(Reached),
}

#[derive(Debug, Args)]
struct Reached {
    /// The nats-servers, as for the roles.
    #[arg(
        long,
        value_name = "URL",
        env = "SIGHTLINE_NATS_URL",
        hide_env_values = true
    )]
    nats_url: String,
    #[command(flatten)]
    nats: NatsArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `bus`.
///
/// # Errors
/// When the bus does not answer, or refuses a change.
pub async fn run(args: BusArgs) -> Result<ExitCode> {
    let (reached, change) = match &args.action {
        Action::Plan(reached) => (reached, false),
        Action::Apply(reached) => (reached, true),
    };
    let bus = Bus::reach(&reached.nats.config(&reached.nats_url, "bus")?).await?;
    let planned = bus.plan(&BUCKETS).await?;
    if change {
        for difference in planned.iter().filter(|difference| difference.in_place) {
            bus.apply(difference).await?;
        }
    }
    show(&planned, change, reached.json);
    let left = planned.iter().any(|d| !(change && d.in_place));
    Ok(ExitCode::from(if left { 2 } else { 0 }))
}

fn show(planned: &[Difference], changed: bool, as_json: bool) {
    if as_json {
        let of = |difference: &Difference| {
            let fields = difference.fields.iter().map(
                |field| json!({ "field": field.name, "is": field.is, "wanted": field.wanted }),
            );
            json!({
                "stream": difference.stream,
                "differences": fields.collect::<Vec<_>>(),
                "in_place": difference.in_place,
                "changed": changed && difference.in_place,
            })
        };
        let all: Vec<_> = planned.iter().map(of).collect();
        println!("{}", json!({ "streams": all }));
        return;
    }
    if planned.is_empty() {
        println!("every stream is as this release makes it");
    }
    for difference in planned {
        let done = if changed && difference.in_place {
            " (changed)"
        } else {
            ""
        };
        println!("{difference}{done}");
    }
}

/// Addresses as people write them: `nats://TOKEN@HOST:PORT` and `nats://USER:PASSWORD@HOST:PORT` carry credentials; several are
/// separated by commas.
fn addresses(urls: &str) -> Result<BusConfig> {
    let mut config = BusConfig::default();
    let mut parsed = Vec::new();
    for url in urls.split(',').map(str::trim) {
        let mut url = url::Url::parse(url).ok().filter(url::Url::has_host).context(
            "the nats-server's address is not understood: write nats://HOST:PORT, with TOKEN@ or USER:PASSWORD@ before the host if it asks for one; several with commas between them",
        )?;
        if url.password().is_none() && !url.username().is_empty() {
            config.login = Login::Token(url.username().to_owned());
            let _ = url.set_username("");
        }
        parsed.push(url.to_string().trim_end_matches('/').to_owned());
    }
    config.url = parsed.join(",");
    Ok(config)
}

fn read(file: &Path) -> Result<String> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if text.trim().is_empty() {
        bail!("{} is empty: it should hold a secret", file.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_credentials_as_nats_writes_them() {
        for (given, url, token) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222", None),
            (
                "nats://secret@127.0.0.1:4222",
                "nats://127.0.0.1:4222",
                Some("secret"),
            ),
            ("nats://me:secret@host:1", "nats://me:secret@host:1", None),
            ("tls://a:1, tls://b:2", "tls://a:1,tls://b:2", None),
        ] {
            let config = addresses(given).expect("understood");
            assert_eq!((&*config.url, config.login.token()), (url, token));
        }
        for given in ["127.0.0.1:4222", "nats", "nats://a:1,,nats://b:2"] {
            assert!(addresses(given).is_err(), "{given}");
        }
    }

    #[test]
    fn secrets_come_from_files() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("seed");
        fs::write(&file, "SUSEED\n")?;
        let mut args = NatsArgs {
            nats_nkey: Some(file.clone()),
            nats_replicas: 3,
            ..NatsArgs::default()
        };
        let config = args.config("nats://a:1", "test")?;
        assert_eq!(
            (config.login, config.replicas),
            (Login::Nkey("SUSEED".to_owned()), 3)
        );
        fs::write(&file, " ")?;
        assert!(args.config("nats://a:1", "test").is_err());
        args.nats_nkey = Some(dir.path().join("nowhere"));
        let error = args.config("nats://a:1", "test").expect_err("no file");
        assert!(error.to_string().contains("nowhere"), "{error}");
        Ok(())
    }
}
