//! Search, scenes and transcripts through the gateway, over a stand-in of the embeddings service that answers what it is told: what
//! the gateway asks, and what it makes of the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::records_service_server::{RecordsService, RecordsServiceServer};
use sightline_proto::internal::{
    AudioSceneBody, CountWindowsRequest, CountWindowsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, ListRecordsRequest, ListRecordsResponse, Observation, Record,
    RecordKind, SearchRecordsRequest, SearchRecordsResponse, search_records_response,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::search_hit::Kind;
use sightline_testkit::until;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::harness::{Gateway, reason_of};

/// A stand-in of the embeddings service. Clones share it.
#[derive(Clone)]
pub struct Records {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fails: bool,
    hangs: bool,
    hits: Vec<search_records_response::Hit>,
    listed: Vec<Record>,
    searches: Vec<SearchRecordsRequest>,
    lists: Vec<ListRecordsRequest>,
    deleted: Vec<String>,
    /// Calls that were given up by the gateway before they had an answer.
    dropped: usize,
}

impl Records {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let records = Self {
            address,
            state: Arc::default(),
        };
        let service = RecordsServiceServer::new(records.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        records
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("an address")
    }

    /// What is listed, and what every search finds.
    pub fn hold(&self, listed: Vec<Record>, hits: Vec<search_records_response::Hit>) {
        let mut state = self.state();
        (state.listed, state.hits) = (listed, hits);
    }

    /// Whether every call is refused.
    pub fn fail(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// The streams and indexes whose records were deleted.
    pub fn deleted(&self) -> Vec<String> {
        self.state().deleted.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serves(&self) -> Result<(), Status> {
        if self.state().fails {
            return Err(Status::unavailable("as the test wants it"));
        }
        Ok(())
    }
}

/// Counts a call that ends before it has an answer.
struct Unanswered(Records);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.state().dropped += 1;
    }
}

#[tonic::async_trait]
impl RecordsService for Records {
    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        self.serves()?;
        let mut state = self.state();
        state.lists.push(request.into_inner());
        let records = state.listed.clone();
        Ok(Response::new(ListRecordsResponse {
            records,
            more: false,
        }))
    }

    async fn search_records(
        &self,
        request: Request<SearchRecordsRequest>,
    ) -> Result<Response<SearchRecordsResponse>, Status> {
        self.serves()?;
        self.state().searches.push(request.into_inner());
        if self.state().hangs {
            let _unanswered = Unanswered(self.clone());
            return std::future::pending().await;
        }
        let hits = self.state().hits.clone();
        Ok(Response::new(SearchRecordsResponse { hits }))
    }

    async fn count_windows(
        &self,
        _request: Request<CountWindowsRequest>,
    ) -> Result<Response<CountWindowsResponse>, Status> {
        self.serves()?;
        Ok(Response::new(CountWindowsResponse::default()))
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        self.serves()?;
        let request = request.into_inner();
        let id = request.rtstream_id + &request.index_id;
        self.state().deleted.push(id);
        Ok(Response::new(DeleteRecordsResponse {}))
    }
}

fn hit(
    id: &str,
    rtstream: &str,
    index: &str,
    kind: RecordKind,
    seconds: (i64, i64),
    score: f32,
) -> search_records_response::Hit {
    search_records_response::Hit {
        record: Some(Record {
            id: id.to_owned(),
            kind: kind.into(),
            rtstream_id: rtstream.to_owned(),
            index_id: index.to_owned(),
            start_us: seconds.0 * 1_000_000,
            end_us: seconds.1 * 1_000_000,
            text: format!("text of {id}"),
            ..Default::default()
        }),
        score,
    }
}

#[tokio::test]
async fn hits_have_names_and_are_cut_and_stitched_as_asked() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await;
    let index = client.index(&stream.id).await;
    let gone = format!("rts-{}", "01890000-0000-7000-8000-000000000000");
    let (s, i) = (stream.id.as_str(), index.id.as_str());
    use RecordKind::{AudioScene, Scene, Transcript};
    records.state().hits = vec![
        hit("a", s, i, Scene, (5, 10), 0.9),
        hit("b", s, "", Transcript, (0, 4), 0.7),
        hit("g", &gone, "", Transcript, (0, 4), 0.7),
        hit("c", s, i, Scene, (0, 5), 0.6),
        hit("d", s, i, AudioScene, (0, 5), 0.1),
    ];
    let good = v1::SearchRequest {
        query: "a white car".to_owned(),
        rtstream_id: stream.id.clone(),
        ..Default::default()
    };
    let with = |change: &dyn Fn(&mut v1::SearchRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, expected) in [
        (good.clone(), "a b c d"),
        (with(&|r| r.stitch = true), "a+c b d"),
        // Half of 0.9 to 0.1.
        (with(&|r| r.dynamic_score_percentage = 50.0), "a b c"),
        (
            with(&|r| {
                r.dynamic_score_percentage = 50.0;
                r.min_score = 0.65;
            }),
            "a b",
        ),
    ] {
        let answer = client.indexes.search(request.clone()).await;
        let hits = answer.expect("finds").into_inner().hits;
        let found: Vec<String> = hits
            .iter()
            .map(|hit| {
                assert_eq!(hit.rtstream_name, "Front door");
                let of_index = hit.kind() != Kind::Transcript;
                assert_eq!(
                    hit.index_name,
                    if of_index { index.name.as_str() } else { "" }
                );
                assert!(hit.stream_url.starts_with("http"), "{}", hit.stream_url);
                let mut ids = hit.stitched_ids.clone();
                assert_eq!(ids.is_empty(), !request.stitch);
                ids.retain(|id| *id != hit.id);
                ids.insert(0, hit.id.clone());
                ids.join("+")
            })
            .collect();
        assert_eq!(found.join(" "), expected, "{request:?}");
    }
}

#[tokio::test]
async fn a_search_asks_for_what_was_meant() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.of_tenant("other").await;
    let request = v1::SearchRequest {
        query: "a white car".to_owned(),
        collection_id: "default".to_owned(),
        kinds: vec![Kind::AudioScene.into(), Kind::Transcript.into()],
        limit: 7,
        min_score: 0.5,
        ..Default::default()
    };
    let dynamic = v1::SearchRequest {
        dynamic_score_percentage: 20.0,
        ..request.clone()
    };
    for (request, min_score) in [(&request, 0.5), (&dynamic, 0.0)] {
        let answer = client.indexes.search(request.clone()).await;
        answer.expect("finds nothing");
        let asked = records.state().searches.pop().expect("asked");
        assert_eq!((asked.limit, asked.min_score), (7, min_score));
        let filter = asked.filter.expect("set");
        assert_eq!(filter.collection_id, "default_other");
        let kinds: Vec<_> = filter.kinds().collect();
        assert_eq!(kinds, [RecordKind::AudioScene, RecordKind::Transcript]);
    }
    for (bad, field) in [
        (
            v1::SearchRequest {
                kinds: vec![0],
                ..request.clone()
            },
            "kinds",
        ),
        (
            v1::SearchRequest {
                dynamic_score_percentage: 101.0,
                ..request.clone()
            },
            "dynamic_score_percentage",
        ),
    ] {
        let refused = client.indexes.search(bad).await.expect_err("bad");
        assert_eq!(reason_of(&refused).1, field);
    }
}

#[tokio::test]
async fn batches_of_an_audio_index_are_its_scenes() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let request = v1::CreateAudioIndexRequest {
        rtstream_id: stream.id.clone(),
        ..Default::default()
    };
    let made = client.indexes.create_audio_index(request).await;
    let index_id = made.expect("made").into_inner().index.expect("set").id;
    let observation = Observation {
        id: "o-1".to_owned(),
        rtstream_id: stream.id,
        body: Some(Body::AudioScene(AudioSceneBody {
            index_id: index_id.clone(),
            prompt_revision: 3,
            text: "hello".to_owned(),
            transcript: "hello".to_owned(),
            prompt_applied: false,
            batch: 4,
        })),
        ..Default::default()
    };
    records.state().listed = vec![Record {
        id: "o-1".to_owned(),
        observation: observation.encode_to_vec().into(),
        ..Default::default()
    }];
    let request = v1::ListScenesRequest {
        index_id,
        ..Default::default()
    };
    let listed = client.indexes.list_scenes(request).await.expect("lists");
    let scene = listed.into_inner().scenes.pop().expect("a scene");
    let found = (
        scene.text.as_str(),
        scene.transcript.as_str(),
        scene.prompt_applied,
        scene.window,
        scene.prompt_revision,
    );
    assert_eq!(found, ("hello", "hello", false, 4, 3));
}

#[tokio::test]
async fn polling_a_transcript_goes_on_where_it_was() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let request = v1::ListTranscriptRequest {
        rtstream_id: client.camera().await.id,
        since: Some(timestamp(5_000_000)),
        ..Default::default()
    };
    let listed = client.streams.list_transcript(request).await;
    listed.expect("lists");
    let asked = records.state().lists.pop().expect("asked");
    // After everything that starts before 5 s.
    assert_eq!(asked.after_start_us, 4_999_999);
    assert_eq!(asked.after_id, "ffffffff-ffff-ffff-ffff-ffffffffffff");
}

#[tokio::test]
async fn a_call_that_is_given_up_stops_its_work() {
    let records = Records::start().await;
    records.state().hangs = true;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let rtstream_id = client.camera().await.id;
    let search = |query: &str| v1::SearchRequest {
        query: query.to_owned(),
        rtstream_id: rtstream_id.clone(),
        ..Default::default()
    };
    let asked = |query: &str| {
        let state = records.state();
        let mut searches = state.searches.iter();
        searches.any(|search| search.query == query).then_some(())
    };
    // By its deadline, which on a slow machine may be over before it is asked; and by a client that goes away.
    let late = async || {
        let mut request = Request::new(search("a white car"));
        request.set_timeout(Duration::from_millis(200));
        let late = client.indexes.search(request).await;
        late.expect_err("nobody answers");
        Ok(asked("a white car"))
    };
    until("the first search to be asked", late)
        .await
        .expect("asked");
    let (mut going, leaving) = (client.indexes.clone(), search("a red car"));
    let call = tokio::spawn(async move { going.search(leaving).await });
    until("the second search to be asked", async || {
        Ok(asked("a red car"))
    })
    .await
    .expect("asked");
    call.abort();
    let dropped = async || {
        let state = records.state();
        Ok((state.dropped == state.searches.len()).then_some(()))
    };
    until("all searches to end", dropped).await.expect("ended");
}
