//! The command line. The environment is read here alone, through clap, for what the command line leaves out.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use sightline_egress::Policy;

use crate::client::args::ClientCommand;
use crate::nats::NatsArgs;
use crate::otel::OtelArgs;
use crate::secret::{Secret, unrepeated};
use crate::sinks::{SinkArgs, SinkNameArgs};
use crate::vectors::VectorArgs;
use sightline_gateway::{Tls, TlsError};

/// Turns live video into something you can search and be alerted by.
#[derive(Debug, Parser)]
#[command(name = "sightline", version)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// Which log lines to write to standard error, for example "debug" or "warn,sightline_ingest=debug".
    #[arg(long, global = true, env = "SIGHTLINE_LOG")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Kill this process at the Nth pass of a place in the code. For tests.
    #[arg(long, global = true, hide = true, value_name = "NAME=N")]
    pub failpoint: Vec<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play a clip through the whole platform and show what comes out.
    Demo(DemoArgs),
    /// Run the whole platform in one process, and stay up.
    Up(UpArgs),
    /// Run the public API alone.
    Gateway(GatewayArgs),
    /// Run storing and searching alone.
    Embeddings(EmbeddingsArgs),
    /// Run evaluating and delivering alerts alone.
    Alerts(AlertsArgs),
    /// Run reading, sampling and cutting of streams alone.
    Ingest(IngestArgs),
    /// Run describing and judging of windows alone.
    Caption(CaptionArgs),
    /// Run transcribing alone.
    Transcribe(TranscribeArgs),
    /// Models that are known by name: list, pull and check them.
    Models(crate::models::ModelsArgs),
    /// Compare how the bus keeps its streams with how this release makes them.
    Bus(crate::nats::BusArgs),
    /// Have the vector store built anew, from what the bus has kept and what the old one has.
    Reindex(crate::reindex::ReindexArgs),
    /// Read one stream for an ingest worker.
    #[command(hide = true)]
    IngestChild(ReachArgs),
    /// Print docs/metrics.md.
    #[command(hide = true)]
    MetricsPage,
    /// Ask something of a running server.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End with one JSON object on standard output; everything for people goes to standard error.
    #[arg(long)]
    pub json: bool,
    /// Play as fast as every window can be described, instead of in real time.
    #[arg(long)]
    pub fast: bool,
    /// Stay up at the end, so that what was found can be watched in a browser, and print the links.
    #[arg(long)]
    pub stay: bool,
    /// The clip to play; the sample clip if none is named.
    #[arg(long, value_name = "FILE")]
    pub clip: Option<PathBuf>,
    #[command(flatten)]
    pub models: ModelArgs,
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where the public API listens. Beyond loopback only with SIGHTLINE_API_KEY set.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Where metrics and probes listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7701")]
    pub admin_listen: SocketAddr,
    /// Print where everything is as one JSON line instead of for people.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataArgs,
    /// A running nats-server with JetStream, as nats://[TOKEN or USER:PASSWORD@]HOST:PORT. Without it one is started in the
    /// data directory, and stopped at the end.
    #[arg(
        long,
        value_name = "URL",
        env = "SIGHTLINE_NATS_URL",
        hide_env_values = true
    )]
    pub nats_url: Option<String>,
    #[command(flatten)]
    pub nats: NatsArgs,
    /// The nats-server program to start.
    #[arg(long, value_name = "PROGRAM", default_value = "nats-server")]
    pub nats_server: PathBuf,
    #[command(flatten)]
    pub sources: SourceArgs,
    #[command(flatten)]
    pub reach: ReachArgs,
    #[command(flatten)]
    pub egress: EgressArgs,
    #[command(flatten)]
    pub sinks: SinkArgs,
    #[command(flatten)]
    pub recordings: RecordingArgs,
    #[command(flatten)]
    pub links: LinkArgs,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub models: ModelArgs,
    #[command(flatten)]
    pub otel: OtelArgs,
}

/// Options of `gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Where the public API listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// The embeddings service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7702")]
    pub embeddings_url: String,
    /// A model that caption workers serve; may be repeated, the first is the default.
    #[arg(
        long = "model",
        value_name = "NAME",
        default_value = "demo-vlm",
        conflicts_with = "models_file"
    )]
    pub model_names: Vec<String>,
    /// The models file of the workers, which says what their models are called and what they can do.
    #[arg(
        id = "models_file",
        long,
        value_name = "FILE",
        env = "SIGHTLINE_MODELS_FILE"
    )]
    pub models_file: Option<PathBuf>,
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub sources: SourceArgs,
    #[command(flatten)]
    pub egress: EgressArgs,
    #[command(flatten)]
    pub sinks: SinkNameArgs,
    #[command(flatten)]
    pub recordings: RecordingArgs,
    #[command(flatten)]
    pub links: LinkArgs,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Options of `embeddings`.
#[derive(Debug, Args)]
pub struct EmbeddingsArgs {
    /// Where the gateway reaches this service.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7702")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub vectors: VectorArgs,
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub models: ModelArgs,
}

/// Options of `alerts`.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub links: LinkArgs,
    #[command(flatten)]
    pub egress: EgressArgs,
    #[command(flatten)]
    pub sinks: SinkArgs,
}

/// Options of `ingest`.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// How many streams this worker runs at most.
    #[arg(long, default_value_t = crate::roles::STREAMS)]
    pub capacity: usize,
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub sources: SourceArgs,
    #[command(flatten)]
    pub reach: ReachArgs,
    #[command(flatten)]
    pub recordings: RecordingArgs,
}

/// Options of `caption`.
#[derive(Debug, Args)]
pub struct CaptionArgs {
    /// Serve this model of the models file alone.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub models: ModelArgs,
}

/// Options of `transcribe`.
#[derive(Debug, Args)]
pub struct TranscribeArgs {
    #[command(flatten)]
    pub role: RoleArgs,
    #[command(flatten)]
    pub models: ModelArgs,
}

/// What every role that runs alone is told.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The nats-server with JetStream, as nats://[TOKEN or USER:PASSWORD@]HOST:PORT.
    #[arg(
        long,
        value_name = "URL",
        env = "SIGHTLINE_NATS_URL",
        hide_env_values = true
    )]
    pub nats_url: String,
    #[command(flatten)]
    pub nats: NatsArgs,
    /// Where metrics and probes listen; nowhere if unset.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub otel: OtelArgs,
}

/// Where data is kept.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Where everything is kept that has to survive; ~/.local/share/sightline if unset. Gateway, ingest and alerts share its
    /// seal.key.
    #[arg(long, value_name = "DIR", env = "SIGHTLINE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Which sources may be read.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The one directory that file sources may come from; without it there are none.
    #[arg(long, value_name = "DIR")]
    pub media_root: Option<PathBuf>,
}

/// Where sources may be.
#[derive(Debug, Args)]
pub struct ReachArgs {
    /// A range that sources may be in besides public addresses and the private networks 10.0.0.0/8, 172.16.0.0/12 and
    /// 192.168.0.0/16, for example 127.0.0.1; may be repeated.
    #[arg(long, value_name = "CIDR", value_parser = range)]
    pub allow_source: Vec<IpNet>,
}

/// Where cameras live.
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

impl ReachArgs {
    /// The addresses that sources may be at.
    pub fn policy(self) -> Policy {
        let private = PRIVATE.map(|net| net.parse().expect("a range"));
        Policy {
            allow: private.into_iter().chain(self.allow_source).collect(),
        }
    }
}

/// Where recordings are kept, and for how long.
#[derive(Debug, Args)]
pub struct RecordingArgs {
    /// The object store of recordings: file:///DIR, or s3://BUCKET/PREFIX with the AWS_ variables of the environment; the data
    /// directory's recordings/ if unset. Gateway and ingest share it.
    #[arg(long, value_name = "URL", env = "SIGHTLINE_RECORDINGS")]
    pub recordings: Option<String>,
    /// For how many days recordings are kept, unless a stream says otherwise; 0: for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(..=3650))]
    pub keep_days: u32,
    /// How many gigabytes of each stream are kept, unless it says otherwise; 0: as many as there are.
    #[arg(long, value_name = "GB", default_value_t = 0)]
    pub keep_gb: u32,
}

/// Links that play recordings.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Where people reach the gateway, for links in answers and webhooks; where it listens if unset.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<url::Url>,
    /// For how many days a link works; 0: for as long as its recording is kept.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=3650))]
    pub link_days: u32,
}

/// Where webhooks may go.
#[derive(Debug, Args)]
pub struct EgressArgs {
    /// A private range that webhooks may go to, for example 192.168.0.0/16; may be repeated. Public addresses always may.
    #[arg(long, value_name = "CIDR", value_parser = range)]
    pub allow_egress: Vec<IpNet>,
}

/// Who may call.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The first API key; set SIGHTLINE_API_KEY rather than this option, which other users of the machine can see.
    #[arg(
        id = "api_key",
        long = "api-key",
        hide = true,
        env = "SIGHTLINE_API_KEY",
        hide_env_values = true,
        value_parser = unrepeated::<Secret>()
    )]
    pub api_key: Option<Secret>,
}

/// How connections to the public API are protected.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// The certificate chain in PEM, the server's own certificate first: the public API then speaks TLS. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM, not encrypted. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Take API keys from other machines over connections without TLS: behind a proxy that ends TLS.
    #[arg(long)]
    pub allow_plain_keys: bool,
}

impl TlsArgs {
    /// The pair, if one is named.
    ///
    /// # Errors
    /// When it can't be used; the error says what to do.
    pub fn load(&self) -> Result<Option<Tls>, TlsError> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Tls::load(cert, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// Where models are.
#[derive(Debug, Default, Args)]
pub struct ModelArgs {
    /// A TOML file with the models that describe, transcribe and embed (docs/models.md); the demo models without it.
    #[arg(
        long,
        value_name = "FILE",
        env = "SIGHTLINE_MODELS_FILE",
        conflicts_with_all = ["vlm", "whisper", "embedder"]
    )]
    pub models_file: Option<PathBuf>,
    /// The directory of models; the repository's models/ or /usr/share/sightline/models if unset.
    #[arg(long, value_name = "DIR", env = "SIGHTLINE_MODELS")]
    pub models_dir: Option<PathBuf>,
    /// The directory of the vision-language model; its name is the model's.
    #[arg(long, value_name = "DIR")]
    pub vlm: Option<PathBuf>,
    /// The whisper.cpp model file.
    #[arg(long, value_name = "FILE")]
    pub whisper: Option<PathBuf>,
    /// The directory of the text embedding model.
    #[arg(long, value_name = "DIR")]
    pub embedder: Option<PathBuf>,
    /// ONNX Runtime's shared library, 1.24 or newer; what `make setup` installed if unset.
    #[arg(long, value_name = "FILE", env = "SIGHTLINE_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
}

/// A range, or a single address.
fn range(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| single())
        .map_err(|_| "write a range such as 192.168.0.0/16 or an address".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn alerts_are_told_several_things_at_once() {
        let parsed = |words: &str| {
            let words = format!("sightline alert {words} --severity info --of 3 --required 2");
            Cli::try_parse_from(words.split_whitespace()).is_ok()
        };
        assert!(parsed("create --event e --index i"));
        assert!(parsed(
            "create --event evt-frozen --stream s --sink a --sink b"
        ));
        assert!(parsed("update a --threshold 0.5"));
        assert!(!parsed("create --event e --index i --stream s"));
        assert!(!parsed("create --event e"));
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        let parsed = |files: &[&str]| {
            let command = ["sightline", "up"].iter().chain(files);
            Cli::try_parse_from(command).is_ok()
        };
        assert!(parsed(&[]));
        assert!(parsed(&["--tls-cert", "a", "--tls-key", "b"]));
        assert!(!parsed(&["--tls-cert", "a"]));
        assert!(!parsed(&["--tls-key", "b"]));
    }

    #[test]
    fn ranges_and_addresses_are_taken() {
        let cases = [
            ("10.0.0.0/8", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("localhost", false),
            ("1.2.3.4/99", false),
        ];
        for (text, taken) in cases {
            assert_eq!(range(text).is_ok(), taken, "{text}");
        }
    }

    #[test]
    fn a_range_that_is_named_for_sources_takes_no_other_away() {
        let allowed = |named: &[&str], address: &str| {
            let named = named.iter().map(|net| range(net).expect("a range"));
            let reach = ReachArgs {
                allow_source: named.collect(),
            };
            let address = address.parse().expect("an address");
            reach.policy().check_addr(address).is_ok()
        };
        for camera in ["10.1.2.3", "172.16.0.1", "192.168.7.20", "93.184.215.14"] {
            assert!(allowed(&[], camera), "{camera}");
            assert!(allowed(&["127.0.0.1"], camera), "{camera}");
        }
        for special in ["127.0.0.1", "100.64.0.1", "fd00::1", "169.254.169.254"] {
            assert!(!allowed(&[], special), "{special}");
            assert!(allowed(&[special], special), "{special}");
        }
    }
}
