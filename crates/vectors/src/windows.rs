//! Counting an index's windows from the values in the store, without reading its records.

use crate::payload::{EPOCH, INDEX, WINDOW};
use crate::query::{Condition, Scan};
use crate::{VectorError, WindowCounts};

/// Counts the windows of an index, epoch by epoch: window numbers start again at 0 with each.
pub(crate) async fn count(store: &impl Scan, index_id: &str) -> Result<WindowCounts, VectorError> {
    let of_index = Condition::OneOf(INDEX, vec![index_id.to_owned()]);
    let epochs = store
        .distinct(EPOCH, std::slice::from_ref(&of_index))
        .await?;
    let mut counts = WindowCounts::default();
    for epoch in epochs {
        let conditions = [of_index.clone(), Condition::Equal(EPOCH, epoch)];
        let windows = store.distinct(WINDOW, &conditions).await?;
        let described = windows.len() as u64;
        let (first, last) = (windows.iter().min(), windows.iter().max());
        if let (Some(first), Some(last)) = (first, last) {
            counts.described += described;
            counts.missing += last.abs_diff(*first) + 1 - described;
        }
    }
    Ok(counts)
}
