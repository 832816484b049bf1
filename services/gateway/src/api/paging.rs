//! Page tokens: where the next page starts, bound to the list and to the parameters that they were made for.
//!
//! A token is base64url of a version, 8 bytes of SHA-256 over the tenant, the method and its parameters, and the position of the last
//! item of the page before. Positions are of items and not counts, so that what arrives meanwhile shifts nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use sha2::{Digest, Sha256};
use sightline_proto::reasons::{ApiError, Reason};

use super::violations::refused;

const VERSION: u8 = 1;
const BOUND: usize = 8;
const HEAD: usize = 1 + BOUND + 8;

/// Where an item lies in its list: a time (0 where the list has none) and an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) time_us: i64,
    pub(crate) id: String,
}

impl Position {
    /// A position in a list that is ordered by id alone.
    pub(crate) fn of_id(id: impl Into<String>) -> Self {
        Self {
            time_us: 0,
            id: id.into(),
        }
    }
}

/// A list with its parameters: what its page tokens are bound to.
pub(crate) struct Pages([u8; BOUND]);

impl Pages {
    /// `parameters` is the request with its page size and page token cleared.
    pub(crate) fn of(tenant: &str, method: &str, parameters: &impl Message) -> Self {
        let mut hash = Sha256::new();
        hash.update(tenant.as_bytes());
        hash.update([0]);
        hash.update(method.as_bytes());
        hash.update([0]);
        hash.update(parameters.encode_to_vec());
        let mut bound = [0; BOUND];
        bound.copy_from_slice(&hash.finalize()[..BOUND]);
        Self(bound)
    }

    /// The position after which the page starts; `None` for the first page.
    pub(crate) fn start(&self, token: &str) -> Result<Option<Position>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        self.parse(token).map(Some).ok_or_else(|| {
            let allowed = "the next_page_token of the page before, with the same other fields \
                           (page_size may differ), or empty for the first page";
            refused(Reason::PageTokenInvalid, "page_token", allowed)
        })
    }

    /// The token of the page after the item at `last`.
    pub(crate) fn token(&self, last: &Position) -> String {
        let mut bytes = Vec::with_capacity(HEAD + last.id.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(&last.time_us.to_be_bytes());
        bytes.extend_from_slice(last.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Cuts one page out of items in list order. `items` must be ordered by `position`, ascending or descending as
    /// `newest_first` says.
    pub(crate) fn cut<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        token: &str,
        size: usize,
        newest_first: bool,
        position: impl Fn(&T) -> Position,
    ) -> Result<(Vec<T>, String), ApiError> {
        let start = self.start(token)?;
        let after = |item: &T| match &start {
            None => true,
            Some(start) if newest_first => position(item) < *start,
            Some(start) => position(item) > *start,
        };
        let mut page: Vec<T> = items.into_iter().filter(after).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next = page
            .last()
            .filter(|_| more)
            .map_or_else(String::new, |last| self.token(&position(last)));
        Ok((page, next))
    }

    fn parse(&self, token: &str) -> Option<Position> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (head, id) = bytes.split_at_checked(HEAD)?;
        if head[0] != VERSION || head[1..=BOUND] != self.0 {
            return None;
        }
        Some(Position {
            time_us: i64::from_be_bytes(head[1 + BOUND..].try_into().ok()?),
            id: String::from_utf8(id.to_vec()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::v1;

    use super::*;

    fn pages(index: &str) -> Pages {
        let request = v1::ListAlertsRequest {
            index_id: index.to_owned(),
            ..Default::default()
        };
        Pages::of("default", "ListAlerts", &request)
    }

    fn all_pages(
        items: &[&'static str],
        size: usize,
        newest_first: bool,
    ) -> Vec<Vec<&'static str>> {
        let pages = pages("idx-1");
        let mut ordered = items.to_vec();
        if newest_first {
            ordered.reverse();
        }
        let (mut token, mut result) = (String::new(), Vec::new());
        loop {
            let (page, next) = pages
                .cut(ordered.clone(), &token, size, newest_first, |id| {
                    Position::of_id(*id)
                })
                .expect("own token");
            result.push(page);
            if next.is_empty() {
                return result;
            }
            token = next;
        }
    }

    #[test]
    fn pages_cover_the_list_once_in_its_order() {
        let items = ["a", "b", "c", "d", "e"];
        assert_eq!(
            all_pages(&items, 2, false),
            [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
        );
        assert_eq!(
            all_pages(&items, 2, true),
            [vec!["e", "d"], vec!["c", "b"], vec!["a"]]
        );
        assert_eq!(all_pages(&items, 5, false).len(), 1, "no empty last page");
        assert_eq!(all_pages(&[], 5, false), [Vec::<&str>::new()]);
    }

    #[test]
    fn tokens_are_bound_to_tenant_method_and_parameters() {
        let token = pages("idx-1").token(&Position::of_id("alr-1"));
        let none = v1::ListAlertsRequest::default();
        let same = v1::ListAlertsRequest {
            index_id: "idx-1".to_owned(),
            ..Default::default()
        };
        assert!(pages("idx-1").start(&token).is_ok());
        for (name, pages) in [
            ("parameters", pages("idx-2")),
            ("method", Pages::of("default", "ListEvents", &none)),
            ("tenant", Pages::of("other", "ListAlerts", &same)),
        ] {
            let error = pages.start(&token).expect_err(name);
            assert_eq!(error.reason, Reason::PageTokenInvalid);
            assert_eq!(error.fields[0].0, "page_token");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let good = pages("idx-1").token(&Position::of_id("alr-1"));
        for token in ["x", "!!!", "AAAA", &good[..10], "ä", &"A".repeat(10_000)] {
            assert!(pages("idx-1").start(token).is_err(), "{token:.20}");
        }
    }

    #[test]
    fn positions_survive_with_times_and_any_id() {
        let position = Position {
            time_us: -5,
            id: "ünï".to_owned(),
        };
        let token = pages("idx-1").token(&position);
        assert_eq!(pages("idx-1").start(&token), Ok(Some(position)));
    }
}
