//! Whether a decoder can run answers of different lengths side by side.

use crate::InferenceError;
use crate::vlm::Vlm;
use crate::vlm::cache::Cache;

/// Stands where a shorter row has no token: nothing that a decoder could overlook by chance.
const FILLING: f32 = 4.0;

/// Least cosine of the logits of the same answer alone and beside a longer one. Quantised models differ a little, since
/// they scale all rows of a run together; a decoder that reads the filling differs a lot.
const ALIKE: f32 = 0.9;

/// Exports with plain attention heed the attention mask; those with fused operators take each row from its start on and
/// would read what fills a shorter row. Nothing in a file's signature tells them apart, so it is tried.
pub(super) fn takes_mixed_lengths(model: &Vlm) -> Result<bool, InferenceError> {
    let layout = model.graph.cache_layout();
    let empty = Cache::empty(layout)?;
    let long = model.begin(&[3, 4, 5, 6, 7, 8], &empty, 0)?;
    let short = model.begin(&[9, 10], &empty, 0)?;
    let (token, position) = (11, short.next);
    let (alone, _) = model.step(&[token], &[position], &short.cache)?;
    let rows = [(&long.cache, 0), (&short.cache, 0)];
    let joined = Cache::joined(&rows, layout, FILLING)?;
    let (beside, _) = model.step(&[token, token], &[long.next, position], &joined)?;
    Ok(cosine(&alone[0], &beside[1]) > ALIKE)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}
