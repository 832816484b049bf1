//! Sources that are fetched: files and endless streams over HTTP, told apart by their first bytes and by whether they have a length.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use gstreamer_base as gst_base;
use http::header::CONTENT_TYPE;
use tokio::sync::oneshot;
use tokio::time::timeout;
use url::Url;

use crate::background::Background;
use crate::codecs;
use crate::control::Control;
use crate::error::Failure;
use crate::feed::{Feed, Flow, Found};
use crate::fetch::{Answer, Client};
use crate::hls::{self, Hls};
use crate::session::Session;
use crate::timeline::Pace;

/// How much is looked at to tell what it is.
const HEAD_BYTES: usize = 64 << 10;
/// How long that may take.
pub(crate) const FIND_DEADLINE: Duration = Duration::from_secs(20);
/// How often is looked whether the source was stopped meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// A source that has answered, before its pipeline is built.
pub(crate) struct Remote {
    found: Found,
    start: oneshot::Sender<(Feed, Arc<Session>)>,
    background: Background,
}

/// What is fetched.
enum Source {
    Plain(Box<Plain>),
    List(Box<Hls>),
}

/// One answer with the media in it.
struct Plain {
    client: Client,
    url: Url,
    answer: Answer,
    head: Bytes,
}

impl Remote {
    /// Asks for the URL and looks at what comes. `start_us` is where in the stream it is to begin. None if the source was stopped
    /// meanwhile. Blocks.
    ///
    /// # Errors
    /// When it can't be fetched, or is nothing that can be read.
    pub(crate) fn find(
        client: Client,
        url: Url,
        start_us: i64,
        control: &Control,
    ) -> Result<Option<Self>, Failure> {
        let (found, finding) = sync_channel(1);
        let (start, started) = oneshot::channel();
        let background = Background::start("http-source", move || async move {
            let source = match find(client, url, start_us).await {
                Ok((source, what)) => {
                    let _ = found.send(Ok(what));
                    source
                }
                Err(failure) => {
                    let _ = found.send(Err(failure));
                    return;
                }
            };
            let Ok((feed, session)): Result<(Feed, Arc<Session>), _> = started.await else {
                return;
            };
            if let Err(failure) = source.pump(&feed, &session).await {
                let waits = session.timeline.pace == Pace::RealTime && session.is_open();
                if waits && !failure.permanent {
                    // It is not known when more comes, but what came is good.
                    session.break_off(failure.clone());
                    feed.end().await;
                }
                session.fail(failure);
            }
        })?;
        let Some(found) = wait(&finding, control)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            found,
            start,
            background,
        }))
    }

    /// What it is.
    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    /// Lets it flow. What is returned is to be kept as long.
    pub(crate) fn flow(self, feed: Feed, session: Arc<Session>) -> Background {
        let _ = self.start.send((feed, session));
        self.background
    }
}

fn wait(
    finding: &Receiver<Result<Found, Failure>>,
    control: &Control,
) -> Result<Option<Found>, Failure> {
    loop {
        if control.is_stopped() {
            return Ok(None);
        }
        match finding.recv_timeout(LOOK) {
            Ok(found) => return found.map(Some),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(nothing_found(FIND_DEADLINE)),
        }
    }
}

/// What is looked for was not there in time.
pub(crate) fn nothing_found(within: Duration) -> Failure {
    let seconds = within.as_secs();
    Failure::passing(format!("nothing that can be read came within {seconds} s"))
}

/// What the head of an answer shows.
enum Seen {
    /// A playlist: how much of it was read.
    List(Answer, BytesMut),
    Plain(Answer, Bytes, Found),
}

async fn find(client: Client, url: Url, start_us: i64) -> Result<(Source, Found), Failure> {
    let seen = timeout(FIND_DEADLINE, look(&client, &url)).await;
    match seen.map_err(|_| nothing_found(FIND_DEADLINE))?? {
        Seen::List(answer, head) => {
            let (list, found) = Hls::open(client, answer, head, start_us).await?;
            Ok((Source::List(Box::new(list)), found))
        }
        Seen::Plain(answer, head, found) => {
            let plain = Plain {
                client,
                url,
                answer,
                head,
            };
            Ok((Source::Plain(Box::new(plain)), found))
        }
    }
}

async fn look(client: &Client, url: &Url) -> Result<Seen, Failure> {
    let mut answer = client.get(url, None).await?;
    let kind = answer.header(CONTENT_TYPE).to_ascii_lowercase();
    if kind.starts_with("multipart/x-mixed-replace") {
        return Ok(Seen::Plain(answer, Bytes::new(), endless("multipartdemux")));
    }
    let mut head = BytesMut::new();
    loop {
        let piece = answer.piece().await?;
        let over = piece.is_none() || head.len() >= HEAD_BYTES;
        head.extend_from_slice(&piece.unwrap_or_default());
        if hls::is_playlist(&head) {
            return Ok(Seen::List(answer, head));
        }
        match container_of(&head) {
            Some((container, _)) => {
                let found = found(container, &answer);
                return Ok(Seen::Plain(answer, head.freeze(), found));
            }
            None if over => {
                let reason = "what it answers with is no video: its content is of no known kind";
                return Err(Failure::permanent(reason));
            }
            None => {}
        }
    }
}

/// What a container's answer is: MPEG-TS without a length goes on for ever, all else is a file.
fn found(container: &'static str, answer: &Answer) -> Found {
    let length = answer.length();
    if container == "tsdemux" && length.is_none() {
        return endless(container);
    }
    Found {
        container,
        pace: Pace::RealTime,
        endless: false,
        begins_us: 0,
        length: length.filter(|_| answer.takes_ranges()),
    }
}

fn endless(container: &'static str) -> Found {
    Found {
        container,
        pace: Pace::Live,
        endless: true,
        begins_us: 0,
        length: None,
    }
}

/// The element for what begins like this.
pub(crate) fn container_of(head: &[u8]) -> Option<(&'static str, bool)> {
    let (caps, _) = gst_base::type_find_helper_for_data(gst::Object::NONE, head).ok()?;
    codecs::demuxer(&caps)
}

impl Source {
    async fn pump(self, feed: &Feed, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Plain(plain) => plain.pump(feed, session).await,
            Self::List(list) => list.pump(feed, session).await,
        }
    }
}

impl Plain {
    async fn pump(mut self, feed: &Feed, session: &Session) -> Result<(), Failure> {
        let mut next = Some(std::mem::take(&mut self.head));
        loop {
            let flow = match next {
                Some(bytes) => feed.push(&bytes).await,
                None => Flow::From(feed.end().await),
            };
            match flow {
                Flow::On => {}
                Flow::From(place) => {
                    let range = Some((place, None));
                    self.answer = self.client.get(&self.url, range).await?;
                }
                Flow::Over => return Ok(()),
            }
            next = self.answer.piece().await?;
            session.activity.received();
        }
    }
}
