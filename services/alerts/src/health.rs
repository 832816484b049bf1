//! Words for the built-in events of a stream's health: nobody made these events, and no model judges them.

use sightline_proto::internal::JudgedWindow;
use sightline_proto::v1::Event;

use crate::told::time;

/// Identifier, prompt and label, as the API has them; and what happened, in the past.
const BUILT_IN: [(&str, &str, &str, &str); 6] = [
    (
        "evt-offline",
        "Nothing comes from the source",
        "offline",
        "Nothing came from the camera",
    ),
    (
        "evt-recovered",
        "The source is back",
        "recovered",
        "The camera came back",
    ),
    (
        "evt-frozen",
        "The picture does not change",
        "frozen picture",
        "The picture did not change",
    ),
    (
        "evt-black",
        "The picture is black",
        "black picture",
        "The picture was black",
    ),
    (
        "evt-silent",
        "The sound is silent",
        "silent audio",
        "The sound was silent",
    ),
    (
        "evt-behind",
        "The stream is read or described too slowly",
        "falling behind",
        "Pictures came faster than they were described, and some were left out",
    ),
];

/// A built-in event.
pub(crate) fn event(id: &str) -> Option<Event> {
    let found = BUILT_IN.iter().find(|built_in| built_in.0 == id);
    found.map(|(id, prompt, label, _)| Event {
        id: (*id).to_owned(),
        prompt: (*prompt).to_owned(),
        label: (*label).to_owned(),
        ..Event::default()
    })
}

/// Why an alert on a built-in event fired.
pub(crate) fn explanation(event_id: &str, first: &JudgedWindow) -> Option<String> {
    let (_, _, _, happened) = BUILT_IN.iter().find(|built_in| built_in.0 == event_id)?;
    let time = |us| time(us, "%Y-%m-%dT%H:%M:%S%.fZ");
    let (start, end) = (time(first.start_us), time(first.end_us));
    Some(format!("{happened} between {start} and {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_said_in_words() {
        let first = JudgedWindow {
            start_us: 1_795_514_405_000_000,
            end_us: 1_795_514_410_000_000,
            ..JudgedWindow::default()
        };
        let said = explanation("evt-frozen", &first).expect("it is built in");
        let expected =
            "The picture did not change between 2026-11-24T10:00:05Z and 2026-11-24T10:00:10Z";
        assert_eq!(said, expected);
        assert_eq!(explanation("evt-0199a1b2", &first), None);
    }
}
