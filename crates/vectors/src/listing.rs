//! Lists in the order of (start, id), which no store has by itself: both order by start alone and leave open which of
//! several records with one start come first. So those that share a start with the edge of a page are read all together.

use std::cmp::Ordering;

use sightline_proto::internal::Record;
use uuid::Uuid;

use crate::payload::START;
use crate::query::{Condition, Scan, conditions};
use crate::{ListQuery, Position, VectorError};

/// The records of a page.
pub(crate) async fn list(store: &impl Scan, query: &ListQuery) -> Result<Vec<Record>, VectorError> {
    let conditions = conditions(&query.filter);
    let order = |a: &Record, b: &Record| in_order(key(a), key(b), query.newest_first);
    let mut page = Vec::new();
    let mut from = query
        .newest_first
        .then_some(query.filter.end_us)
        .filter(|end_us| *end_us != 0)
        .map(|end_us| end_us.saturating_sub(1));
    if let Some(Position { start_us, id }) = query.after {
        let after = (start_us, id.to_string());
        page = starting_at(store, &conditions, start_us).await?;
        page.retain(|record| {
            in_order(key(record), (after.0, &after.1), query.newest_first).is_gt()
        });
        page.sort_unstable_by(order);
        from = Some(match (query.newest_first, from) {
            (false, _) => start_us.saturating_add(1),
            (true, None) => start_us.saturating_sub(1),
            (true, Some(from)) => from.min(start_us.saturating_sub(1)),
        });
    }
    if page.len() < query.limit {
        let missing = query.limit - page.len();
        let mut rest = store
            .by_start(&conditions, query.newest_first, from, missing)
            .await?;
        if let Some(last) = rest.last().filter(|_| rest.len() == missing) {
            let last = last.start_us;
            rest.retain(|record| record.start_us != last);
            rest.extend(starting_at(store, &conditions, last).await?);
        }
        rest.sort_unstable_by(order);
        page.extend(rest);
    }
    page.truncate(query.limit);
    Ok(page)
}

/// Every record with this start: as many as one moment has, about one for each index and stream.
async fn starting_at(
    store: &impl Scan,
    conditions: &[Condition],
    start_us: i64,
) -> Result<Vec<Record>, VectorError> {
    let mut conditions = conditions.to_vec();
    conditions.push(Condition::Between(
        START,
        Some(start_us.saturating_sub(1)),
        Some(start_us.saturating_add(1)),
    ));
    store.all(&conditions).await
}

/// Ids are written by `Uuid`, in lower case: their order as text is their order.
fn key(record: &Record) -> (i64, &str) {
    (record.start_us, &record.id)
}

fn in_order(a: (i64, &str), b: (i64, &str), newest_first: bool) -> Ordering {
    if newest_first { b.cmp(&a) } else { a.cmp(&b) }
}

impl Position {
    /// The position of a record.
    ///
    /// # Errors
    /// When its id is not a UUID.
    pub fn of(start_us: i64, id: &str) -> Result<Self, VectorError> {
        let id: Uuid = crate::payload::point_id(id)?;
        Ok(Self { start_us, id })
    }
}
