//! Counting an index's windows or batches from the values in the store, without reading its records.

use sightline_proto::internal::RecordKind;

use crate::payload::{EPOCH, INDEX, KIND, WINDOW};
use crate::query::{Condition, Scan};
use crate::{VectorError, WindowCounts};

/// Counts the windows of an index, epoch by epoch: window numbers start again at 0 with each.
pub(crate) async fn count(store: &impl Scan, index_id: &str) -> Result<WindowCounts, VectorError> {
    let of_index = Condition::OneOf(INDEX, vec![index_id.to_owned()]);
    let kinds = store
        .distinct(KIND, std::slice::from_ref(&of_index))
        .await?;
    let are_batches = kinds.contains(&i64::from(i32::from(RecordKind::AudioScene)));
    let epochs = store
        .distinct(EPOCH, std::slice::from_ref(&of_index))
        .await?;
    let mut counts = WindowCounts::default();
    for epoch in epochs {
        let conditions = [of_index.clone(), Condition::In(EPOCH, vec![epoch])];
        let windows = store.distinct(WINDOW, &conditions).await?;
        let described = windows.len() as u64;
        let (first, last) = (windows.iter().min(), windows.iter().max());
        if let (Some(first), Some(last)) = (first, last) {
            counts.described += described;
            if !are_batches {
                counts.missing += last.abs_diff(*first) + 1 - described;
            }
        }
    }
    Ok(counts)
}
