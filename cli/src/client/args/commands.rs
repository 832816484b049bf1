//! What can be done with streams, events, alerts, endpoints, collections and keys.

use std::time::Duration;

use clap::{ArgGroup, Subcommand, ValueEnum};

use super::{AlertOptions, BacktestArgs, LatencyArgs, Limit};
use crate::client::moment::{Moment, duration};

/// What can be done with streams.
#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// Connect a camera or a file, and start reading it.
    Connect {
        /// The source: rtsp://, rtmp://, srt://, http:// (each with TLS where there is such), or file:// below the server's media root.
        url: String,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// The collection it belongs to; "default" if unset.
        #[arg(long, value_name = "ID")]
        collection: Option<String>,
        /// Transcribe its speech.
        #[arg(long)]
        transcribe: bool,
        /// Record it.
        #[arg(long)]
        record: bool,
        /// Play a file as fast as it can be described, instead of in real time.
        #[arg(long)]
        fast: bool,
        /// Do not start reading it: `stream start` does, once its indexes are there.
        #[arg(long)]
        stopped: bool,
    },
    /// List streams, newest first.
    List {
        /// Only those of this collection.
        #[arg(long, value_name = "ID")]
        collection: Option<String>,
        /// Only those whose name contains this.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Show one stream and its indexes.
    Status {
        /// The stream.
        stream: String,
    },
    /// Start reading a stopped stream again.
    Start {
        /// The stream.
        stream: String,
    },
    /// Stop reading.
    Stop {
        /// The stream.
        stream: String,
    },
    /// Change a stream, while it runs too.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The stream.
        stream: String,
        /// Its new name.
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Whether its speech is transcribed.
        #[arg(long, value_enum, group = "change")]
        transcribe: Option<Transcribe>,
        /// The language that is spoken, for example en; without it the engine tells it. With --transcribe on.
        #[arg(long, value_name = "CODE", requires = "transcribe")]
        language: Option<String>,
        /// Write English, whatever is spoken. With --transcribe on.
        #[arg(long, requires = "transcribe")]
        translate: bool,
        /// For how long its recording is kept, for example 12h; 0s: the server's default. --keep-bytes is then the server's too,
        /// unless given.
        #[arg(long, value_name = "TIME", value_parser = duration, group = "change")]
        keep: Option<Duration>,
        /// How many bytes of its recording are kept; 0: the server's default. --keep is then the server's too, unless given.
        #[arg(long, value_name = "BYTES", group = "change")]
        keep_bytes: Option<u64>,
    },
    /// Stop a stream and delete it with all that was made of it.
    Delete {
        /// The stream.
        stream: String,
    },
}

/// Whether speech is transcribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transcribe {
    /// From now on.
    On,
    /// No more, once what was heard is finished.
    Off,
    /// No more, and what was heard is dropped.
    Drop,
}

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Create an event.
    Create {
        /// What to watch for, for example "Detect pedestrians crossing the zebra".
        prompt: String,
        /// A short name that firings carry; the beginning of the prompt if unset.
        #[arg(long)]
        label: Option<String>,
    },
    /// List events, oldest first.
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Change an event: the next window is judged by it.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The event.
        event: String,
        /// What to watch for.
        #[arg(long, group = "change")]
        prompt: Option<String>,
        /// Its new label.
        #[arg(long, group = "change")]
        label: Option<String>,
    },
    /// Delete an event that no alert uses.
    Delete {
        /// The event.
        event: String,
    },
    /// Judge what was, and say when it would have fired.
    Backtest(BacktestArgs),
}

/// What can be done with alerts.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// Watch an index for an event, or a stream for one of its health.
    #[command(group = ArgGroup::new("on").required(true), group = ArgGroup::new("change").multiple(true))]
    Create {
        /// The event.
        #[arg(long, value_name = "ID")]
        event: String,
        /// The index.
        #[arg(long, value_name = "ID", group = "on")]
        index: Option<String>,
        /// The stream, for evt-offline, evt-recovered, evt-frozen, evt-black, evt-silent and evt-behind.
        #[arg(long, value_name = "ID", group = "on")]
        stream: Option<String>,
        /// Where firings are posted; they are shown by `watch` and `alert firings` in any case.
        #[arg(long, value_name = "URL")]
        callback_url: Option<String>,
        /// From which probability on a window counts, above 0 and at most 1; the server's default if unset.
        #[arg(long, value_name = "P")]
        threshold: Option<f32>,
        #[command(flatten)]
        options: Box<AlertOptions>,
    },
    /// List alerts, oldest first.
    List {
        /// Only those of this stream.
        #[arg(long, value_name = "ID")]
        stream: Option<String>,
        /// Only those of this index.
        #[arg(long, value_name = "ID")]
        index: Option<String>,
        /// Only those of this event.
        #[arg(long, value_name = "ID")]
        event: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Change where an alert posts, when it fires, and what is told.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The alert.
        alert: String,
        /// Where firings are posted.
        #[arg(long, value_name = "URL", group = "change")]
        callback_url: Option<String>,
        /// From which probability on a window counts, above 0 and at most 1.
        #[arg(long, value_name = "P", group = "change")]
        threshold: Option<f32>,
        #[command(flatten)]
        options: Box<AlertOptions>,
    },
    /// Judge windows again.
    Enable {
        /// The alert.
        alert: String,
    },
    /// Judge nothing.
    Disable {
        /// The alert.
        alert: String,
    },
    /// Delete an alert; its event stays.
    Delete {
        /// The alert.
        alert: String,
    },
    /// List when it fired, newest first.
    Firings {
        /// The alert.
        alert: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// List the attempts to post its firings, newest first.
    Deliveries {
        /// The alert.
        alert: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Show how long alerts took from stage to stage, from the capture of a frame to the receiver's answer.
    Latency(LatencyArgs),
    /// Deliver one firing, or those of a stretch of time, once more.
    #[command(group = ArgGroup::new("which").required(true).multiple(false))]
    Redeliver {
        /// The alert.
        alert: String,
        /// The firing.
        #[arg(long, value_name = "ID", group = "which")]
        firing: Option<String>,
        /// Its firings from this time on, or from so long ago: 2026-11-26T08:00:00Z, or 90s, 10m, 2h.
        #[arg(long, value_name = "TIME", group = "which")]
        from: Option<Moment>,
        /// Up to then; up to now if unset.
        #[arg(long, value_name = "TIME", requires = "from")]
        to: Option<Moment>,
    },
}

/// What can be done with the receivers of webhooks.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List endpoints: one for each URL that alerts post to.
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Show the secret that webhooks to an endpoint are signed with.
    Secret {
        /// The endpoint.
        endpoint: String,
    },
    /// Make a new secret; the old one signs too for a day.
    Rotate {
        /// The endpoint.
        endpoint: String,
    },
    /// Post a signed sample, and show what came of it.
    Test {
        /// The endpoint.
        endpoint: String,
    },
    /// Deliver again to an endpoint that was disabled because it answered 410.
    Enable {
        /// The endpoint.
        endpoint: String,
    },
}

/// What can be done with collections.
#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// Create a collection.
    Create {
        /// A name for people.
        name: String,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    },
    /// List collections.
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Change a collection.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The collection.
        collection: String,
        /// Its new name.
        #[arg(long, group = "change")]
        name: Option<String>,
        /// What it is for.
        #[arg(long, group = "change")]
        description: Option<String>,
    },
    /// Delete a collection that has no streams.
    Delete {
        /// The collection.
        collection: String,
    },
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a key, and print its secret: it is never shown again.
    Create {
        /// A name for people.
        name: String,
        /// Whose things it sees; a new tenant of its own if unset.
        #[arg(long)]
        tenant: Option<String>,
        /// It may create, list and revoke keys.
        #[arg(long)]
        operator: bool,
    },
    /// List keys, oldest first.
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Revoke a key: what uses it is cut off within a second.
    Revoke {
        /// The key's id.
        key_id: String,
    },
}
