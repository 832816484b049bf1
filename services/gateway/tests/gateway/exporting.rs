//! Exports: asked for once, tried again when they failed, and downloaded in parts.

use sightline_bus::{Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work};
use sightline_proto::internal::{ExportJob, ExportRecord};
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::export::State;
use sightline_proto::v1::rt_stream::State as StreamState;

use tokio::sync::mpsc;

use crate::harness::{Client, Gateway, LIFETIME_US, LONG, NOW_US, reason_of};
use crate::recordings::{SEGMENT_US, at};

fn asked(rtstream: &str, times: Option<(i64, i64)>, name: &str) -> v1::CreateExportRequest {
    v1::CreateExportRequest {
        rtstream_id: rtstream.to_owned(),
        start_time: times.map(|(start_us, _)| timestamp(start_us)),
        end_time: times.map(|(_, end_us)| timestamp(end_us)),
        name: name.to_owned(),
    }
}

async fn export(client: &mut Client, request: v1::CreateExportRequest) -> v1::Export {
    let answer = client.recordings.create_export(request).await;
    answer
        .expect("created")
        .into_inner()
        .export
        .expect("an export")
}

/// Takes jobs as a worker does.
struct Jobs(mpsc::Sender<ExportJob>);

#[tonic::async_trait]
impl Handler<ExportJob> for Jobs {
    async fn handle(&self, received: &Received<ExportJob>) -> Result<Vec<Outgoing>, Refusal> {
        self.0.send(received.message.clone()).await.expect("taken");
        Ok(Vec::new())
    }
}

impl Gateway {
    fn export_jobs(&self) -> mpsc::Receiver<ExportJob> {
        let (sender, jobs) = mpsc::channel(10);
        let from = Work {
            stream: StreamName::Exports,
            durable: "exports".to_owned(),
            filter: "export.*".to_owned(),
            concurrency: 1,
            ack_wait: LONG,
            deadline: LONG,
            max_deliver: -1,
        };
        let (bus, shutdown) = (self.bus.clone(), self.shutdown.clone());
        tokio::spawn(async move { work(&bus, from, Jobs(sender), shutdown).await });
        jobs
    }

    /// How many exports of a stream wait.
    async fn jobs(&self, rtstream: &str) -> u64 {
        let subject = Subject::Export {
            rtstream: rtstream.to_owned(),
        };
        self.bus.outstanding(&subject).await.expect("counted")
    }

    /// What a worker writes at the end of an export.
    async fn finish(&self, id: &str, state: State, bytes: i64) {
        let finished = self.catalog.modify::<ExportRecord>(id, |record| {
            let export = record.export.as_mut().expect("an export");
            export.set_state(state);
            export.bytes = bytes;
            true
        });
        finished.await.expect("written");
    }
}

#[tokio::test]
async fn an_export_is_asked_for_once_and_again_when_it_failed() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[0, 1, 2]).await;
    let all = asked(&stream, None, "");
    let first = export(&mut client, all.clone()).await;
    assert!(first.id.starts_with("exp-"));
    assert_eq!(first.name, "Front door", "the stream's");
    assert_eq!(first.start_time, Some(timestamp(NOW_US)));
    assert_eq!(first.end_time, Some(timestamp(NOW_US + 3 * SEGMENT_US)));
    assert_eq!(
        (first.state(), first.download_url.as_str()),
        (State::Running, "")
    );
    let again = export(&mut client, all.clone()).await;
    assert_eq!(again, first);
    assert_eq!(gateway.jobs(&stream).await, 1);

    gateway.clock.set(NOW_US + 1);
    gateway.finish(&first.id, State::Failed, 0).await;
    let tried = export(&mut client, all.clone()).await;
    assert_eq!((&tried.id, tried.state()), (&first.id, State::Running));
    assert_eq!(gateway.jobs(&stream).await, 2);

    gateway.finish(&first.id, State::Done, 10).await;
    let done = export(&mut client, all).await;
    assert_eq!(done.state(), State::Done);
    assert!(done.download_url.ends_with(&format!("/{}.mp4", first.id)));
    assert_eq!(gateway.jobs(&stream).await, 2, "nothing is left to do");
    let request = v1::GetExportRequest {
        export_id: first.id.clone(),
    };
    let found = client.recordings.get_export(request).await.expect("found");
    assert_eq!(found.into_inner().export, Some(done));

    let mut jobs = gateway.export_jobs();
    for _ in 0..2 {
        let job = tokio::time::timeout(LONG, jobs.recv()).await;
        let job = job.expect("in time").expect("a job");
        assert_eq!((&job.export_id, &job.rtstream_id), (&first.id, &stream));
    }
}

#[tokio::test]
async fn exports_that_cannot_be_are_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stopped = client.recorded().await.id;
    let running = client.recorded().await.id;
    let empty = client.recorded().await.id;
    let unrecorded = client.camera().await.id;
    gateway.record(&stopped, &[0, 1, 4]).await;
    gateway.record(&running, &[0, 1]).await;
    client.start(&running).await;
    gateway.run(&running, StreamState::Active, at(2)).await;
    let day = 24 * 3_600_000_000;
    let name = "x".repeat(201);
    for (stream, times, name, expected) in [
        (&stopped, Some((at(0), at(1))), "", ("", "")),
        (&stopped, Some((at(1), at(4))), "", ("", "")),
        (
            &stopped,
            Some((at(2), at(4))),
            "",
            ("FAILED_PRECONDITION", "start_time"),
        ),
        (
            &stopped,
            Some((at(9), at(10))),
            "",
            ("FAILED_PRECONDITION", "start_time"),
        ),
        (
            &stopped,
            Some((at(1), at(1))),
            "",
            ("INVALID_ARGUMENT", "end_time"),
        ),
        (&stopped, Some((at(0), at(0) + day)), "", ("", "")),
        (
            &stopped,
            Some((at(0), at(0) + day + 1)),
            "",
            ("INVALID_ARGUMENT", "end_time"),
        ),
        (&stopped, None, name.as_str(), ("INVALID_ARGUMENT", "name")),
        (&empty, None, "", ("FAILED_PRECONDITION", "start_time")),
        (&running, None, "", ("FAILED_PRECONDITION", "end_time")),
        (&running, Some((at(0), at(2))), "", ("", "")),
        (
            &running,
            Some((at(0), at(3))),
            "",
            ("FAILED_PRECONDITION", "end_time"),
        ),
        (
            &unrecorded,
            None,
            "",
            ("FAILED_PRECONDITION", "rtstream_id"),
        ),
        (
            &"rts-../x".to_owned(),
            None,
            "",
            ("NOT_FOUND", "rtstream_id"),
        ),
    ] {
        let request = asked(stream, times, name);
        let answer = client.recordings.create_export(request.clone()).await;
        let refused = answer.err().map(|status| reason_of(&status));
        let (reason, field, _) = refused.unwrap_or_default();
        assert_eq!((reason.as_str(), field.as_str()), expected, "{request:?}");
    }
    for id in ["", "exp-../x", "exp-01890000-0000-7000-8000-000000000000"] {
        let export_id = id.to_owned();
        let answer = client
            .recordings
            .get_export(v1::GetExportRequest { export_id });
        let refused = answer.await.expect_err("there is none");
        assert_eq!(reason_of(&refused).1, "export_id", "{id}");
    }
}

#[tokio::test]
async fn exports_are_listed_newest_first_in_pages() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let other = client.recorded().await.id;
    gateway.record(&stream, &[0]).await;
    gateway.record(&other, &[0]).await;
    export(&mut client, asked(&other, None, "another stream's")).await;
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        gateway.clock.set(NOW_US + number as i64);
        export(&mut client, asked(&stream, None, name)).await;
    }
    let mut request = v1::ListExportsRequest {
        rtstream_id: stream,
        page_size: 2,
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let answer = client.recordings.list_exports(request.clone()).await;
        let page = answer.expect("a page").into_inner();
        pages.push(page.exports.into_iter().map(|e| e.name).collect::<Vec<_>>());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, [vec!["c", "b"], vec!["a"]]);
}

#[tokio::test]
async fn files_are_sent_whole_and_in_parts() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[0]).await;
    let id = export(&mut client, asked(&stream, None, "a\"\r\nx: <b>.exe"))
        .await
        .id;
    let file = gateway.dir.path().join("export.mp4");
    std::fs::write(&file, b"0123456789").expect("written");
    let bytes = gateway.store.put_export(&id, &file).await.expect("stored");
    let url = gateway.links.export(&id, NOW_US);
    assert_eq!(gateway.get(&url).await.status, 404, "it is not done");
    gateway.finish(&id, State::Done, bytes as i64).await;

    for (range, status, body, place) in [
        ("", 200, "0123456789", ""),
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=5-500", 206, "56789", "bytes 5-9/10"),
        ("bytes=9-9", 206, "9", "bytes 9-9/10"),
        (
            "bytes=10-",
            416,
            "the file is shorter than that\n",
            "bytes */10",
        ),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
        ("bytes=x", 200, "0123456789", ""),
    ] {
        let headers = [("range", range)];
        let headers = if range.is_empty() { &[][..] } else { &headers };
        let answer = gateway.send("GET", &url, headers).await;
        let found = (answer.status, answer.text(), answer.header("content-range"));
        assert_eq!(found, (status, body.to_owned(), place), "{range}");
        assert_eq!(answer.header("content-length"), body.len().to_string());
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let whole = gateway.get(&url).await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-type"), "video/mp4");
    let name = whole.header("content-disposition");
    assert!(
        name.starts_with("attachment; filename=\"a---x- -b-.exe.mp4\"; "),
        "{name}"
    );
    assert_eq!(whole.header("x"), "");
    let tag = whole.header("etag");
    let known = gateway.send("GET", &url, &[("if-none-match", tag)]).await;
    assert_eq!(known.status, 304);
    for (tag, status) in [(tag, 206), ("\"older\"", 200)] {
        let headers = [("if-range", tag), ("range", "bytes=0-3")];
        assert_eq!(gateway.send("GET", &url, &headers).await.status, status);
    }
    let head = gateway.send("HEAD", &url, &[("range", "bytes=0-3")]).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (206, "4", 0)
    );

    let other = url.replace(&id, "exp-01890000-0000-7000-8000-000000000000");
    assert_eq!(
        gateway.get(&other).await.status,
        403,
        "the link is for one export"
    );
    assert_eq!(gateway.get(&url.replace(".mp4", ".exe")).await.status, 404);
    gateway.clock.set(NOW_US + LIFETIME_US + 1);
    assert_eq!(gateway.get(&url).await.status, 410);
}
