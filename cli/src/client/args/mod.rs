//! The command line of the client commands.

mod alerts;
mod backtest;
mod commands;
mod indexes;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub use self::alerts::{AlertOptions, written};
pub use self::backtest::{BacktestArgs, LatencyArgs};
pub use self::commands::{
    AlertCommand, CollectionCommand, EndpointCommand, EventCommand, KeysCommand, StreamCommand,
    Transcribe,
};
pub use self::indexes::IndexCommand;
use super::moment::Moment;
use crate::secret::{Secret, unrepeated};

/// What can be asked of a running server.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Connect streams, list them and run them.
    Stream(On<StreamCommand>),
    /// Create indexes of a stream, list them and change them.
    Index(On<IndexCommand>),
    /// Show what an index has described, newest first.
    Scenes(ScenesArgs),
    /// Show what was said on a stream, oldest first.
    Transcript(TranscriptArgs),
    /// Search scenes and transcripts by meaning.
    Search(SearchArgs),
    /// Create, list and change events: what to watch for.
    Event(On<EventCommand>),
    /// Create, list and change alerts, and see what came of them.
    Alert(On<AlertCommand>),
    /// List the receivers of webhooks, show and change their secrets, and test them.
    Endpoint(On<EndpointCommand>),
    /// Show what happens, as it happens, until it is interrupted.
    Watch(WatchArgs),
    /// Create, list and change collections of streams.
    Collection(On<CollectionCommand>),
    /// Create, list and revoke API keys, as an operator.
    Keys(On<KeysCommand>),
    /// Show which workers there are and what waits for them, as an operator
    System(SystemArgs),
}

impl ClientCommand {
    /// Which server it is for, and how it answers.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Stream(on) => &on.server,
            Self::Index(on) => &on.server,
            Self::Scenes(args) => &args.server,
            Self::Transcript(args) => &args.server,
            Self::Search(args) => &args.server,
            Self::Event(on) => &on.server,
            Self::Alert(on) => &on.server,
            Self::Endpoint(on) => &on.server,
            Self::Watch(args) => &args.server,
            Self::Collection(on) => &on.server,
            Self::Keys(on) => &on.server,
            Self::System(args) => &args.server,
        }
    }
}

/// A group of commands that are for one server.
#[derive(Debug, Args)]
pub struct On<T: Subcommand> {
    #[command(subcommand)]
    pub command: T,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Which server is called, and how the answer is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server and output")]
pub struct ServerArgs {
    /// The server, as http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SIGHTLINE_SERVER",
        default_value = "http://127.0.0.1:7700"
    )]
    pub server: String,
    /// The API key; set SIGHTLINE_API_KEY rather than this option, which other users of the machine can see. Without either, that
    /// of the data directory is taken for a server on this machine.
    #[arg(
        long,
        global = true,
        env = "SIGHTLINE_API_KEY",
        hide_env_values = true,
        value_parser = unrepeated::<Secret>()
    )]
    pub key: Option<Secret>,
    /// Where `up` on this machine keeps its key; ~/.local/share/sightline if unset.
    #[arg(long, global = true, value_name = "DIR", env = "SIGHTLINE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The certificates to trust for https, as a PEM file, instead of this machine's.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print one JSON object a line, with the fields of the API.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Options of `system`.
#[derive(Debug, Args)]
pub struct SystemArgs {
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `scenes`.
#[derive(Debug, Args)]
pub struct ScenesArgs {
    /// The index.
    pub index: String,
    #[command(flatten)]
    pub between: Between,
    #[command(flatten)]
    pub limit: Limit,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `transcript`.
#[derive(Debug, Args)]
pub struct TranscriptArgs {
    /// The stream.
    pub stream: String,
    #[command(flatten)]
    pub between: Between,
    #[command(flatten)]
    pub limit: Limit,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for, in words.
    pub query: String,
    /// Search this stream.
    #[arg(long, value_name = "ID", conflicts_with = "collection")]
    pub stream: Option<String>,
    /// Search every stream of this collection; "default" if neither is named.
    #[arg(long, value_name = "ID")]
    pub collection: Option<String>,
    /// Only this index.
    #[arg(long, value_name = "ID")]
    pub index: Option<String>,
    /// How many results at most.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub limit: u16,
    /// Only results with at least this score, 0 to 1.
    #[arg(long, value_name = "SCORE", default_value_t = 0.0)]
    pub min_score: f32,
    /// Merge results that touch.
    #[arg(long)]
    pub stitch: bool,
    #[command(flatten)]
    pub between: Between,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only this stream; may be repeated.
    #[arg(long = "stream", value_name = "ID")]
    pub streams: Vec<String>,
    /// Only this index; may be repeated. What belongs to no index is shown too.
    #[arg(long = "index", value_name = "ID")]
    pub indexes: Vec<String>,
    /// Only this kind; may be repeated.
    #[arg(long = "kind", value_enum)]
    pub kinds: Vec<WatchKind>,
    /// Also what is still being said, at most once a second; the line that is final follows.
    #[arg(long)]
    pub interim: bool,
    /// Go on after the message that had this cursor; from now on if unset.
    #[arg(long)]
    pub cursor: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Kinds of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WatchKind {
    /// What was said.
    Transcript,
    /// What a visual index described.
    Scene,
    /// What an audio index batched.
    AudioScene,
    /// Firings.
    Alert,
    /// Changes of a stream's state.
    Status,
    /// How likely events are, window by window; only shown when it is named.
    Verdict,
}

/// How much is listed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Limit {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// Which stretch of time.
#[derive(Debug, Clone, Copy, Args)]
pub struct Between {
    /// Only what ends after this: a time such as 2026-11-26T08:00:00Z, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// Only what starts before this: a time, or how long ago.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Moment>,
}
