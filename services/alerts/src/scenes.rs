//! What was last seen and heard: the captions of the newest windows, for the firings that wait to be explained.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use sightline_bus::{Bus, BusError, ObservationKind, Start, StreamName};
use sightline_proto::internal::{Observation, observation};
use sightline_service::{Shutdown, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// For how long a caption is kept after it was read. Firings wait for a minute.
const KEPT: Duration = Duration::from_secs(120);
/// How much text is kept at most, in bytes; beyond, the oldest goes. Enough for 500 captions a second.
const MAX_BYTES: usize = 32 << 20;
/// The longest caption that is kept, in bytes.
const MAX_CAPTION: usize = 4000;
/// What a caption takes beside its text, about.
const OVERHEAD: usize = 200;
/// So many of the newest observations, of any kind, are looked through at the start: some minutes of a busy system.
const BACK: u64 = 100_000;
/// From how many on windows that nobody waits for any more are removed.
const TIDY: usize = 4096;
/// How long to hold back when the bus does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// A window of an index: the index, and where the window starts.
type Window = (String, i64);
type Text = Arc<str>;

/// The captions, followed as they come.
#[derive(Default)]
pub(crate) struct Scenes(Mutex<Known>);

#[derive(Default)]
struct Known {
    captions: HashMap<Window, Text>,
    /// By when they were read, the oldest first.
    order: VecDeque<(Instant, Window)>,
    bytes: usize,
    waited_for: HashMap<Window, watch::Sender<Option<Text>>>,
}

impl Scenes {
    /// Follows until shutdown. Nobody takes anything from the bus by it, so every replica sees all of them.
    pub(crate) async fn follow(&self, bus: &Bus, shutdown: &Shutdown) {
        let following = async {
            tokio::join!(
                self.follow_kind(bus, ObservationKind::Scene),
                self.follow_kind(bus, ObservationKind::AudioScene),
            )
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = following => {}
        }
    }

    /// The caption of a window, if it is known.
    pub(crate) fn get(&self, index_id: &str, start_us: i64) -> Option<Text> {
        let window = (index_id.to_owned(), start_us);
        self.known().captions.get(&window).cloned()
    }

    /// The same, when it comes.
    pub(crate) async fn wait(&self, index_id: &str, start_us: i64) -> Text {
        let window = (index_id.to_owned(), start_us);
        loop {
            let mut coming = match self.known().find(&window) {
                Ok(text) => return text,
                Err(coming) => coming,
            };
            if let Ok(come) = coming.wait_for(Option::is_some).await
                && let Some(text) = come.clone()
            {
                return text;
            }
        }
    }

    async fn follow_kind(&self, bus: &Bus, kind: ObservationKind) {
        loop {
            if let Err(error) = self.read_on(bus, kind).await {
                tracing::debug!(reason = chain(&error), "captions are followed later");
            }
            sleep(PAUSE).await;
        }
    }

    async fn read_on(&self, bus: &Bus, kind: ObservationKind) -> Result<(), BusError> {
        let newest = bus.last_sequence(StreamName::Observations).await?;
        let filter = format!("obs.*.{}.*", kind.as_str());
        let start = Start::After(newest.saturating_sub(BACK));
        let mut tail = bus
            .tail::<Observation>(StreamName::Observations, &filter, start)
            .await?;
        while let Some(received) = tail.next().await {
            self.known().add(received?.message);
        }
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, observed: Observation) {
        let (index_id, text) = match observed.body {
            Some(observation::Body::Scene(scene)) => (scene.index_id, scene.text),
            Some(observation::Body::AudioScene(scene)) => (scene.index_id, scene.text),
            _ => return,
        };
        let text: Text = caption(text).into();
        if text.is_empty() {
            return;
        }
        let window = (index_id, observed.start_us);
        if let Some(waiting) = self.waited_for.remove(&window) {
            let _ = waiting.send(Some(Arc::clone(&text)));
        }
        self.bytes += text.len() + OVERHEAD;
        match self.captions.insert(window.clone(), text) {
            // It keeps its place in the order.
            Some(before) => self.bytes -= before.len() + OVERHEAD,
            None => self.order.push_back((Instant::now(), window)),
        }
        self.forget();
    }

    fn forget(&mut self) {
        while let Some((since, _)) = self.order.front()
            && (since.elapsed() > KEPT || self.bytes > MAX_BYTES)
            && let Some((_, window)) = self.order.pop_front()
        {
            if let Some(text) = self.captions.remove(&window) {
                self.bytes -= text.len() + OVERHEAD;
            }
        }
    }

    /// What is known, or where it will be said.
    fn find(&mut self, window: &Window) -> Result<Text, watch::Receiver<Option<Text>>> {
        if let Some(text) = self.captions.get(window) {
            return Ok(Arc::clone(text));
        }
        if self.waited_for.len() >= TIDY {
            self.waited_for
                .retain(|_, sender| sender.receiver_count() > 0);
        }
        let waiting = self.waited_for.entry(window.clone());
        let waiting = waiting.or_insert_with(|| watch::Sender::new(None));
        Err(waiting.subscribe())
    }
}

/// What is told of a description.
pub(crate) fn caption(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_CAPTION));
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::SceneBody;

    use super::*;

    fn scene(start_us: i64, text: &str) -> Observation {
        Observation {
            start_us,
            body: Some(observation::Body::Scene(SceneBody {
                index_id: "idx-1".to_owned(),
                text: text.to_owned(),
                ..SceneBody::default()
            })),
            ..Observation::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caption_is_there_for_whoever_waits_and_for_two_minutes() {
        let scenes = Arc::new(Scenes::default());
        let waiting = {
            let scenes = Arc::clone(&scenes);
            tokio::spawn(async move { scenes.wait("idx-1", 5).await })
        };
        sleep(Duration::from_secs(30)).await;
        scenes.known().add(scene(6, "another"));
        scenes.known().add(scene(5, " a fire \n"));
        assert_eq!(&*waiting.await.expect("it comes"), "a fire");
        assert_eq!(&*scenes.wait("idx-1", 5).await, "a fire");
        assert_eq!(scenes.get("idx-2", 5), None);
        sleep(Duration::from_secs(100)).await;
        scenes.known().add(scene(7, "later"));
        assert!(scenes.get("idx-1", 5).is_some());
        sleep(Duration::from_secs(21)).await;
        scenes.known().add(scene(8, "still later"));
        assert_eq!(scenes.get("idx-1", 5), None);
        assert!(scenes.get("idx-1", 7).is_some());
        assert!(scenes.known().waited_for.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many() {
        let scenes = Scenes::default();
        let long = "x".repeat(2 * MAX_CAPTION);
        let fit = i64::try_from(MAX_BYTES / (MAX_CAPTION + OVERHEAD)).expect("few");
        for start_us in 0..fit + 10 {
            scenes.known().add(scene(start_us, &long));
            scenes.known().add(scene(start_us, &long));
        }
        assert_eq!(scenes.get("idx-1", 9), None);
        assert_eq!(
            scenes.get("idx-1", 10).map(|text| text.len()),
            Some(MAX_CAPTION)
        );
        let known = scenes.known();
        assert_eq!(known.order.len(), known.captions.len());
    }
}
