//! Links: they open what they name until they expire, and nothing else.

use std::collections::HashSet;

use proptest::prelude::*;
use sightline_recordings::links::{Clip, LinkError, Links};
use url::Url;

use crate::{EXPORT, OTHER_STREAM, STREAM};

const NOW_US: i64 = 1_764_000_000_000_000;
const LIFETIME_US: i64 = 1_000;

fn links(key: u8, lifetime_us: Option<i64>) -> Links {
    let public = Url::parse("https://video.example/sight/").expect("an address");
    Links::new(&public, &[key; 32], lifetime_us)
}

fn clip(end_us: Option<i64>) -> Clip {
    Clip {
        rtstream: STREAM.to_owned(),
        start_us: 5_000_000,
        end_us,
    }
}

/// The tokens of a playlist, a player page and an export.
fn tokens(links: &Links, end_us: Option<i64>) -> [String; 3] {
    let made = links.clip(&clip(end_us), NOW_US);
    let (_, page) = made
        .player_url
        .split_once("?v=")
        .expect("a page has a token");
    let export = links.export(EXPORT, NOW_US);
    let part = |address: &str, at| address.split('/').nth(at).unwrap_or_default().to_owned();
    [part(&made.stream_url, 6), page.to_owned(), part(&export, 5)]
}

#[test]
fn links_have_their_places() {
    for public in [
        "https://v.example",
        "https://v.example/",
        "https://v.example/a/b",
        "https://v.example/a/b/?x#y",
    ] {
        let url = Url::parse(public).expect("an address");
        let links = Links::new(&url, &[1; 32], None);
        let base = public
            .split('?')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/');
        let made = links.around(STREAM, 7_000_000, 9_000_000, NOW_US);
        let folder = made
            .stream_url
            .strip_suffix("/stream.m3u8")
            .expect("a playlist")
            .to_owned();
        assert!(
            folder.starts_with(&format!("{base}/manifests/{STREAM}/")),
            "{folder}"
        );
        assert_eq!(made.thumbnail_url, format!("{folder}/5000000.jpg"));
        assert!(made.player_url.starts_with(&format!("{base}/watch?v=")));
        let token = folder.rsplit('/').next().unwrap_or_default();
        assert_eq!(
            links.check_clip(STREAM, token, NOW_US),
            Ok(clip(Some(11_000_000)))
        );
        assert_eq!(
            links.page("a&b=../\"<"),
            format!("{base}/watch?v=a%26b%3D..%2F%22%3C")
        );
        let export = links.export(EXPORT, NOW_US);
        assert!(
            export.starts_with(&format!("{base}/exports/"))
                && export.ends_with(&format!("/{EXPORT}.mp4"))
        );
    }
}

#[test]
fn what_is_no_id_has_no_link() {
    let links = links(1, None);
    for id in [
        "",
        "rts-1",
        "../..",
        OTHER_STREAM.trim_start_matches("rts-"),
    ] {
        let made = links.around(id, 1, 2, NOW_US);
        assert_eq!(
            (made.stream_url.as_str(), links.export(id, NOW_US).as_str()),
            ("", "")
        );
    }
}

#[test]
fn links_work_until_they_expire() {
    for end_us in [None, Some(1), Some(9_000_000)] {
        for (lifetime, after_us, works) in [
            (None, 0, true),
            (None, i64::MAX - NOW_US, true),
            (Some(LIFETIME_US), LIFETIME_US - 1, true),
            (Some(LIFETIME_US), LIFETIME_US, false),
            (Some(0), 0, false),
            (Some(i64::MAX), 1_000_000_000, true),
        ] {
            let links = links(1, lifetime);
            let [playlist, page, export] = tokens(&links, end_us);
            let at = NOW_US + after_us;
            let expected = if works {
                Ok(clip(end_us))
            } else {
                Err(LinkError::Expired)
            };
            assert_eq!(links.check_clip(STREAM, &playlist, at), expected);
            let until = links.expires_us(NOW_US);
            let page = links.check_page(&page, at);
            assert_eq!(page, expected.clone().map(|clip| (clip, until)));
            assert_eq!(
                links.check_export(EXPORT, &export, at),
                expected.map(|_| ())
            );
        }
    }
}

#[test]
fn a_link_opens_nothing_else() {
    let (ours, theirs) = (links(1, Some(LIFETIME_US)), links(2, Some(LIFETIME_US)));
    let all = tokens(&ours, Some(9_000_000));
    let [playlist, page, export] = &all;
    let invalid = Err(LinkError::Invalid);
    let other_export = EXPORT.replace("2", "3");
    // Expired ones, too: whether one has is said to none but who holds it.
    for now_us in [NOW_US, NOW_US + LIFETIME_US] {
        assert_eq!(ours.check_clip(OTHER_STREAM, playlist, now_us), invalid);
        assert_eq!(
            ours.check_export(&other_export, export, now_us),
            Err(LinkError::Invalid)
        );
        for links in [&ours, &theirs] {
            for token in &all {
                let mine = std::ptr::eq(links, &ours);
                assert!(
                    mine && token == playlist || links.check_clip(STREAM, token, now_us) == invalid
                );
                assert!(
                    mine && token == page
                        || links.check_page(token, now_us) == Err(LinkError::Invalid)
                );
                let opened = links.check_export(EXPORT, token, now_us);
                assert!(mine && token == export || opened == Err(LinkError::Invalid));
            }
        }
    }
}

#[test]
fn a_changed_link_is_no_good() {
    let links = links(1, None);
    let [playlist, page, export] = tokens(&links, None);
    let good = |which: usize, token: &str| match which {
        0 => links.check_clip(STREAM, token, NOW_US).is_ok(),
        1 => links.check_page(token, NOW_US).is_ok(),
        _ => links.check_export(EXPORT, token, NOW_US).is_ok(),
    };
    for (which, token) in [playlist, page, export].iter().enumerate() {
        assert!(good(which, token));
        for at in 0..token.len() {
            for other in ['A', 'B', 'z', '9', '-', '_', '=', '/', '.'] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, &other.to_string());
                assert!(changed == *token || !good(which, &changed), "{at} {other}");
            }
        }
        for changed in [
            format!("{token}A"),
            format!("{token}="),
            token[1..].to_owned(),
            token.repeat(1000),
        ] {
            assert!(!good(which, &changed));
        }
    }
}

#[test]
fn slugs_differ_and_begin_as_wanted() {
    let longest = format!("{}-", "x".repeat(64));
    for (wanted, begins) in [
        ("Gate 7, north/../<b>", "gate-7-north-b-"),
        ("", ""),
        ("../../", ""),
        ("дверь", ""),
        (&"x".repeat(200), &longest),
    ] {
        let slugs: HashSet<String> = (0..100).map(|_| Links::new_slug(wanted)).collect();
        assert_eq!(slugs.len(), 100);
        for slug in slugs {
            let random = slug.strip_prefix(begins).expect("it begins as wanted");
            assert!(
                random.len() == 16
                    && random
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{slug}"
            );
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_was_not_made_is_valid(token in "[A-Za-z0-9_-]{0,80}|.{0,80}") {
        let links = links(1, None);
        prop_assert_eq!(links.check_clip(STREAM, &token, NOW_US), Err(LinkError::Invalid));
        prop_assert_eq!(links.check_page(&token, NOW_US), Err(LinkError::Invalid));
        prop_assert_eq!(links.check_export(EXPORT, &token, NOW_US), Err(LinkError::Invalid));
        prop_assert_eq!(links.check_clip(&token, &token, NOW_US), Err(LinkError::Invalid));
    }
}
