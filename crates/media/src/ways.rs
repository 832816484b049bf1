//! The ways to come by a source's media: one for each kind of URL, found before the pipeline is built.

use std::net::SocketAddr;
use std::sync::Arc;

use gstreamer as gst;
use sightline_egress::Policy;
use sightline_proto::internal::OpenSource;
use url::Url;

use crate::background::Background;
use crate::control::Control;
use crate::error::Failure;
use crate::feed::Feed;
use crate::fetch::Client;
use crate::http::Remote;
use crate::session::Session;
use crate::target::Target;
use crate::timeline::Pace;
use crate::tracks::Tracks;
use crate::{file, rtmp, rtsp, srt};

/// How a source is read.
pub(crate) struct Way {
    url: Url,
    kind: Kind,
    pace: Pace,
    /// Where in it to start.
    start_us: i64,
}

enum Kind {
    File,
    Rtsp(Target),
    Rtmp(Target),
    Srt(SocketAddr),
    Remote(Box<Remote>),
}

impl Way {
    /// Finds out how a source is to be read; of what is fetched, asks for its beginning. None if it was stopped meanwhile.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn find(
        open: &OpenSource,
        url: &Url,
        policy: &Policy,
        control: &Control,
        now_us: i64,
    ) -> Result<Option<Self>, Failure> {
        let target = |ports| Target::new(open, url, ports, policy);
        // What has no place of its own to go on from is where it would be now.
        let gone_by_us = match open.epoch_us {
            0 => 0,
            epoch_us => (now_us - epoch_us).max(0),
        };
        let (kind, pace, start_us) = match url.scheme() {
            "file" if open.real_time => (Kind::File, Pace::RealTime, open.start_position_us),
            "file" => (Kind::File, Pace::Fast, open.start_position_us),
            "rtsp" | "rtsps" => (Kind::Rtsp(target(rtsp::PORTS)?), Pace::Live, 0),
            "rtmp" | "rtmps" => (Kind::Rtmp(target(rtmp::PORTS)?), Pace::Live, 0),
            "srt" => {
                let address = choose(&target((0, 0))?, now_us)?;
                (Kind::Srt(address), Pace::Live, 0)
            }
            "http" | "https" => {
                let (client, bare) = Client::new(url, policy);
                let Some(remote) = Remote::find(client, bare, gone_by_us, control)? else {
                    return Ok(None);
                };
                let pace = remote.found().pace;
                (Kind::Remote(Box::new(remote)), pace, gone_by_us)
            }
            scheme => {
                let reason = format!(
                    "{scheme}:// is not supported: use rtsp://, rtsps://, rtmp://, rtmps://, srt://, http://, https:// or file://"
                );
                return Err(Failure::permanent(reason));
            }
        };
        Ok(Some(Self {
            url: url.clone(),
            kind,
            pace,
            start_us,
        }))
    }

    /// How it is played.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Whether it is a file on this machine.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File)
    }

    /// Where in it to start.
    pub(crate) fn start_us(&self) -> i64 {
        self.start_us
    }

    /// Where in the stream its first media is, for what is fetched.
    pub(crate) fn begins_us(&self) -> Option<i64> {
        match &self.kind {
            Kind::Remote(remote) => Some(remote.found().begins_us),
            _ => None,
        }
    }

    /// Whether an end of it is a failure.
    pub(crate) fn is_endless(&self) -> bool {
        match &self.kind {
            Kind::File => false,
            Kind::Remote(remote) => remote.found().endless,
            Kind::Rtsp(_) | Kind::Rtmp(_) | Kind::Srt(_) => true,
        }
    }

    /// Builds the pipeline; tracks attach themselves as they are found. What is returned is to be kept as long.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn build(
        self,
        pipeline: &gst::Pipeline,
        session: &Arc<Session>,
        tracks: &Arc<Tracks>,
    ) -> Result<Option<Background>, Failure> {
        let url = &self.url;
        match self.kind {
            Kind::File => file::build(url, pipeline, session, tracks).map(|()| None),
            Kind::Rtsp(target) => rtsp::build(target, url, pipeline, session, tracks).map(Some),
            Kind::Rtmp(target) => rtmp::start(target, url, pipeline, session, tracks).map(Some),
            Kind::Srt(address) => {
                srt::build(url, address, pipeline, session, tracks).map(|()| None)
            }
            Kind::Remote(remote) => {
                let feed = Feed::build(remote.found(), pipeline, session, tracks)?;
                Ok(Some(remote.flow(feed, Arc::clone(session))))
            }
        }
    }
}

/// One of the allowed addresses, another one at each try: whether one answers shows only when it is called.
fn choose(target: &Target, now_us: i64) -> Result<SocketAddr, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::passing(format!("cannot prepare to connect: {e}")))?;
    let addresses = runtime.block_on(target.resolve());
    runtime.shutdown_background();
    let addresses = addresses?;
    let second = usize::try_from(now_us / 1_000_000).unwrap_or(0);
    Ok(addresses[second % addresses.len()])
}
