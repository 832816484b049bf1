//! Keys and values of the tokens that the decoder has seen, for one or several sequences side by side.

use half::f16;
use ort::memory::Allocator;
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, Tensor, TensorElementType};

use crate::InferenceError;

/// A tensor of the cache: the names under which the decoder takes and returns it.
pub(super) struct CacheTensor {
    pub(super) past: String,
    pub(super) present: String,
    pub(super) element: TensorElementType,
    pub(super) heads: usize,
    pub(super) head_size: usize,
}

/// A cache of several rows, all of the same width. Where a row has no token its mask is 0.
pub(super) struct Cache {
    tensors: Vec<DynValue>,
    masks: Vec<Vec<i64>>,
}

impl Cache {
    pub(super) fn new(tensors: Vec<DynValue>, masks: Vec<Vec<i64>>) -> Self {
        Self { tensors, masks }
    }

    /// The cache of one sequence before any token.
    pub(super) fn empty(layout: &[CacheTensor]) -> Result<Self, InferenceError> {
        let allocator = Allocator::default();
        let empty = |tensor: &CacheTensor| {
            let shape = [1, tensor.heads, 0, tensor.head_size];
            DynTensor::new(&allocator, tensor.element, shape).map(DynTensor::into_dyn)
        };
        let tensors = layout.iter().map(empty).collect::<Result<_, _>>();
        let tensors = tensors.map_err(failed)?;
        Ok(Self::new(tensors, vec![Vec::new()]))
    }

    /// Number of sequences.
    pub(super) fn rows(&self) -> usize {
        self.masks.len()
    }

    /// Places of each row, those without a token included.
    pub(super) fn width(&self) -> usize {
        self.masks.first().map_or(0, Vec::len)
    }

    /// Width of a row without what is empty before its first token.
    pub(super) fn used(&self, row: usize) -> usize {
        let mask = &self.masks[row];
        mask.len() - mask.iter().position(|&m| m != 0).unwrap_or(mask.len())
    }

    pub(super) fn tensors(&self) -> &[DynValue] {
        &self.tensors
    }

    /// The attention mask with `new` tokens behind each row.
    pub(super) fn masks_with(&self, new: usize) -> Vec<Vec<i64>> {
        let grown = |mask: &Vec<i64>| {
            let mut mask = mask.clone();
            mask.extend(std::iter::repeat_n(1, new));
            mask
        };
        self.masks.iter().map(grown).collect()
    }

    /// Rows of several caches in one, shorter ones with `filling` before their first token.
    pub(super) fn joined(
        rows: &[(&Cache, usize)],
        layout: &[CacheTensor],
        filling: f32,
    ) -> Result<Self, InferenceError> {
        let width = rows.iter().map(|(c, row)| c.used(*row)).max().unwrap_or(0);
        let join = |(index, tensor): (usize, &CacheTensor)| match tensor.element {
            TensorElementType::Float16 => {
                joined_tensor(rows, index, tensor, width, f16::from_f32(filling))
            }
            _ => joined_tensor(rows, index, tensor, width, filling),
        };
        let tensors = layout.iter().enumerate().map(join);
        let tensors = tensors.collect::<ort::Result<_>>().map_err(failed)?;
        let mask = |(cache, row): &(&Cache, usize)| {
            let used = cache.used(*row);
            let mut mask = vec![0; width - used];
            mask.extend(&cache.masks[*row][cache.width() - used..]);
            mask
        };
        Ok(Self::new(tensors, rows.iter().map(mask).collect()))
    }
}

fn joined_tensor<T: PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static>(
    rows: &[(&Cache, usize)],
    index: usize,
    tensor: &CacheTensor,
    width: usize,
    filling: T,
) -> ort::Result<DynValue> {
    let (heads, size) = (tensor.heads, tensor.head_size);
    let shape = [rows.len(), heads, width, size];
    let mut values = Vec::with_capacity(shape.iter().product());
    for &(cache, row) in rows {
        let (_, source) = cache.tensors[index].try_extract_tensor::<T>()?;
        let (from, used) = (cache.width(), cache.used(row));
        for head in 0..heads {
            let end = ((row * heads + head) * from + from) * size;
            values.extend(std::iter::repeat_n(filling, (width - used) * size));
            values.extend_from_slice(&source[end - used * size..end]);
        }
    }
    Ok(Tensor::from_array((shape, values))?.into_dyn())
}

fn failed(error: ort::Error) -> InferenceError {
    InferenceError::run("making a cache", error)
}
