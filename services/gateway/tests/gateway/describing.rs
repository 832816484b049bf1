//! What describes an index, and how: models that read text and those that don't, what they are told, and what they judge by.

use futures::StreamExt;
use prost::Message as _;
use sightline_bus::Ask;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AudioSceneBody, IndexRecord, JudgeRequest, JudgeResponse, Observation, Record, VerdictBody,
    search_records_response,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1::backtest_response::Message;
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::{self, Index, ModelConfig, watch_response};
use tonic::Status;

use crate::harness::{Client, Gateway, NOW_US, reason_of, scene, verdict};
use crate::records::Records;

const SECOND: i64 = 1_000_000;

async fn audio(client: &mut Client, rtstream: &str, model: &str, prompt: &str) -> Index {
    let request = v1::CreateAudioIndexRequest {
        rtstream_id: rtstream.to_owned(),
        model: model.to_owned(),
        prompt: prompt.to_owned(),
        ..Default::default()
    };
    let made = client.indexes.create_audio_index(request).await;
    made.expect("made").into_inner().index.expect("set")
}

async fn update(client: &mut Client, request: v1::UpdateIndexRequest) -> Result<Index, Status> {
    let updated = client.indexes.update_index(request).await?;
    Ok(updated.into_inner().index.expect("set"))
}

fn reads(gateway: &Gateway, id: &str) -> bool {
    let record = gateway.catalog.get::<IndexRecord>(id).expect("stored");
    record.value.reads_text
}

#[tokio::test]
async fn an_index_says_whether_its_prompt_is_applied() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    assert!(client.index(&stream.id).await.prompt_applied);
    for (model, prompt, reads_text, applied) in [
        ("", "Sum up", false, false),
        ("other", "Sum up", false, false),
        ("reader", "", true, false),
        ("reader", "Sum up", true, true),
    ] {
        let index = audio(&mut client, &stream.id, model, prompt).await;
        let index_id = index.id.clone();
        let got = client
            .indexes
            .get_index(v1::GetIndexRequest { index_id })
            .await;
        let got = got.expect("found").into_inner().index.expect("set");
        assert_eq!(
            (index.prompt_applied, got.prompt_applied),
            (applied, applied)
        );
        assert_eq!(reads(&gateway, &index.id), reads_text, "{model} {prompt}");
        let request = v1::UpdateIndexRequest {
            index_id: index.id,
            prompt: Some("Who speaks?".to_owned()),
            ..Default::default()
        };
        let updated = update(&mut client, request).await.expect("updated");
        assert_eq!(updated.prompt_applied, reads_text);
    }
}

#[tokio::test]
async fn an_index_made_before_its_model_could_read_is_read_once_its_prompt_changes() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = audio(&mut client, &stream.id, "reader", "Sum up").await;
    let before = gateway.catalog.modify::<IndexRecord>(&index.id, |record| {
        record.reads_text = false;
        true
    });
    before.await.expect("written");
    for (name, prompt, applied) in [
        (Some("Words"), None, false),
        (None, Some("Sum up"), false),
        (None, Some("Who speaks?"), true),
    ] {
        let request = v1::UpdateIndexRequest {
            index_id: index.id.clone(),
            name: name.map(str::to_owned),
            prompt: prompt.map(str::to_owned),
            ..Default::default()
        };
        let updated = update(&mut client, request).await.expect("updated");
        assert_eq!(updated.prompt_applied, applied, "{name:?} {prompt:?}");
    }
}

#[tokio::test]
async fn what_a_model_is_told_is_kept_and_changed() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id.clone(),
        prompt: "What is going on?".to_owned(),
        reuse_below: 0.02,
        model_config: Some(ModelConfig { max_new_tokens: 64 }),
        ..Default::default()
    };
    let made = client.indexes.create_visual_index(request).await;
    let mut index = made.expect("made").into_inner().index.expect("set");
    for (reuse_below, tokens, expected) in [
        (None, None, (0.02, 64)),
        (Some(0.0), None, (0.0, 64)),
        (None, Some(1024), (0.0, 1024)),
        (Some(1.0), Some(0), (1.0, 0)),
    ] {
        let request = v1::UpdateIndexRequest {
            index_id: index.id.clone(),
            reuse_below,
            model_config: tokens.map(|max_new_tokens| ModelConfig { max_new_tokens }),
            ..Default::default()
        };
        index = update(&mut client, request).await.expect("updated");
        let tokens = index.model_config.map(|config| config.max_new_tokens);
        assert_eq!((index.reuse_below, tokens), (expected.0, Some(expected.1)));
        assert_eq!(index.prompt_revision, 1);
    }
}

#[tokio::test]
async fn what_no_model_can_be_told_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let visual = client.index(&stream.id).await;
    let spoken = audio(&mut client, &stream.id, "reader", "").await;
    let too_many = Some(ModelConfig {
        max_new_tokens: 1025,
    });
    let tokens = (
        "model_config.max_new_tokens",
        "1 to 1024, or 0 for the default; got 1025",
    );
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id.clone(),
        prompt: "What is going on?".to_owned(),
        model_config: too_many,
        ..Default::default()
    };
    let mut refused = vec![(
        client.indexes.create_visual_index(request).await.err(),
        tokens,
    )];
    let request = v1::CreateAudioIndexRequest {
        rtstream_id: stream.id.clone(),
        model_config: too_many,
        ..Default::default()
    };
    refused.push((
        client.indexes.create_audio_index(request).await.err(),
        tokens,
    ));
    for (below, got) in [
        (-0.1, "0 to 1, got -0.1"),
        (1.5, "0 to 1, got 1.5"),
        (f32::NAN, "NaN"),
    ] {
        let request = v1::CreateVisualIndexRequest {
            rtstream_id: stream.id.clone(),
            prompt: "What is going on?".to_owned(),
            reuse_below: below,
            ..Default::default()
        };
        let made = client.indexes.create_visual_index(request).await;
        refused.push((made.err(), ("reuse_below", got)));
    }
    for (id, reuse_below, model_config, expected) in [
        (
            &visual.id,
            Some(2.0),
            None,
            ("reuse_below", "0 to 1, got 2"),
        ),
        (
            &spoken.id,
            Some(0.1),
            None,
            ("reuse_below", "0 for an audio index"),
        ),
        (&spoken.id, None, too_many, tokens),
    ] {
        let request = v1::UpdateIndexRequest {
            index_id: id.clone(),
            reuse_below,
            model_config,
            ..Default::default()
        };
        refused.push((update(&mut client, request).await.err(), expected));
    }
    for (status, (field, part)) in refused {
        let (reason, at_fault, message) = reason_of(&status.expect(field));
        assert_eq!(
            (reason.as_str(), at_fault.as_str()),
            ("INVALID_ARGUMENT", field)
        );
        assert!(message.contains(part), "{message}");
    }
}

/// A batch of an audio index, 10 s long, that its model has described.
fn batch(index: &Index, number: u64, said: &str) -> Observation {
    let start_us = NOW_US + number as i64 * 10 * SECOND;
    Observation {
        epoch_us: NOW_US,
        start_us,
        end_us: start_us + 10 * SECOND,
        body: Some(Body::AudioScene(AudioSceneBody {
            index_id: index.id.clone(),
            text: "someone speaks".to_owned(),
            transcript: said.to_owned(),
            prompt_applied: true,
            batch: number,
            ..AudioSceneBody::default()
        })),
        ..scene(&index.rtstream_id, &index.id, number, "")
    }
}

#[tokio::test]
async fn a_backtest_of_what_was_said_asks_the_model_where_that_reads() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await;
    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    let judge = async |asked: JudgeRequest| {
        assert!(asked.frames.is_empty());
        assert_eq!(asked.questions, ["Somebody calls for help"]);
        let likely = if asked.text == "please help" {
            0.9
        } else {
            0.55
        };
        JudgeResponse {
            probabilities: vec![likely],
            ..JudgeResponse::default()
        }
    };
    tokio::spawn(async move { bus.answer(Ask::Judge("reader"), 1, &shutdown, judge).await });
    for (model, basis, probabilities) in [
        ("reader", Basis::Text, [0.9, 0.55]),
        ("other", Basis::Similarity, [0.7, 0.7]),
    ] {
        let index = audio(&mut client, &stream.id, model, "Sum up").await;
        let batches = [
            batch(&index, 0, "please help"),
            batch(&index, 1, "fine weather"),
        ];
        let held = batches.iter().map(|batch| Record {
            id: batch.id.clone(),
            start_us: batch.start_us,
            observation: batch.encode_to_vec().into(),
            ..Record::default()
        });
        let held: Vec<_> = held.collect();
        let hits = held
            .iter()
            .cloned()
            .map(|record| search_records_response::Hit {
                record: Some(record),
                score: 0.7,
            });
        records.hold(held.clone(), hits.collect());
        let request = v1::BacktestRequest {
            prompt: "Somebody calls for help".to_owned(),
            index_id: index.id.clone(),
            start_time: Some(timestamp(NOW_US)),
            end_time: Some(timestamp(NOW_US + 30 * SECOND)),
            ..Default::default()
        };
        let answer = client.events.backtest(request).await.expect("taken");
        let told: Vec<_> = answer.into_inner().collect().await;
        let (mut judged, mut summary) = (Vec::new(), None);
        for response in told {
            match response.expect("no error").message.expect("set") {
                Message::Judged(window) => judged.push((window.probability, window.basis())),
                Message::Firing(firing) => assert_eq!(firing.basis(), basis),
                Message::Summary(told) => summary = Some((told.from_frames, told.from_scenes)),
                Message::Progress(_) => {}
            }
        }
        assert_eq!(judged, probabilities.map(|p| (p, basis)), "{model}");
        assert_eq!(summary, Some((0, 2)));
    }
}

#[tokio::test]
async fn watchers_are_told_what_a_verdict_was_made_by() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let visual = client.index(&stream.id).await;
    let spoken = audio(&mut client, &stream.id, "reader", "").await;
    let request = v1::WatchRequest {
        kinds: vec![v1::watch_request::Kind::Verdict.into()],
        ..Default::default()
    };
    let mut watch = client
        .watch
        .watch(request)
        .await
        .expect("watched")
        .into_inner();
    for (number, (index_id, by_similarity, expected)) in [
        (visual.id.as_str(), false, Basis::Frames),
        (&spoken.id, false, Basis::Text),
        (&spoken.id, true, Basis::Similarity),
        ("", false, Basis::Health),
    ]
    .into_iter()
    .enumerate()
    {
        let observed = Observation {
            body: Some(Body::Verdict(VerdictBody {
                index_id: index_id.to_owned(),
                by_similarity,
                ..VerdictBody::default()
            })),
            ..verdict(&stream.id, number as u64)
        };
        gateway.observe(&observed).await;
        let told = loop {
            let told = watch.message().await.expect("no error").expect("goes on");
            if let Some(watch_response::Message::Verdict(told)) = told.message {
                break told;
            }
        };
        assert_eq!(told.basis(), expected, "{index_id}");
    }
}
