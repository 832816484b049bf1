//! What a firing's receivers are told: the body of each of its messages, and the deliveries that carry it.

use bytes::Bytes;
use jiff::Timestamp;
use sightline_bus::{Bus, BusError, Subject};
use sightline_message::{Body, PHASES};
use sightline_proto::ids;
use sightline_proto::internal::{Delivery, FiringBody};
use sightline_proto::v1::firing::{Basis, State};
use sightline_proto::v1::{Alert, Phase, Severity};
use sightline_recordings::links::{ClipLinks, Links};

/// A firing as its receivers are told of it.
pub(crate) struct Told<'a> {
    pub(crate) firing: &'a FiringBody,
    /// Where it starts.
    pub(crate) start_us: i64,
    /// Where its first window ends; of a closed one, its last.
    pub(crate) end_us: i64,
    /// Who is told: as the alert was when it was decided.
    pub(crate) alert: &'a Alert,
    pub(crate) tenant: &'a str,
    /// None where nothing is recorded.
    pub(crate) links: Option<&'a Links>,
    pub(crate) phase: Phase,
    /// What the alert's index says of the first window; none while it is not known.
    pub(crate) caption: Option<&'a str>,
}

impl Told<'_> {
    /// One for each receiver. The same each time, so that receivers get the same bytes again.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let Alert {
            callback_url,
            sinks,
            ..
        } = self.alert;
        if callback_url.is_empty() && sinks.is_empty() {
            return Vec::new();
        }
        let told = Delivery {
            firing_id: self.firing.firing_id.clone(),
            alert_id: self.firing.alert_id.clone(),
            body: self.body(),
            decided_us: self.firing.decided_us,
            captured_us: self.firing.captured_us,
            rtstream_id: self.alert.rtstream_id.clone(),
            phase: self.phase.into(),
            sampled_us: self.firing.sampled_us,
            judged_us: self.firing.judged_us,
            ..Delivery::default()
        };
        let webhook = (!callback_url.is_empty()).then(|| Delivery {
            endpoint_id: ids::endpoint_id(self.tenant, callback_url),
            url: callback_url.clone(),
            ..told.clone()
        });
        let sinks = sinks.iter().map(|sink| Delivery {
            sink: sink.clone(),
            ..told.clone()
        });
        webhook.into_iter().chain(sinks).collect()
    }

    /// The usual body.
    pub(crate) fn body(&self) -> Bytes {
        let firing = self.firing;
        let links = self.urls();
        let link = |of: fn(&ClipLinks) -> &String| links.as_ref().map(|links| of(links).as_str());
        let explanation = match self.caption {
            Some(caption) => format!("{} The caption: \"{caption}\"", firing.explanation),
            None => firing.explanation.clone(),
        };
        let body = Body {
            event_id: &firing.event_id,
            label: &firing.label,
            confidence: firing.confidence,
            explanation: &explanation,
            timestamp: &with_offset(firing.decided_us),
            start_time: &with_offset(self.start_us),
            end_time: &with_offset(self.end_us),
            stream_url: link(|links| &links.stream_url),
            player_url: link(|links| &links.player_url),
            thumbnail_url: link(|links| &links.thumbnail_url),
            alert_id: &firing.alert_id,
            rtstream_id: &self.alert.rtstream_id,
            index_id: &firing.index_id,
            firing_id: &firing.firing_id,
            phase: phase(self.phase),
            state: match firing.state() {
                State::Closed => "closed",
                State::Open | State::Unspecified => "open",
            },
            severity: match firing.severity() {
                Severity::Info => "info",
                Severity::Critical => "critical",
                Severity::Warning | Severity::Unspecified => "warning",
            },
            basis: match firing.basis() {
                Basis::Similarity => "similarity",
                Basis::Text => "text",
                Basis::Health => "health",
                Basis::Frames | Basis::Unspecified => "frames",
            },
            caption: self.caption,
        };
        body.json()
    }

    /// They expire counted from the decision, so that the body stays as it is.
    fn urls(&self) -> Option<ClipLinks> {
        let stream = &self.alert.rtstream_id;
        let decided_us = self.firing.decided_us;
        self.links
            .map(|links| links.around(stream, self.start_us, self.end_us, decided_us))
    }
}

/// A phase in the words of bodies.
pub(crate) fn phase(phase: Phase) -> &'static str {
    let [fired, enriched, closed] = PHASES;
    match phase {
        Phase::Unspecified | Phase::Fired => fired,
        Phase::Enriched => enriched,
        Phase::Closed => closed,
    }
}

/// The id by which receivers know a message.
pub(crate) fn message_id(delivery: &Delivery) -> String {
    let firing = &delivery.firing_id;
    match delivery.phase() {
        Phase::Unspecified | Phase::Fired => firing.clone(),
        later => format!("{firing}_{}", phase(later)),
    }
}

/// Whose queue it stands in.
pub(crate) fn receiver(delivery: &Delivery) -> String {
    if delivery.sink.is_empty() {
        delivery.endpoint_id.clone()
    } else {
        queue_of_sink(&delivery.sink)
    }
}

/// The queue of a sink.
pub(crate) fn queue_of_sink(sink: &str) -> String {
    format!("sink-{sink}")
}

/// Where a delivery is put, and its id there: once for each phase, receiver and redelivery.
pub(crate) fn place(delivery: &Delivery) -> (Subject, String) {
    let endpoint = receiver(delivery);
    let mut id = format!(
        "{}-{}-{endpoint}",
        delivery.firing_id,
        phase(delivery.phase())
    );
    if !delivery.redelivery.is_empty() {
        id = format!("{id}-{}", delivery.redelivery);
    }
    (Subject::Deliver { endpoint }, id)
}

/// Puts deliveries in line. True: each of them only now; false: a message of the same id was there before one of them, which may
/// tell something else.
///
/// # Errors
/// When the bus does not take one of them.
pub(crate) async fn put_in_line(bus: &Bus, deliveries: &[Delivery]) -> Result<bool, BusError> {
    let mut new = true;
    for delivery in deliveries {
        let (subject, id) = place(delivery);
        new &= bus.publish_once(&subject, &id, delivery).await?;
    }
    Ok(new)
}

/// ISO 8601 with an offset, as receivers of the VideoDB wire format parse it.
fn with_offset(us: i64) -> String {
    time(us, "%Y-%m-%dT%H:%M:%S%.6f+00:00")
}

/// A time in UTC; times beyond what a calendar holds become the epoch.
pub(crate) fn time(us: i64, format: &str) -> String {
    let time = Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime(format).to_string()
}
