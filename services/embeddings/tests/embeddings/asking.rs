//! What is published can be listed, paged through, counted and searched; bad requests say what is wrong.

use anyhow::Result;
use sightline_proto::internal::{
    CountWindowsRequest, ListRecordsRequest, RecordFilter, RecordKind, SearchRecordsRequest,
};
use tonic::Code;

use crate::support::{EPOCH_US, Platform, SECOND_US, all, assert_records, scene, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn observations_are_listed_paged_and_counted() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let mut observations: Vec<_> = [0, 1, 2, 4, 7]
        .into_iter()
        .map(|window| scene("rts-1", "idx-1", window, &format!("window {window}")))
        .collect();
    observations.push(scene("rts-1", "idx-2", 1, "another prompt's"));
    observations.push(scene("rts-2", "idx-3", 1, ""));
    observations.push(transcript("rts-1", 6, "please stand back"));
    platform.publish(&observations).await?;

    let records = service.holds(all(), 8).await?;
    assert_records(&records, &observations)?;

    let mut paged = Vec::new();
    let mut request = ListRecordsRequest {
        filter: None,
        limit: 3,
        newest_first: true,
        ..ListRecordsRequest::default()
    };
    loop {
        let (page, more) = service.list(request.clone()).await?;
        assert_eq!(page.len(), if more { 3 } else { 2 });
        if let Some(last) = page.last() {
            request.after_start_us = last.start_us;
            request.after_id.clone_from(&last.id);
        }
        paged.extend(page);
        if !more {
            break;
        }
    }
    paged.reverse();
    assert_eq!(paged, records);

    let filters = [
        (in_index("idx-1"), 5),
        (
            RecordFilter {
                kinds: vec![RecordKind::Transcript.into()],
                ..all()
            },
            1,
        ),
        (
            RecordFilter {
                rtstream_ids: vec!["rts-2".to_owned()],
                ..all()
            },
            1,
        ),
        (
            RecordFilter {
                start_us: EPOCH_US + 20 * SECOND_US,
                ..all()
            },
            2,
        ),
    ];
    for (filter, expected) in filters {
        let found = service.holds(filter.clone(), expected).await?;
        assert_eq!(found.len(), expected, "{filter:?}");
    }
    for (index, described, missing) in [("idx-1", 5, 3), ("idx-2", 1, 0), ("idx-9", 0, 0)] {
        let request = CountWindowsRequest {
            index_id: index.to_owned(),
        };
        let counts = service.records.clone().count_windows(request).await?;
        let counts = counts.into_inner();
        assert_eq!((counts.described, counts.missing), (described, missing));
    }
    service.misses(&[]).await?;
    let metrics = service.metrics.clone();
    service.stop().await?;
    let metrics = metrics.encode();
    for line in [
        "sightline_embeddings_records_total{kind=\"scene\"} 7",
        "sightline_embeddings_records_total{kind=\"transcript\"} 1",
        "sightline_embeddings_batch_records_sum",
        "sightline_embeddings_embed_seconds_count{what=\"batch\"}",
        "sightline_embeddings_call_seconds_count{method=\"ListRecords\"}",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_find_what_is_meant() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let texts = [
        "A white car drives quickly along the road from left to right.",
        "Two people walk across the zebra crossing.",
        "The square is empty; a bench stands in the shade.",
        "",
        "A person in a red coat climbs over a fence.",
    ];
    let mut observations: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(window, text)| scene("rts-1", "idx-1", window as u64, text))
        .collect();
    observations.push(transcript("rts-1", 11, "the next train leaves at noon"));
    platform.publish(&observations).await?;
    service.holds(all(), observations.len()).await?;

    for (query, expected) in [
        ("white car moving fast", texts[0]),
        ("pedestrians crossing the street", texts[1]),
        ("intruder", texts[4]),
        ("railway departure", "the next train leaves at noon"),
    ] {
        let hits = service.search(query, all()).await?;
        // What has no text is never found.
        assert_eq!(hits.len(), 5, "{query}");
        assert_eq!(hits[0].0, expected, "{query}: {hits:?}");
        assert!(hits[0].1 > 0.15 && hits[0].1 <= 1.0, "{query}: {hits:?}");
        assert!(hits.is_sorted_by(|a, b| a.1 >= b.1), "{query}: {hits:?}");
        assert!(hits.iter().all(|hit| (0.0..=1.0).contains(&hit.1)));
    }
    let exact = service.search(texts[2], all()).await?;
    assert!(exact[0].0 == texts[2] && exact[0].1 > 0.999, "{exact:?}");
    let transcripts = RecordFilter {
        kinds: vec![RecordKind::Transcript.into()],
        ..all()
    };
    let hits = service.search("white car moving fast", transcripts).await?;
    assert_eq!(hits.len(), 1);
    assert!(service.search("car", in_index("idx-9")).await?.is_empty());
    let mut request = search("white car moving fast");
    request.min_score = 0.5;
    let hits = service.records.clone().search_records(request).await?;
    assert_eq!(hits.into_inner().hits.len(), 1);
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_is_wrong() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    service.holds(all(), 0).await?;
    let list = || ListRecordsRequest {
        limit: 10,
        ..ListRecordsRequest::default()
    };
    let bad_filter = |change: fn(&mut RecordFilter)| {
        let mut filter = all();
        change(&mut filter);
        Some(filter)
    };
    let lists = [
        (
            ListRecordsRequest { limit: 0, ..list() },
            "limit must be 1 to 1000; got 0",
        ),
        (
            ListRecordsRequest {
                limit: 1001,
                ..list()
            },
            "limit must be 1 to 1000; got 1001",
        ),
        (
            ListRecordsRequest {
                after_id: "nonsense".to_owned(),
                ..list()
            },
            "\"nonsense\" is not a UUID",
        ),
        (
            ListRecordsRequest {
                filter: bad_filter(|filter| filter.kinds = vec![9]),
                ..list()
            },
            "filter.kinds names 9",
        ),
        (
            ListRecordsRequest {
                filter: bad_filter(|filter| filter.rtstream_ids = vec![String::new(); 1001]),
                ..list()
            },
            "1000 streams; got 1001",
        ),
    ];
    let mut answers = Vec::new();
    for (request, expected) in lists {
        let answer = service.records.clone().list_records(request).await;
        answers.push((answer.map(drop), expected));
    }
    let searches = [
        (search(" "), "query must hold some words"),
        (search(&"é".repeat(10_001)), "10000 characters; got 10001"),
        (
            SearchRecordsRequest {
                min_score: 1.5,
                ..search("car")
            },
            "min_score must be 0 to 1; got 1.5",
        ),
        (
            SearchRecordsRequest {
                min_score: f32::NAN,
                ..search("car")
            },
            "min_score must be 0 to 1; got NaN",
        ),
        (
            SearchRecordsRequest {
                limit: 0,
                ..search("car")
            },
            "limit must be 1 to 1000",
        ),
    ];
    for (request, expected) in searches {
        let answer = service.records.clone().search_records(request).await;
        answers.push((answer.map(drop), expected));
    }
    let request = CountWindowsRequest::default();
    let answer = service.records.clone().count_windows(request).await;
    answers.push((answer.map(drop), "index_id must be given"));
    for (answer, expected) in answers {
        let status = answer.expect_err(expected);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    service.stop().await
}

fn search(query: &str) -> SearchRecordsRequest {
    SearchRecordsRequest {
        query: query.to_owned(),
        filter: None,
        limit: 10,
        min_score: 0.0,
    }
}

fn in_index(index: &str) -> RecordFilter {
    RecordFilter {
        index_id: index.to_owned(),
        ..all()
    }
}
