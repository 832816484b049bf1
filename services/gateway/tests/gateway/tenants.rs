//! A key sees only what is its tenant's: whatever is called with others' ids answers as if they did not exist.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::client::Client;
use sightline_proto::ids;
use sightline_proto::internal::{ExportRecord, RtStreamRecord};
use sightline_proto::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Gateway, reason_of};

const UUID: &str = "01890000-0000-7000-8000-000000000000";
/// Both tenants' alerts post there.
const HOOK: &str = "https://hooks.example/1";

/// One of everything.
#[derive(Clone)]
struct Ids {
    collection: String,
    rtstream: String,
    index: String,
    event: String,
    alert: String,
    export: String,
    endpoint: String,
}

impl Ids {
    fn unknown() -> Self {
        Self {
            collection: format!("c-{UUID}"),
            rtstream: format!("rts-{UUID}"),
            index: format!("idx-{UUID}"),
            event: format!("evt-{UUID}"),
            alert: format!("alr-{UUID}"),
            export: format!("exp-{UUID}"),
            endpoint: format!("ep-{UUID}"),
        }
    }

    /// One of everything, made by this client; the export is put into the catalog.
    async fn made(gateway: &Gateway, client: &mut Client, tenant: &str) -> Self {
        let request = v1::CreateCollectionRequest {
            name: "Gates".to_owned(),
            ..Default::default()
        };
        let made = client.collections.create_collection(request).await;
        let collection = made.expect("made").into_inner().collection;
        let rtstream = connect(client, "").await.id;
        let request = v1::CreateVisualIndexRequest {
            rtstream_id: rtstream.clone(),
            prompt: "What is going on?".to_owned(),
            ..Default::default()
        };
        let made = client.indexes.create_visual_index(request).await;
        let index = made.expect("made").into_inner().index.expect("set").id;
        let request = v1::CreateEventRequest {
            prompt: "Detect a car".to_owned(),
            label: "car".to_owned(),
            ..Default::default()
        };
        let made = client.events.create_event(request).await;
        let event = made.expect("made").into_inner().event.expect("set").id;
        let request = v1::CreateAlertRequest {
            event_id: event.clone(),
            index_id: index.clone(),
            callback_url: HOOK.to_owned(),
            ..Default::default()
        };
        let made = client.events.create_alert(request).await;
        let alert = made.expect("made").into_inner().alert.expect("set").id;
        let export = rtstream.replace("rts-", "exp-");
        let record = ExportRecord {
            export: Some(v1::Export {
                id: export.clone(),
                rtstream_id: rtstream.clone(),
                ..Default::default()
            }),
            tenant: tenant.to_owned(),
            ..Default::default()
        };
        let made = gateway.catalog.create(&export, &record).await;
        made.expect("made");
        Self {
            collection: collection.expect("set").id,
            rtstream,
            index,
            event,
            alert,
            export,
            endpoint: ids::endpoint_id(tenant, HOOK),
        }
    }

    /// A text without the ids in it.
    fn out_of(&self, text: &str) -> String {
        [
            &self.collection,
            &self.rtstream,
            &self.index,
            &self.event,
            &self.alert,
            &self.export,
            &self.endpoint,
        ]
        .into_iter()
        .fold(text.to_owned(), |text, id| text.replace(id, "ID"))
    }
}

pub async fn connect(client: &mut Client, request_id: &str) -> v1::RtStream {
    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let answer = client.streams.connect_rt_stream(request).await;
    let connected = answer.expect("connected").into_inner();
    connected.rtstream.expect("a stream")
}

/// What a method said, by its name.
type Said = (&'static str, Result<(), Status>);

/// Calls methods, each with the fields given: `service.method(Request { field, … })`.
macro_rules! calls {
    ($client:expr, $($service:ident . $method:ident ($name:ident { $($field:ident: $value:expr),* $(,)? })),* $(,)?) => {{
        let mut said: Vec<Said> = Vec::new();
        $({
            #[allow(clippy::needless_update, reason = "some requests have no other field")]
            let request = v1::$name { $($field: $value.into(),)* ..Default::default() };
            let answer = $client.$service.$method(request).await;
            said.push((stringify!($name), answer.map(drop::<Response<_>>)));
        })*
        said
    }};
}

/// Every method that names something, with these ids; and those that name two things with one of the caller's own.
async fn name_everything(client: &mut Client, their: &Ids, own: &Ids) -> Vec<Said> {
    let mut said = name_streams(client, their).await;
    said.extend(name_indexes(client, their, own).await);
    said.extend(name_events(client, their, own).await);
    said
}

async fn name_streams(client: &mut Client, their: &Ids) -> Vec<Said> {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let (id, collection) = (&their.rtstream, &their.collection);
    calls!(
        client,
        collections.get_collection(GetCollectionRequest {
            collection_id: collection
        }),
        collections.update_collection(UpdateCollectionRequest {
            collection_id: collection,
            name: "Mine".to_owned(),
        }),
        collections.delete_collection(DeleteCollectionRequest {
            collection_id: collection
        }),
        streams.connect_rt_stream(ConnectRtStreamRequest {
            url: "rtsp://camera.example/1",
            collection_id: collection,
        }),
        streams.list_rt_streams(ListRtStreamsRequest {
            collection_id: collection
        }),
        streams.get_rt_stream(GetRtStreamRequest { rtstream_id: id }),
        streams.start_rt_stream(StartRtStreamRequest { rtstream_id: id }),
        streams.stop_rt_stream(StopRtStreamRequest { rtstream_id: id }),
        streams.update_rt_stream(UpdateRtStreamRequest {
            rtstream_id: id,
            name: "Mine".to_owned()
        }),
        streams.delete_rt_stream(DeleteRtStreamRequest { rtstream_id: id }),
        streams.start_transcription(StartTranscriptionRequest { rtstream_id: id }),
        streams.stop_transcription(StopTranscriptionRequest { rtstream_id: id }),
        streams.list_transcript(ListTranscriptRequest { rtstream_id: id }),
        recordings.generate_stream(GenerateStreamRequest {
            rtstream_id: id,
            start_time: time(1)
        }),
        recordings.get_recording(GetRecordingRequest { rtstream_id: id }),
        recordings.create_export(CreateExportRequest { rtstream_id: id }),
        recordings.list_exports(ListExportsRequest { rtstream_id: id }),
        recordings.get_export(GetExportRequest {
            export_id: &their.export
        }),
        watch.watch(WatchRequest {
            rtstream_ids: vec![id.clone()]
        }),
    )
}

async fn name_indexes(client: &mut Client, their: &Ids, own: &Ids) -> Vec<Said> {
    let (id, stream) = (&their.index, &their.rtstream);
    calls!(
        client,
        indexes.create_visual_index(CreateVisualIndexRequest {
            rtstream_id: stream,
            prompt: "What?"
        }),
        indexes.create_audio_index(CreateAudioIndexRequest {
            rtstream_id: stream
        }),
        indexes.list_indexes(ListIndexesRequest {
            rtstream_id: stream
        }),
        indexes.get_index(GetIndexRequest { index_id: id }),
        indexes.start_index(StartIndexRequest { index_id: id }),
        indexes.stop_index(StopIndexRequest { index_id: id }),
        indexes.update_index(UpdateIndexRequest {
            index_id: id,
            prompt: "Mine".to_owned()
        }),
        indexes.delete_index(DeleteIndexRequest { index_id: id }),
        indexes.list_scenes(ListScenesRequest { index_id: id }),
        indexes.search(SearchRequest {
            query: "a car",
            rtstream_id: stream
        }),
        indexes.search(SearchRequest {
            query: "a car",
            collection_id: &their.collection
        }),
        indexes.search(SearchRequest {
            query: "a car",
            rtstream_id: &own.rtstream,
            index_id: id
        }),
        indexes.search(SearchRequest {
            query: "a car",
            collection_id: "default",
            index_id: id
        }),
        watch.watch(WatchRequest {
            index_ids: vec![id.clone()]
        }),
    )
}

async fn name_events(client: &mut Client, their: &Ids, own: &Ids) -> Vec<Said> {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let (id, alert, endpoint) = (&their.event, &their.alert, &their.endpoint);
    calls!(
        client,
        events.get_event(GetEventRequest { event_id: id }),
        events.update_event(UpdateEventRequest {
            event_id: id,
            label: "mine".to_owned()
        }),
        events.delete_event(DeleteEventRequest { event_id: id }),
        events.create_alert(CreateAlertRequest {
            event_id: id,
            index_id: &own.index
        }),
        events.create_alert(CreateAlertRequest {
            event_id: &own.event,
            index_id: &their.index
        }),
        events.get_alert(GetAlertRequest { alert_id: alert }),
        events.list_alerts(ListAlertsRequest {
            index_id: &their.index
        }),
        events.list_alerts(ListAlertsRequest {
            rtstream_id: &their.rtstream
        }),
        events.list_alerts(ListAlertsRequest { event_id: id }),
        events.enable_alert(EnableAlertRequest { alert_id: alert }),
        events.disable_alert(DisableAlertRequest { alert_id: alert }),
        events.update_alert(UpdateAlertRequest {
            alert_id: alert,
            threshold: 0.1_f32
        }),
        events.update_alert(UpdateAlertRequest {
            alert_id: alert,
            callback_url: "http://127.0.0.1/".to_owned(),
        }),
        events.delete_alert(DeleteAlertRequest { alert_id: alert }),
        events.list_firings(ListFiringsRequest { alert_id: alert }),
        events.list_deliveries(ListDeliveriesRequest { alert_id: alert }),
        events.redeliver(RedeliverRequest {
            alert_id: alert,
            firing_id: "any"
        }),
        events.backtest(BacktestRequest {
            prompt: "a car",
            index_id: &their.index,
            start_time: time(1),
            end_time: time(2)
        }),
        events.backtest(BacktestRequest {
            event_id: id,
            index_id: &own.index,
            start_time: time(1),
            end_time: time(2)
        }),
        events.get_latency(GetLatencyRequest { alert_id: alert }),
        endpoints.get_endpoint_secret(GetEndpointSecretRequest {
            endpoint_id: endpoint
        }),
        endpoints.rotate_endpoint_secret(RotateEndpointSecretRequest {
            endpoint_id: endpoint
        }),
        endpoints.enable_endpoint(EnableEndpointRequest {
            endpoint_id: endpoint
        }),
        endpoints.test_endpoint(TestEndpointRequest {
            endpoint_id: endpoint
        }),
    )
}

/// The names of the requests of all methods.
fn all_requests() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build wrote it");
    let files = set.file.iter().filter(|f| f.package() == "sightline.v1");
    let services = files.flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    methods.map(|m| format!("{}Request", m.name())).collect()
}

#[tokio::test]
async fn ids_of_others_answer_like_unknown_ids_in_every_method() {
    let gateway = Gateway::start().await;
    let mut owner = gateway.operator().await;
    let mut other = gateway.of_tenant("other").await;
    let theirs = Ids::made(&gateway, &mut owner, "").await;
    let own = Ids::made(&gateway, &mut other, "other").await;
    let unknown = Ids::unknown();
    let mut named = BTreeSet::new();
    for (caller, theirs, own) in [(&mut other, &theirs, &own), (&mut owner, &own, &theirs)] {
        let told = name_everything(caller, theirs, own).await;
        let expected = name_everything(caller, &unknown, own).await;
        for ((name, told), (_, expected)) in told.into_iter().zip(expected) {
            named.insert(name.to_owned());
            let (told, expected) = (told.expect_err(name), expected.expect_err(name));
            assert_eq!(told.code(), Code::NotFound, "{name}: {told:?}");
            let (reason, field, message) = reason_of(&told);
            let found = (reason, field, theirs.out_of(&message));
            let (reason, field, message) = reason_of(&expected);
            assert_eq!(found, (reason, field, unknown.out_of(&message)), "{name}");
        }
    }
    // These name nothing that belongs to anybody; the next test has their answers.
    let nameless = [
        "CreateCollection",
        "ListCollections",
        "CreateEvent",
        "ListEvents",
        "ListEndpoints",
        "CreateKey",
        "ListKeys",
        "RevokeKey",
        "GetSystem",
    ];
    named.extend(nameless.map(|name| format!("{name}Request")));
    assert_eq!(named, all_requests(), "every method has its row");

    // Nothing came of all that.
    let request = v1::ListAlertsRequest::default();
    for (client, ids) in [(&mut owner, &theirs), (&mut other, &own)] {
        let alerts = client.events.list_alerts(request.clone()).await;
        let alerts = alerts.expect("lists").into_inner().alerts;
        assert_eq!(alerts.len(), 1, "nothing was added and nothing deleted");
        assert_eq!(alerts[0].id, ids.alert);
        assert_eq!((alerts[0].threshold, alerts[0].state), (0.6, 1));
    }
}

#[tokio::test]
async fn lists_hold_what_is_the_callers() {
    let gateway = Gateway::start().await;
    let mut owner = gateway.operator().await;
    let mut other = gateway.of_tenant("other").await;
    let mut third = gateway.of_tenant("").await;
    Ids::made(&gateway, &mut owner, "").await;
    let own = Ids::made(&gateway, &mut other, "other").await;
    for (client, count) in [(&mut owner, 1), (&mut other, 1), (&mut third, 0)] {
        let request = v1::ListCollectionsRequest::default();
        let listed = client.collections.list_collections(request).await;
        let collections = listed.expect("lists").into_inner().collections;
        assert_eq!(collections[0].id, "default");
        assert_eq!(collections.len(), 1 + count);
        for collection_id in ["", "default"] {
            let request = v1::ListRtStreamsRequest {
                collection_id: collection_id.to_owned(),
                ..Default::default()
            };
            let listed = client.streams.list_rt_streams(request).await;
            let streams = listed.expect("lists").into_inner().rtstreams;
            assert_eq!(streams.len(), count);
            assert!(streams.iter().all(|s| s.collection_id == "default"));
        }
        let request = v1::ListEventsRequest::default();
        let listed = client.events.list_events(request).await;
        let events = listed.expect("lists").into_inner().events;
        let made = events.iter().filter(|event| event.create_time.is_some());
        assert_eq!(made.count(), count, "beside those that everybody has");
        let request = v1::ListAlertsRequest::default();
        let listed = client.events.list_alerts(request).await;
        assert_eq!(listed.expect("lists").into_inner().alerts.len(), count);
        let request = v1::ListEndpointsRequest::default();
        let listed = client.endpoints.list_endpoints(request).await;
        assert_eq!(listed.expect("lists").into_inner().endpoints.len(), count);
    }
    let record = gateway.catalog.get::<RtStreamRecord>(&own.rtstream);
    let stream = record.expect("stored").value.rtstream.clone();
    assert_eq!(stream.expect("set").collection_id, "default_other");
    // The name that it has inside is none outside.
    let request = v1::GetCollectionRequest {
        collection_id: "default_other".to_owned(),
    };
    let refused = other.collections.get_collection(request).await;
    assert_eq!(refused.expect_err("no such id").code(), Code::NotFound);
}

#[tokio::test]
async fn request_ids_and_page_tokens_are_the_tenants_own() {
    let gateway = Gateway::start().await;
    let mut owner = gateway.operator().await;
    let mut other = gateway.of_tenant("other").await;
    let made = connect(&mut owner, UUID).await;
    let others = connect(&mut other, UUID).await;
    assert_ne!(made.id, others.id);
    assert_eq!(connect(&mut owner, UUID).await.id, made.id);
    assert_eq!(connect(&mut other, UUID).await.id, others.id);

    connect(&mut owner, "").await;
    let mut request = v1::ListRtStreamsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = owner.streams.list_rt_streams(request.clone()).await;
    request.page_token = page.expect("a page").into_inner().next_page_token;
    let next = owner.streams.list_rt_streams(request.clone()).await;
    assert_eq!(next.expect("a page").into_inner().rtstreams, [made]);
    let refused = other.streams.list_rt_streams(request).await;
    let (reason, field, _) = reason_of(&refused.expect_err("another's token"));
    let expected = ("PAGE_TOKEN_INVALID", "page_token");
    assert_eq!((reason.as_str(), field.as_str()), expected);
}
