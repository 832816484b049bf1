//! `sightline watch`: goes on by itself after a lost connection, with the cursor of the last message.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{self, WatchRequest, WatchResponse};
use tonic::{Code, Status};

use super::args::{WatchArgs, WatchKind};
use super::call::{Refused, answer, ask};
use super::output::{Output, line};
use super::shown::{happened, stream_of};

/// Between losing the connection and the next try; doubled by every further loss.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the server may take to begin to answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a watch ended.
enum Ended {
    /// The connection is lost, or the server stops.
    Lost(Status),
    /// This side was too slow: the messages left out are had by going on from the cursor.
    Lagged,
}

/// Shows what happens until it is interrupted.
///
/// # Errors
/// When the server refuses, or does not answer at first.
pub async fn run(client: Client, args: WatchArgs, out: &Output) -> Result<()> {
    let request = WatchRequest {
        rtstream_ids: args.streams,
        index_ids: args.indexes,
        kinds: args.kinds.into_iter().map(|k| kind(k).into()).collect(),
        cursor: args.cursor.unwrap_or_default(),
        interim: args.interim,
    };
    let mut watcher = Watcher {
        client,
        request,
        out,
        names: HashMap::new(),
        pause: FIRST_PAUSE,
        established: false,
    };
    loop {
        let Ended::Lost(status) = watcher.follow().await? else {
            continue;
        };
        if !watcher.established || is_final(status.code()) {
            return Err(Refused::from(status).into());
        }
        let (message, pause) = (status.message(), watcher.pause);
        eprintln!("sightline: the connection is lost ({message}); trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        watcher.pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether trying again would not help.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented
    )
}

struct Watcher<'a> {
    client: Client,
    request: WatchRequest,
    out: &'a Output,
    /// The streams' names, for people.
    names: HashMap<String, String>,
    pause: Duration,
    established: bool,
}

impl Watcher<'_> {
    /// Shows what happens until the watch ends.
    async fn follow(&mut self) -> Result<Ended> {
        let request = self.request.clone();
        let calling = tokio::time::timeout(DEADLINE, self.client.watch.watch(request)).await;
        let late = |_| Err(Status::deadline_exceeded("the server does not answer"));
        let mut messages = match calling.unwrap_or_else(late) {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Ended::Lost(status)),
        };
        loop {
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Ended::Lost(Status::unavailable("the server ended it"))),
                Err(status) => return Ok(Ended::Lost(status)),
            };
            (self.established, self.pause) = (true, FIRST_PAUSE);
            self.show(&message).await?;
            let lagged = matches!(message.message, Some(Message::Lagged(_)));
            if !message.cursor.is_empty() {
                self.request.cursor = message.cursor;
            }
            if lagged {
                return Ok(Ended::Lagged);
            }
        }
    }

    async fn show(&mut self, message: &WatchResponse) -> Result<()> {
        if self.out.json {
            return self.out.line(&line(message)?);
        }
        let name = match stream_of(message) {
            Some(id) => self.name(id).await,
            None => String::new(),
        };
        match happened(message, &name, &self.out.view) {
            Some(line) => self.out.line(&line),
            None => Ok(()),
        }
    }

    /// The stream's name; its id where the name can't be had.
    async fn name(&mut self, id: &str) -> String {
        if let Some(name) = self.names.get(id) {
            return name.clone();
        }
        let request = v1::GetRtStreamRequest {
            rtstream_id: id.to_owned(),
        };
        let answered = answer(self.client.streams.get_rt_stream(ask(request))).await;
        let stream = answered.ok().and_then(|answer| answer.rtstream);
        let name = stream.map_or_else(|| id.to_owned(), |stream| stream.name);
        self.names.insert(id.to_owned(), name.clone());
        name
    }
}

fn kind(kind: WatchKind) -> Kind {
    match kind {
        WatchKind::Transcript => Kind::Transcript,
        WatchKind::Scene => Kind::SceneIndex,
        WatchKind::AudioScene => Kind::AudioIndex,
        WatchKind::Alert => Kind::Alert,
        WatchKind::Status => Kind::StreamStatus,
        WatchKind::Verdict => Kind::Verdict,
    }
}
