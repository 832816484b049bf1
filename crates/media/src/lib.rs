//! Video in: opens a source, samples windows of frames out of its pictures, cuts its speech into utterances and records it.
//!
//! Sources are files, and what cameras and servers send: RTSP, RTMP, SRT, HLS, and files and endless streams over HTTP. Every
//! connection goes to an address that was decided on when connecting (`target`, `fetch`).
//!
//! One source, one pipeline, built element by element from fixed tables (`codecs`). Tracks are parsed but not decoded in
//! it: what is wanted of them is decoded on the thread that reads (`chain`), so that a frame is ready as soon as it was
//! read and nothing is decoded for nothing. Architecture invariant: nobody else links GStreamer.

mod answers;
mod audio;
mod background;
mod chain;
mod codecs;
mod control;
mod error;
mod export;
mod feed;
mod fetch;
mod file;
mod grid;
mod guard;
mod hls;
mod http;
mod measure;
mod moments;
mod mp4;
mod mp4_index;
mod picture;
mod pitch;
mod play;
mod proof;
mod record;
mod rtmp;
mod rtsp;
mod session;
mod speech;
mod srt;
mod target;
mod thumbnail;
mod timeline;
mod tracks;
mod video;
mod voice;
mod ways;

pub use control::Control;
pub use error::Failure;
pub use export::export;
pub use moments::{Moment, Recorded, moment, slot_start};
pub use play::play;
pub use session::Reports;
pub use sightline_egress::Policy;
pub use thumbnail::thumbnail;
