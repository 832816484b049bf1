//! Which languages may be asked for.

use sightline_proto::reasons::{ApiError, Reason};

use super::violations::{refused, shown};

/// The languages that Whisper models know: ISO 639-1, and three letters where that has none.
const KNOWN: &str = "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu \
                     hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro \
                     ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh";

/// Refuses what the engine can't do, with what it can.
pub(super) fn check(language: &str, translate: bool, multilingual: bool) -> Result<(), ApiError> {
    let wrong = |field, allowed: String| Err(refused(Reason::InvalidArgument, field, allowed));
    if !multilingual {
        let english = "this server's engine knows English alone";
        if translate {
            return wrong("translate", format!("false, because {english}"));
        }
        if !["", "en"].contains(&language) {
            let got = shown(language);
            return wrong(
                "language",
                format!("\"en\" or empty, because {english}; got {got}"),
            );
        }
        return Ok(());
    }
    if language.is_empty() || KNOWN.split_whitespace().any(|known| known == language) {
        return Ok(());
    }
    let got = shown(language);
    wrong("language", format!("empty, or one of {KNOWN}; got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_cannot_do_is_refused_with_what_it_can() {
        for (language, translate, multilingual, wrong) in [
            ("", false, false, None),
            ("en", false, false, None),
            ("de", false, false, Some("language")),
            ("", true, false, Some("translate")),
            ("de", true, true, None),
            ("", true, true, None),
            ("yue", false, true, None),
            ("german", false, true, Some("language")),
            ("DE", false, true, Some("language")),
            ("a", false, true, Some("language")),
        ] {
            let found = check(language, translate, multilingual).err();
            let message = found.map(|error| error.message);
            let named = wrong.is_none_or(|w| message.as_ref().is_some_and(|m| m.starts_with(w)));
            assert!(
                named && message.is_some() == wrong.is_some(),
                "{language} {message:?}"
            );
        }
    }
}
