//! Playback over HTTP: what a link plays, and what it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sightline_bus::Ask;
use sightline_proto::internal::{ThumbnailRequest, ThumbnailResponse};
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::State;
use sightline_recordings::Segment;
use sightline_recordings::links::Clip;
use tokio::sync::Semaphore;

use crate::harness::{Client, Gateway, LIFETIME_US, NOW_US};
use crate::recordings::{SEGMENT_US, at, wanted};

fn name(number: i64) -> String {
    let segment = Segment {
        start_us: at(number),
        duration_us: SEGMENT_US,
        bytes: 0,
    };
    segment.file_name()
}

impl Gateway {
    /// The playlist's address of a clip from one segment's start to another's.
    fn playlist(&self, rtstream: &str, from: i64, to: Option<i64>) -> String {
        let clip = Clip {
            rtstream: rtstream.to_owned(),
            start_us: at(from),
            end_us: to.map(at),
        };
        self.links.clip(&clip, NOW_US).stream_url
    }

    /// A recorded stream that runs, as far as this segment.
    async fn running(&self, client: &mut Client, recorded: i64) -> String {
        let id = client.recorded().await.id;
        client.start(&id).await;
        self.run(&id, State::Active, at(recorded)).await;
        id
    }
}

/// The names of the segments in a playlist.
fn names(playlist: &str) -> Vec<&str> {
    playlist
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect()
}

#[tokio::test]
async fn playlists_are_complete_when_nothing_more_can_come() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stopped = client.recorded().await.id;
    let running = gateway.running(&mut client, 6).await;
    for stream in [&stopped, &running] {
        gateway.record(stream, &[0, 1, 2, 4, 5]).await;
    }
    let later = 40;
    for (stream, from, to, now, expected, complete) in [
        (&stopped, 0, Some(2), 6, vec![0, 1], true),
        (&stopped, 0, Some(20), 6, vec![0, 1, 2, 4, 5], true),
        (&stopped, 1, None, 6, vec![1, 2, 4, 5], true),
        (&running, 0, Some(2), 6, vec![0, 1], true),
        (&running, 0, Some(6), 6, vec![0, 1, 2, 4, 5], true),
        (&running, 0, Some(7), 6, vec![0, 1, 2, 4, 5], false),
        (&running, 0, Some(7), 7 + later, vec![0, 1, 2, 4, 5], true),
        (&running, 2, None, 6, vec![2, 4, 5], false),
        (&running, 2, None, 7 + later, vec![2, 4, 5], false),
    ] {
        gateway.clock.set(at(now));
        let answer = gateway.get(&gateway.playlist(stream, from, to)).await;
        let about = format!("{from} to {to:?} at {now}");
        assert_eq!(answer.status, 200, "{about}");
        assert_eq!(
            answer.header("content-type"),
            "application/vnd.apple.mpegurl"
        );
        let text = answer.text();
        let expected: Vec<_> = expected.into_iter().map(name).collect();
        assert_eq!(names(&text), expected, "{about}");
        assert_eq!(text.contains("#EXT-X-ENDLIST"), complete, "{about}");
        let caching = if complete {
            "private, max-age=60"
        } else {
            "no-store"
        };
        assert_eq!(answer.header("cache-control"), caching);
    }
    let rtstream_id = running.clone();
    let stop = v1::StopRtStreamRequest { rtstream_id };
    client.streams.stop_rt_stream(stop).await.expect("stopped");
    gateway.run(&running, State::Stopped, at(6)).await;
    let live = gateway.get(&gateway.playlist(&running, 0, None)).await;
    assert!(live.text().contains("#EXT-X-ENDLIST"), "it is over");
}

#[tokio::test]
async fn the_first_segment_is_waited_for_while_it_may_come() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stopped = client.recorded().await.id;
    let running = gateway.running(&mut client, 0).await;
    for (stream, to) in [(&stopped, Some(1)), (&stopped, None), (&running, Some(-50))] {
        let answer = gateway.get(&gateway.playlist(stream, -60, to)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (404, ""));
    }
    let url = gateway.playlist(&running, 0, Some(3));
    let (answer, ()) = tokio::join!(gateway.get(&url), gateway.record(&running, &[0]));
    assert_eq!(answer.status, 200);
    assert_eq!(names(&answer.text()), [name(0)]);
    let never = gateway.get(&gateway.playlist(&running, 5, None)).await;
    assert_eq!((never.status, never.header("retry-after")), (404, "2"));
    assert_eq!(never.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn segments_come_as_they_are_stored_and_only_those_of_the_clip() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let other = client.recorded().await.id;
    gateway.record(&stream, &[0, 1, 2, 3]).await;
    gateway.record(&other, &[1]).await;
    let url = gateway.playlist(&stream, 1, Some(3));
    let base = url.trim_end_matches("stream.m3u8");
    for (number, status) in [(0, 404), (1, 200), (2, 200), (3, 404)] {
        let answer = gateway.get(&format!("{base}{}", name(number))).await;
        assert_eq!(answer.status, status, "{number}");
        if status == 200 {
            assert_eq!(answer.body, vec![b'0' + number as u8; 188]);
            assert_eq!(answer.header("content-type"), "video/mp2t");
            assert_eq!(answer.header("content-length"), "188");
            assert!(answer.header("cache-control").contains("immutable"));
        }
    }
    let first = format!("{base}{}", name(1));
    let tag = gateway.get(&first).await.header("etag").to_owned();
    let known = gateway
        .send("GET", &first, &[("if-none-match", &tag)])
        .await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let head = gateway.send("HEAD", &first, &[]).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, "188", 0)
    );
    // The token of one stream plays no other.
    let foreign = first.replace(&stream, &other);
    assert_eq!(gateway.get(&foreign).await.status, 403);
    assert_eq!(gateway.get(&url.replace(&stream, &other)).await.status, 403);
    let metrics = gateway.metrics.encode();
    for counted in [
        "sightline_gateway_playback_requests_total{kind=\"segment\",status=\"3xx\"} 1",
        "sightline_gateway_playback_bytes_total{kind=\"segment\"} ",
    ] {
        assert!(metrics.contains(counted), "{metrics}");
    }
}

#[tokio::test]
async fn links_stop_working_when_they_expire() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[0]).await;
    let mut request = wanted(&stream, at(0), Some(at(1)));
    let plain = client.recordings.generate_stream(request.clone()).await;
    request.player_config = Some(v1::PlayerConfig {
        title: "A street".to_owned(),
        ..Default::default()
    });
    let titled = client.recordings.generate_stream(request).await;
    let (plain, titled) = (
        plain.expect("links").into_inner(),
        titled.expect("links").into_inner(),
    );
    // What a page plays ends with the page, whenever it was opened.
    gateway.clock.set(NOW_US + LIFETIME_US / 2);
    let page = gateway.get(&titled.player_url).await.text();
    let played = page
        .split("data-playlist=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let played = format!("/{}", played.expect("a playlist"));
    let segment = plain.stream_url.replace("stream.m3u8", &name(0));
    let all = [
        &plain.stream_url,
        &segment,
        &plain.player_url,
        &titled.player_url,
        &played,
    ];
    for url in all {
        assert_eq!(gateway.get(url).await.status, 200, "{url}");
    }
    gateway.clock.set(NOW_US + LIFETIME_US + 1);
    for url in all.into_iter().chain([&plain.thumbnail_url]) {
        let answer = gateway.get(url).await;
        assert_eq!(answer.status, 410, "{url}");
        assert!(answer.text().contains("expired"), "{url}");
    }
}

#[tokio::test]
async fn hostile_paths_reach_nothing() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[0]).await;
    let url = gateway.playlist(&stream, 0, Some(1));
    let path = url.split_once("/manifests/").expect("a playlist").1;
    let token = path.split('/').nth(1).expect("a token");
    let long = "x".repeat(20_000);
    let changed = format!("{}{}", &token[1..], &token[..1]);
    let (start, length) = (at(0), SEGMENT_US);
    for (path, expected) in [
        (format!("/manifests/../{token}/stream.m3u8"), 404),
        (format!("/manifests/..%2f..%2fetc/{token}/stream.m3u8"), 404),
        (format!("/manifests/{stream}%00/{token}/stream.m3u8"), 404),
        (format!("/manifests/{stream}%ff/{token}/stream.m3u8"), 400),
        (format!("/manifests/{stream}/{token}/../stream.m3u8"), 404),
        (format!("/manifests/{stream}/{token}/..%2fstream.m3u8"), 404),
        (
            format!("/manifests/{stream}/{token}/{start}-{length}.ts%00"),
            404,
        ),
        (
            format!("/manifests/{stream}/{token}/0{start}-{length}.ts"),
            404,
        ),
        (
            format!("/manifests/{stream}/{token}/+{start}-{length}.ts"),
            404,
        ),
        (
            format!("/manifests/{stream}/{token}/{start}-{length}.TS"),
            404,
        ),
        (format!("/manifests/{stream}/{token}/index"), 404),
        (format!("/manifests/{stream}/{token}/"), 404),
        (format!("/manifests/{stream}/{changed}/stream.m3u8"), 403),
        (format!("/manifests/{stream}/{token}=/stream.m3u8"), 404),
        (format!("/manifests/{stream}/{long}/stream.m3u8"), 404),
        (format!("/manifests/{long}/{token}/stream.m3u8"), 404),
        (format!("/manifests/{stream}/{token}/{long}.ts"), 404),
        (format!("/exports/{token}/..%2f..%2fplayers%2fx.mp4"), 404),
        (
            format!("/exports/{token}/exp-01890000-0000-7000-8000-000000000000.mp4"),
            403,
        ),
        ("/assets/..%2fCargo.toml".to_owned(), 404),
        ("/assets/hls.js%00".to_owned(), 404),
        ("/watch".to_owned(), 404),
        ("/watch?v=".to_owned(), 404),
        ("/watch?v=../x".to_owned(), 404),
        ("/watch?v=..".to_owned(), 404),
        ("/watch?v=%2e%2e%2fx".to_owned(), 404),
        ("/watch?v=%00".to_owned(), 404),
        (format!("/watch?v={long}"), 404),
        (format!("/embed?v={token}"), 404),
        (
            format!("/manifests/{stream}/{token}/{start}-{length}.ts"),
            200,
        ),
    ] {
        let answer = gateway.get(&path).await;
        let shown: String = path.chars().take(200).collect();
        assert_eq!(answer.status, expected, "{shown}");
    }
}

#[tokio::test]
async fn every_origin_may_play_and_nobody_may_write() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[0]).await;
    let url = gateway.playlist(&stream, 0, Some(1));
    let segment = url.replace("stream.m3u8", &name(0));
    for url in [&url, &segment, "/exports/x/y.mp4", "/assets/player.js"] {
        for (method, status) in [
            ("OPTIONS", 204),
            ("POST", 405),
            ("DELETE", 405),
            ("PUT", 405),
        ] {
            let origin = [("origin", "https://elsewhere.example")];
            let answer = gateway.send(method, url, &origin).await;
            assert_eq!(answer.status, status, "{method} {url}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
        let answer = gateway.send("OPTIONS", url, &[]).await;
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "GET, HEAD, OPTIONS"
        );
    }
    let played = gateway.get(&segment).await;
    let exposed = played.header("access-control-expose-headers");
    assert!(exposed.contains("content-length") && exposed.contains("content-range"));
    assert_eq!(gateway.send("POST", "/watch?v=x", &[]).await.status, 405);
}

#[tokio::test]
async fn pages_show_text_as_text_and_load_nothing_from_elsewhere() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let mut request = wanted(&stream, at(0), Some(at(1)));
    request.player_config = Some(v1::PlayerConfig {
        title: "<img src=x onerror=\"window.ran=1\">".to_owned(),
        description: "</p><script>window.ran=1</script>'\"&".to_owned(),
        slug: "s".to_owned(),
    });
    let answer = client.recordings.generate_stream(request).await;
    let page = answer.expect("links").into_inner().player_url;
    let embedded = page.replace("/watch?", "/embed?");
    for (url, ancestors) in [
        (&page, "frame-ancestors 'none'"),
        (&embedded, "frame-ancestors *"),
    ] {
        let answer = gateway.get(url).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(policy.ends_with(ancestors), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let html = answer.text();
        assert!(
            html.contains(
                "<h1 id=\"title\">&lt;img src=x onerror=&quot;window.ran=1&quot;&gt;</h1>"
            )
        );
        assert!(
            html.contains("&lt;/p&gt;&lt;script&gt;window.ran=1&lt;/script&gt;&#39;&quot;&amp;")
        );
        assert!(
            !html.contains("<img") && !html.contains("<script>"),
            "{html}"
        );
        assert!(html.contains("property=\"og:image\" content=\"http"));
        for asset in html.split("assets/").skip(1) {
            let name = asset.split('"').next().unwrap_or_default();
            let answer = gateway.get(&format!("/assets/{name}")).await;
            assert_eq!(answer.status, 200, "{name}");
            let tag = answer.header("etag");
            let path = format!("/assets/{name}");
            let known = gateway.send("GET", &path, &[("if-none-match", tag)]).await;
            assert_eq!(known.status, 304, "{name}");
        }
    }
    let unknown = gateway.get("/watch?v=nobody").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("There is no such recording."));
    assert!(
        unknown
            .header("content-security-policy")
            .starts_with("default-src 'none'")
    );
}

#[tokio::test]
async fn pictures_are_made_by_a_worker_and_known_ones_are_not_made_again() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    gateway.record(&stream, &[1, 2]).await;
    let url = gateway.playlist(&stream, 0, Some(3));
    let picture = |us: i64| url.replace("stream.m3u8", &format!("{us}.jpg"));
    let nobody = gateway.get(&picture(at(1))).await;
    assert_eq!((nobody.status, nobody.header("retry-after")), (503, "2"));

    let made = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (count, passes) = (Arc::clone(&made), Arc::clone(&gate));
    let answer = move |asked: ThumbnailRequest| {
        let (count, passes) = (Arc::clone(&count), Arc::clone(&passes));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            passes.acquire().await.expect("open").forget();
            let said = format!("{} {}", asked.at_us, asked.segment_start_us);
            let busy = asked.at_us == at(2) + 1;
            let none = busy || asked.at_us == at(2) + 2;
            ThumbnailResponse {
                jpeg: if none { "".into() } else { said.into() },
                busy,
                ..Default::default()
            }
        }
    };
    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    let worker =
        tokio::spawn(async move { bus.answer(Ask::Thumbnail, 16, &shutdown, answer).await });
    gate.add_permits(100);
    let first = sightline_testkit::until("a worker", async || {
        let answer = gateway.get(&picture(at(1))).await;
        Ok((answer.status == 200).then_some(answer))
    });
    let first = first.await.expect("a picture");
    assert_eq!(first.text(), format!("{} {}", at(1), at(1)));
    assert_eq!(first.header("content-type"), "image/jpeg");
    assert!(first.header("cache-control").contains("immutable"));

    for (us, status, body) in [
        (at(2) - 1, 200, format!("{} {}", at(2) - 1, at(1))),
        // The padding before the first picture.
        (at(0), 200, format!("{} {}", at(1), at(1))),
        (at(2) + 1, 503, String::new()),
        (at(2) + 2, 404, String::new()),
        (at(3), 404, String::new()),
        (at(1000), 404, String::new()),
    ] {
        let answer = gateway.get(&picture(us)).await;
        assert_eq!(answer.status, status, "{us}");
        if status == 200 {
            assert_eq!(answer.text(), body);
        }
    }
    let before = made.load(Ordering::SeqCst);
    let tag = first.header("etag");
    let known = gateway
        .send("GET", &picture(at(1)), &[("if-none-match", tag)])
        .await;
    assert_eq!((known.status, made.load(Ordering::SeqCst)), (304, before));

    // Eight at once, and no more.
    let spare = gate.forget_permits(1000);
    let eight = futures::future::join_all((0..8).map(|us| {
        let url = picture(at(1) + us);
        let gateway = &gateway;
        async move { gateway.get(&url).await.status }
    }));
    let ninth = async {
        let busy = sightline_testkit::until("eight to be asked for", async || {
            Ok((made.load(Ordering::SeqCst) == before + 8).then_some(()))
        });
        busy.await.expect("asked for");
        let answer = gateway.get(&picture(at(2))).await;
        gate.add_permits(spare);
        (answer.status, answer.header("retry-after").to_owned())
    };
    let (eight, ninth) = tokio::join!(eight, ninth);
    assert_eq!(eight, [200; 8]);
    assert_eq!(ninth, (503, "2".to_owned()));
    gateway.shutdown.cancel();
    worker.await.expect("no panic").expect("subscribed");
}
