//! The three ONNX graphs of a model and the key-value cache that passes between decoder runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, DynValue, Outlet, TensorElementType, TensorRef};

use crate::vlm::VlmOptions;
use crate::{InferenceError, onnx};

pub(super) struct Graph {
    vision: Mutex<Session>,
    embed: Mutex<Session>,
    decoder: Mutex<Session>,
    tile_edge: usize,
    vision_mask: bool,
    position_ids: bool,
    hidden: usize,
    cache: Vec<CacheTensor>,
    paths: Vec<PathBuf>,
}

/// A tensor of the cache: the names under which the decoder takes and returns it.
struct CacheTensor {
    past: String,
    present: String,
    element: TensorElementType,
    heads: i64,
    head_size: i64,
}

/// Keys and values of the tokens that the decoder has seen.
pub(super) struct KvCache {
    tensors: Vec<DynValue>,
    tokens: usize,
}

impl KvCache {
    /// Number of tokens that it covers.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Graph {
    pub(super) fn load(
        directory: &Path,
        options: &VlmOptions,
        tile_edge: usize,
    ) -> Result<Self, InferenceError> {
        let file = |name: &str| {
            let candidates = options.precision.suffixes().iter();
            let mut candidates =
                candidates.map(|suffix| directory.join(format!("onnx/{name}{suffix}.onnx")));
            let first = candidates.next().expect("every precision has a suffix");
            if first.exists() {
                first
            } else {
                candidates.find(|f| f.exists()).unwrap_or(first)
            }
        };
        let files = [
            file("vision_encoder"),
            file("embed_tokens"),
            file("decoder_model_merged"),
        ];
        let vision = onnx::open_session(&files[0], options.threads)?;
        // One row of a table for each token: nothing to spread over threads.
        let embed = onnx::open_session(&files[1], 1)?;
        let decoder = onnx::open_session(&files[2], options.threads)?;
        check_vision(&vision, tile_edge)
            .map_err(|problem| InferenceError::unsupported(&files[0], problem))?;
        float(embed.outputs(), "inputs_embeds")
            .map_err(|problem| InferenceError::unsupported(&files[1], problem))?;
        let (hidden, cache) = check_decoder(&decoder)
            .map_err(|problem| InferenceError::unsupported(&files[2], problem))?;
        Ok(Self {
            tile_edge,
            vision_mask: outlet(vision.inputs(), "pixel_attention_mask").is_some(),
            position_ids: outlet(decoder.inputs(), "position_ids").is_some(),
            hidden,
            cache,
            vision: Mutex::new(vision),
            embed: Mutex::new(embed),
            decoder: Mutex::new(decoder),
            paths: files.into_iter().flat_map(with_external_data).collect(),
        })
    }

    /// The files loaded, in a fixed order.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Width of an embedding.
    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Runs the vision encoder on the `[3, edge, edge]` pixels of one tile; gives the rows of
    /// its tokens. One tile a run: more at once are no faster on a CPU and need more memory.
    pub(super) fn image_features(&self, pixels: Vec<f32>) -> Result<Vec<f32>, InferenceError> {
        let failed = |e: ort::Error| InferenceError::run("encoding an image", e);
        let edge = self.tile_edge;
        let mask = vec![true; edge * edge];
        let mut inputs = ort::inputs![
            "pixel_values" =>
                TensorRef::from_array_view(([1, 1, 3, edge, edge], &*pixels)).map_err(failed)?
        ];
        if self.vision_mask {
            let mask = TensorRef::from_array_view(([1, 1, edge, edge], &*mask)).map_err(failed)?;
            inputs.push(("pixel_attention_mask".into(), mask.into()));
        }
        let mut vision = lock(&self.vision);
        let outputs = vision.run(inputs).map_err(failed)?;
        let (_, features) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        Ok(features.to_vec())
    }

    /// One row of [`Self::hidden`] floats for each token.
    pub(super) fn embed(&self, ids: &[u32]) -> Result<Vec<f32>, InferenceError> {
        let failed = |e: ort::Error| InferenceError::run("embedding tokens", e);
        let ids: Vec<i64> = ids.iter().copied().map(i64::from).collect();
        let input = TensorRef::from_array_view(([1, ids.len()], &*ids)).map_err(failed)?;
        let mut embed = lock(&self.embed);
        let outputs = embed.run(ort::inputs![input]).map_err(failed)?;
        let (_, rows) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        Ok(rows.to_vec())
    }

    /// The cache before any token.
    pub(super) fn empty_cache(&self) -> Result<KvCache, InferenceError> {
        let allocator = Allocator::default();
        let empty = |tensor: &CacheTensor| {
            let shape = [1, tensor.heads, 0, tensor.head_size];
            DynTensor::new(&allocator, tensor.element, shape).map(DynTensor::into_dyn)
        };
        let tensors = self.cache.iter().map(empty).collect::<Result<_, _>>();
        let tensors = tensors.map_err(|e| InferenceError::run("making a cache", e))?;
        Ok(KvCache { tensors, tokens: 0 })
    }

    /// Runs the decoder on the rows of `embeds` after what `past` covers. Gives the logits after
    /// the last row, and the cache with the new tokens; `past` stays as it is.
    pub(super) fn decode(
        &self,
        embeds: &[f32],
        past: &KvCache,
    ) -> Result<(Vec<f32>, KvCache), InferenceError> {
        let failed = |e: ort::Error| InferenceError::run("decoding", e);
        let new = embeds.len() / self.hidden;
        let tokens = past.tokens + new;
        let attention = vec![1_i64; tokens];
        let positions: Vec<i64> = (past.tokens as i64..tokens as i64).collect();
        let embeds = TensorRef::from_array_view(([1, new, self.hidden], embeds)).map_err(failed)?;
        let attention = TensorRef::from_array_view(([1, tokens], &*attention)).map_err(failed)?;
        let mut inputs = ort::inputs!["inputs_embeds" => embeds, "attention_mask" => attention];
        if self.position_ids {
            let positions = TensorRef::from_array_view(([1, new], &*positions)).map_err(failed)?;
            inputs.push(("position_ids".into(), positions.into()));
        }
        for (name, tensor) in self.cache.iter().zip(&past.tensors) {
            inputs.push((name.past.as_str().into(), SessionInputValue::from(tensor)));
        }
        let mut decoder = lock(&self.decoder);
        let mut outputs = decoder.run(inputs).map_err(failed)?;
        let (shape, logits) = outputs["logits"]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        let vocabulary = shape.last().map_or(0, |&size| size as usize);
        let last = logits[logits.len().saturating_sub(vocabulary)..].to_vec();
        let present = |tensor: &CacheTensor| {
            outputs
                .remove(&tensor.present)
                .expect("checked when the model was loaded")
        };
        let tensors = self.cache.iter().map(present).collect();
        Ok((last, KvCache { tensors, tokens }))
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outlet<'a>(outlets: &'a [Outlet], name: &str) -> Option<&'a Outlet> {
    outlets.iter().find(|outlet| outlet.name() == name)
}

/// The shape of tensor `name` (-1 where it varies), which must hold 32 bit floats. All exports of
/// the family exchange those, whatever their weights are; only the cache may be in 16 bit.
fn float<'a>(outlets: &'a [Outlet], name: &str) -> Result<&'a [i64], String> {
    let outlet = outlet(outlets, name).ok_or_else(|| format!("it has no tensor {name}"))?;
    let kind = outlet.dtype();
    if kind.tensor_type() != Some(TensorElementType::Float32) {
        return Err(format!("its tensor {name} is {kind}, not 32 bit float"));
    }
    Ok(kind.tensor_shape().map_or(&[], |shape| shape))
}

fn check_vision(vision: &Session, tile_edge: usize) -> Result<(), String> {
    let shape = float(vision.inputs(), "pixel_values")?;
    let fits = |edge: &i64| *edge < 0 || *edge == tile_edge as i64;
    if shape.len() != 5 || !shape[3..].iter().all(fits) {
        return Err(format!(
            "pixel_values is {shape:?}, but preprocessor_config.json says [_, _, 3, {tile_edge}, \
             {tile_edge}]: take all files from one export"
        ));
    }
    float(vision.outputs(), "image_features").map(|_| ())
}

/// Width of the embeddings and the tensors of the cache.
fn check_decoder(decoder: &Session) -> Result<(usize, Vec<CacheTensor>), String> {
    let width = float(decoder.inputs(), "inputs_embeds")?
        .last()
        .copied()
        .unwrap_or(-1);
    let hidden = usize::try_from(width).map_err(|_| "inputs_embeds has no fixed width")?;
    float(decoder.outputs(), "logits")?;
    let mut cache = Vec::new();
    for input in decoder.inputs() {
        let Some(rest) = input.name().strip_prefix("past_key_values.") else {
            continue;
        };
        let present = format!("present.{rest}");
        if outlet(decoder.outputs(), &present).is_none() {
            return Err(format!("it has no output {present}"));
        }
        let shape = input.dtype().tensor_shape().map_or(&[][..], |shape| shape);
        let (Some(element), &[_, heads @ (1..), _, head_size @ (1..)]) =
            (input.dtype().tensor_type(), shape)
        else {
            return Err(format!(
                "{} is {}, not [_, heads, _, size]",
                input.name(),
                input.dtype()
            ));
        };
        let past = input.name().to_owned();
        cache.push(CacheTensor {
            past,
            present,
            element,
            heads,
            head_size,
        });
    }
    if cache.is_empty() {
        return Err("it takes no past_key_values; give the merged decoder".to_owned());
    }
    Ok((hidden, cache))
}

/// Large exports keep their weights in a second file.
fn with_external_data(file: PathBuf) -> Vec<PathBuf> {
    let mut data = file.clone().into_os_string();
    data.push("_data");
    let data = PathBuf::from(data);
    if data.exists() {
        vec![file, data]
    } else {
        vec![file]
    }
}
