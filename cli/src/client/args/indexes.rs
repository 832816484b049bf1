//! `sightline index`.

use std::time::Duration;

use clap::{ArgGroup, Subcommand};

use super::Limit;
use crate::client::moment::duration;

/// What can be done with indexes.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Describe a stream: its pictures by a prompt, or with --audio its speech in batches.
    #[command(group = ArgGroup::new("batch").multiple(false))]
    Create {
        /// The stream.
        stream: String,
        /// What the model is asked of every window or batch.
        #[arg(long, required_unless_present = "audio")]
        prompt: Option<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// The model; the server's default if unset.
        #[arg(long)]
        model: Option<String>,
        /// Most tokens of a description, 1 to 1024; the server's default if unset.
        #[arg(long, value_name = "N")]
        max_tokens: Option<u32>,
        /// Take over the last description, without asking the model, while pictures differ by less than this share of white from
        /// those last described, for example 0.01; never if unset.
        #[arg(long, value_name = "SHARE", conflicts_with = "audio")]
        reuse_below: Option<f32>,
        /// The length of a window of pictures, for example 10s; 5s if unset.
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "audio")]
        window: Option<Duration>,
        /// How many pictures of each window the model sees; 2 if unset.
        #[arg(long, value_name = "N", conflicts_with = "audio")]
        frames: Option<u32>,
        /// Batch the transcript: by 10 words, unless told otherwise.
        #[arg(long)]
        audio: bool,
        /// How many words make a batch.
        #[arg(long, value_name = "N", requires = "audio", group = "batch")]
        words: Option<u32>,
        /// How many sentences make a batch.
        #[arg(long, value_name = "N", requires = "audio", group = "batch")]
        sentences: Option<u32>,
        /// How much time makes a batch, for example 30s.
        #[arg(long, value_name = "TIME", value_parser = duration, requires = "audio", group = "batch")]
        time: Option<Duration>,
    },
    /// List the indexes of a stream, oldest first.
    List {
        /// The stream.
        stream: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Change an index, while it runs too.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The index.
        index: String,
        /// Its new name.
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Its new prompt: the next window answers it.
        #[arg(long, group = "change")]
        prompt: Option<String>,
        /// Most tokens of a description, 1 to 1024; 0 for the server's default.
        #[arg(long, value_name = "N", group = "change")]
        max_tokens: Option<u32>,
        /// Take over descriptions while pictures differ by less than this; 0 for never.
        #[arg(long, value_name = "SHARE", group = "change")]
        reuse_below: Option<f32>,
    },
    /// Start a stopped index.
    Start {
        /// The index.
        index: String,
    },
    /// Stop describing; what was described stays.
    Stop {
        /// The index.
        index: String,
    },
    /// Delete an index with its alerts and scenes.
    Delete {
        /// The index.
        index: String,
    },
}
