//! Numbered pages, and whole lists, out of the core's pages with tokens.

use serde::Deserialize;
use sightline_proto::reasons::ApiError;

use super::values::{Number, whole, wrong};

/// Results a page when the caller does not say.
const DEFAULT: i64 = 100;
/// Results a page at most, here and in the session.
const MOST: i64 = 1000;
/// How far numbered pages reach: every page reads all before it.
const DEEPEST: i64 = 100_000;

/// The page asked for.
#[derive(Deserialize)]
pub(super) struct PageQuery {
    page: Option<Number>,
    page_size: Option<Number>,
}

impl PageQuery {
    /// Its number from 1 on, and its size.
    pub(super) fn check(&self) -> Result<Page, ApiError> {
        let number = whole("page", self.page, 1..=DEEPEST)?.unwrap_or(1);
        let size = whole("page_size", self.page_size, 1..=MOST)?.unwrap_or(DEFAULT);
        if number * size > DEEPEST {
            let allowed = format!(
                "page times page_size is at most {DEEPEST}; choose a stretch with start and end"
            );
            return Err(wrong("page", allowed));
        }
        Ok(Page { number, size })
    }
}

/// A page by number.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) number: i64,
    pub(super) size: i64,
}

/// The items of a page, and whether there are more. `fetch` gets one of the core's pages: its size and its token go in, its
/// items and the next token come out.
pub(super) async fn page<T, F, R>(page: Page, mut fetch: F) -> Result<(Vec<T>, bool), ApiError>
where
    F: FnMut(i32, String) -> R,
    R: Future<Output = Result<(Vec<T>, String), ApiError>>,
{
    let mut skip = (page.number - 1) * page.size;
    let (mut taken, mut token) = (Vec::new(), String::new());
    loop {
        let wanted = skip + page.size - taken.len() as i64;
        let (items, next) = fetch(wanted.min(MOST) as i32, token).await?;
        for item in items {
            if skip > 0 {
                skip -= 1;
            } else {
                taken.push(item);
            }
        }
        let full = taken.len() as i64 >= page.size;
        if full || next.is_empty() {
            return Ok((taken, !next.is_empty()));
        }
        token = next;
    }
}

/// All items of a list that lies in memory.
pub(super) async fn all<T, F, R>(mut fetch: F) -> Result<Vec<T>, ApiError>
where
    F: FnMut(i32, String) -> R,
    R: Future<Output = Result<(Vec<T>, String), ApiError>>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = fetch(MOST as i32, token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of a list of `count` numbers that the core hands out at most `cut` at a time.
    async fn check(number: i64, size: i64, count: i32, cut: i32, expected: (&[i32], bool)) {
        let fetch = |wanted: i32, token: String| {
            let start: i32 = token.parse().unwrap_or(0);
            let end = count.min(start + wanted.min(cut));
            let next = (end < count).then(|| end.to_string());
            std::future::ready(Ok(((start..end).collect(), next.unwrap_or_default())))
        };
        let (items, more) = page(Page { number, size }, fetch).await.expect("a page");
        let told = format!("page {number} of {size}, {count} by {cut}");
        assert_eq!((items.as_slice(), more), expected, "{told}");
    }

    #[tokio::test]
    async fn numbered_pages_are_cut_out_of_pages_with_tokens() {
        for cut in [1, 2, 3, 100] {
            check(1, 2, 5, cut, (&[0, 1], true)).await;
            check(2, 2, 5, cut, (&[2, 3], true)).await;
            check(3, 2, 5, cut, (&[4], false)).await;
            check(4, 2, 5, cut, (&[], false)).await;
            check(1, 5, 5, cut, (&[0, 1, 2, 3, 4], false)).await;
            check(1, 9, 0, cut, (&[], false)).await;
        }
        check(3, 1000, 2002, 1000, (&[2000, 2001], false)).await;
    }

    #[test]
    fn pages_have_limits() {
        for (page, page_size, expected) in [
            (None, None, Some((1, 100))),
            (Some(2.0), Some(1000.0), Some((2, 1000))),
            (Some(100.0), Some(1000.0), Some((100, 1000))),
            (Some(101.0), Some(1000.0), None),
            (Some(0.0), None, None),
            (Some(1.5), None, None),
            (None, Some(1001.0), None),
            (Some(f64::NAN), None, None),
        ] {
            let query = PageQuery {
                page: page.map(Number),
                page_size: page_size.map(Number),
            };
            let found = query.check().ok().map(|page| (page.number, page.size));
            assert_eq!(found, expected, "{page:?} {page_size:?}");
        }
    }
}
