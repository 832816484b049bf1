//! HTTP Live Streaming: a playlist, read again and again while it grows, and its segments one after the other.

mod list;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use m3u8_rs::{Map, MediaPlaylist, Playlist};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::error::Failure;
use crate::feed::{Feed, Flow, Found};
use crate::fetch::{Answer, Client};
use crate::http::{FIND_DEADLINE, container_of, nothing_found};
use crate::session::Session;
use crate::timeline::Pace;

pub(crate) use list::is_playlist;
use list::{beginning, joined, parse, range, refuse_encrypted, senseless, variant};

/// The longest playlist that is read.
const MAX_PLAYLIST: usize = 2 << 20;
/// The largest head of a segment that is fetched on its own.
const MAX_INIT: usize = 1 << 20;
/// How much of a segment is looked at to tell what it is.
const HEAD_BYTES: usize = 64 << 10;
/// So often in a row a playlist may not be there before the stream counts as lost.
const MAX_FAILURES: u32 = 3;
/// A playlist may be this many segments older than the one before: servers that stand in for each other differ a little.
const MAX_BEHIND: u64 = 3;
/// The longest that is waited for the first segment.
const LONGEST_FIND: Duration = Duration::from_secs(120);
/// Bounds for the time between two looks at a playlist.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(6));

/// A playlist that is followed.
pub(crate) struct Hls {
    client: Client,
    /// Where it is.
    url: Url,
    list: MediaPlaylist,
    /// The number of the segment to fetch next.
    next: u64,
    /// How often in a row the playlist could not be read again, or was older than before.
    failures: u32,
    /// What was fetched to see what it is.
    head: VecDeque<Bytes>,
    /// The segment under way.
    open: Option<Answer>,
}

impl Hls {
    /// Reads the playlist that `answer` goes on with, and the head of the first segment.
    ///
    /// # Errors
    /// When there is none, or it leads to nothing that can be read.
    pub(crate) async fn open(
        client: Client,
        answer: Answer,
        head: BytesMut,
        start_us: i64,
    ) -> Result<(Self, Found), Failure> {
        let read = timeout(FIND_DEADLINE, media_playlist(&client, answer, head)).await;
        let (list, url) = read.map_err(|_| nothing_found(FIND_DEADLINE))??;
        let endless = !list.end_list;
        let (first, mut begins_us) = beginning(&list, start_us);
        let mut opened = Self {
            client,
            url,
            next: list.media_sequence.saturating_add(first as u64),
            list,
            failures: 0,
            head: VecDeque::new(),
            open: None,
        };
        let since = Instant::now();
        let patience = patience(opened.list.target_duration);
        let looked = timeout(patience, opened.look()).await;
        let container = looked.map_err(|_| nothing_found(patience))??;
        if endless && start_us > 0 {
            // It went on while its next segment was waited for.
            let waited = since.elapsed().as_micros();
            begins_us = begins_us.saturating_add(i64::try_from(waited).unwrap_or(i64::MAX));
        }
        let found = Found {
            container,
            // Segments come in one go: what is in them is taken at its own pace.
            pace: Pace::RealTime,
            endless,
            begins_us,
            length: None,
        };
        Ok((opened, found))
    }

    /// Fetches the head of the first segment, to tell what they are.
    async fn look(&mut self) -> Result<&'static str, Failure> {
        while !self.fetch_next(true).await? {
            self.reload().await?;
        }
        let mut head: BytesMut = self
            .head
            .iter()
            .flat_map(|part| part.iter())
            .copied()
            .collect();
        while let Some(answer) = &mut self.open {
            let piece = answer.piece().await?;
            let over = piece.is_none() || head.len() > MAX_INIT + HEAD_BYTES;
            let piece = piece.unwrap_or_default();
            head.extend_from_slice(&piece);
            self.head.push_back(piece);
            match container_of(&head) {
                Some((container @ ("tsdemux" | "qtdemux"), _)) => return Ok(container),
                _ if over => break,
                _ => {}
            }
        }
        Err(Failure::permanent(
            "its segments are neither MPEG-TS nor fragmented MP4",
        ))
    }

    /// Feeds segment after segment.
    ///
    /// # Errors
    /// When one can't be fetched, or does not go on where the last one ended.
    pub(crate) async fn pump(mut self, feed: &Feed, session: &Session) -> Result<(), Failure> {
        loop {
            while let Some(bytes) = self.piece().await? {
                session.activity.received();
                if let Flow::Over = feed.push(&bytes).await {
                    return Ok(());
                }
            }
            while !self.fetch_next(false).await? {
                if self.list.end_list {
                    session.set_ends();
                    feed.end().await;
                    return Ok(());
                }
                self.reload().await?;
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(bytes) = self.head.pop_front() {
            return Ok(Some(bytes));
        }
        let Some(answer) = &mut self.open else {
            return Ok(None);
        };
        let piece = answer.piece().await?;
        if piece.is_none() {
            self.open = None;
        }
        Ok(piece)
    }

    /// Asks for the next segment; false if there is none yet.
    async fn fetch_next(&mut self, first: bool) -> Result<bool, Failure> {
        // It may have gone on without us.
        self.next = self.next.max(self.list.media_sequence);
        let at = usize::try_from(self.next - self.list.media_sequence).unwrap_or(usize::MAX);
        let Some(segment) = self.list.segments.get(at).cloned() else {
            return Ok(false);
        };
        if segment.discontinuity && !first {
            return Err(Failure::passing(
                "its playlist says that the stream begins anew",
            ));
        }
        let before = &self.list.segments[..=at];
        refuse_encrypted(before)?;
        let map = if first {
            before.iter().rev().find_map(|s| s.map.clone())
        } else {
            segment.map.clone()
        };
        if let Some(map) = map {
            let init = self.init(&map).await?;
            self.head.push_back(init);
        }
        let range = range(before);
        let url = joined(&self.url, &segment.uri)?;
        self.open = Some(self.client.get(&url, range).await?);
        self.next = self.next.checked_add(1).ok_or_else(senseless)?;
        Ok(true)
    }

    async fn init(&self, map: &Map) -> Result<Bytes, Failure> {
        let url = joined(&self.url, &map.uri)?;
        let range = map.byte_range.as_ref().map(|range| {
            let from = range.offset.unwrap_or(0);
            (from, Some(from.saturating_add(range.length)))
        });
        let mut answer = self.client.get(&url, range).await?;
        answer.rest(BytesMut::new(), MAX_INIT).await
    }

    /// Waits a little, and reads the playlist again.
    async fn reload(&mut self) -> Result<(), Failure> {
        let half = Duration::from_millis(self.list.target_duration.saturating_mul(500));
        sleep(half.clamp(LOOKS.0, LOOKS.1)).await;
        let list = match self.read_again().await {
            Ok(list) => list,
            // What was fetched lasts for a while.
            Err(failure) if !failure.permanent && self.failures < MAX_FAILURES => {
                self.failures += 1;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let end = list
            .media_sequence
            .saturating_add(list.segments.len() as u64);
        let behind = self.next.saturating_sub(end);
        if behind > 0 && behind <= MAX_BEHIND && self.failures < MAX_FAILURES {
            self.failures += 1;
            return Ok(());
        }
        // A server that was started again counts from anew.
        if behind > 0 {
            return Err(Failure::passing(
                "its playlist says that the stream begins anew",
            ));
        }
        self.failures = 0;
        self.list = list;
        Ok(())
    }

    async fn read_again(&self) -> Result<MediaPlaylist, Failure> {
        let mut answer = self.client.get(&self.url, None).await?;
        let text = answer.rest(BytesMut::new(), MAX_PLAYLIST).await?;
        match parse(&text)? {
            Playlist::MediaPlaylist(list) => Ok(list),
            Playlist::MasterPlaylist(_) => Err(senseless()),
        }
    }
}

/// The playlist of segments that `answer` goes on with, or that the best variant of it is.
async fn media_playlist(
    client: &Client,
    mut answer: Answer,
    head: BytesMut,
) -> Result<(MediaPlaylist, Url), Failure> {
    let text = answer.rest(head, MAX_PLAYLIST).await?;
    let master = match parse(&text)? {
        Playlist::MediaPlaylist(list) => return Ok((list, answer.url)),
        Playlist::MasterPlaylist(master) => master,
    };
    let url = joined(&answer.url, &variant(&master)?)?;
    let mut answer = client.get(&url, None).await?;
    let text = answer.rest(BytesMut::new(), MAX_PLAYLIST).await?;
    match parse(&text)? {
        Playlist::MediaPlaylist(list) => Ok((list, answer.url)),
        Playlist::MasterPlaylist(_) => Err(senseless()),
    }
}

/// How long is waited for the first segment.
fn patience(target_seconds: u64) -> Duration {
    let twice = Duration::from_secs(target_seconds.saturating_mul(2));
    twice.clamp(FIND_DEADLINE, LONGEST_FIND)
}
