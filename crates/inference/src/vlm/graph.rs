//! The three ONNX graphs of a model: pictures to features, tokens to embeddings, embeddings to logits.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, TensorRef};

use crate::onnx::{self, Memory};
use crate::vlm::cache::{Cache, CacheTensor};
use crate::vlm::family::Family;
use crate::vlm::{VlmOptions, fuse, heap, weights};
use crate::{InferenceError, Placed};

/// A tensor for the vision encoder.
pub(super) enum Input {
    F32(Vec<usize>, Vec<f32>),
    I64(Vec<usize>, Vec<i64>),
    Bool(Vec<usize>, Vec<bool>),
}

/// Tokens to run the decoder on: the same number for each row of a cache.
pub(super) struct Tokens<'a> {
    /// One embedding for each token, row after row.
    pub(super) embeds: &'a [f32],
    /// Position of each token on each axis, row after row.
    pub(super) positions: &'a [Vec<i64>],
}

pub(super) struct Graph {
    vision: Mutex<Session>,
    embed: Mutex<Session>,
    decoder: Mutex<Session>,
    vision_inputs: Vec<String>,
    /// On how many axes the decoder counts positions; 0 if it takes none.
    axes: usize,
    hidden: usize,
    vocabulary: usize,
    cache: Vec<CacheTensor>,
    paths: Vec<PathBuf>,
}

impl Graph {
    /// Loads the graphs of `directory`; the vision encoder must take the family's pixels.
    pub(super) fn load(
        directory: &Path,
        options: &VlmOptions,
        family: &dyn Family,
    ) -> Result<Self, InferenceError> {
        let files = ["vision_encoder", "embed_tokens", "decoder_model_merged"]
            .map(|name| weights::file(directory, name, options.precision));
        let paths = weights::checked(&files)?;
        // The largest first: while it is loaded there are copies of it, and nothing else yet.
        let decoder =
            onnx::open_session(&files[2], options.device, options.threads, Memory::Returned)?;
        heap::give_back();
        let vision = open_vision(&files[0], options, family.shows_whole_pictures())?;
        heap::give_back();
        // One row of a table for each token: nothing to spread over threads.
        let embed = onnx::open_session(&files[1], options.device, 1, Memory::Returned)?;
        heap::give_back();
        check_vision(&vision, &family.pixel_shape())
            .map_err(|problem| InferenceError::unsupported(&files[0], problem))?;
        let width = float(embed.outputs(), "inputs_embeds")
            .map_err(|problem| InferenceError::unsupported(&files[1], problem))?;
        let decoding = check_decoder(&decoder)
            .map_err(|problem| InferenceError::unsupported(&files[2], problem))?;
        if let Some(&width) = width.last()
            && width >= 0
            && width as usize != decoding.hidden
        {
            let problem = format!(
                "its embeddings are {width} wide, those of the decoder {}: take all files from one export",
                decoding.hidden
            );
            return Err(InferenceError::unsupported(&files[1], problem));
        }
        let names = vision.inputs().iter().map(|input| input.name().to_owned());
        Ok(Self {
            vision_inputs: names.collect(),
            axes: decoding.axes,
            hidden: decoding.hidden,
            vocabulary: decoding.vocabulary,
            cache: decoding.cache,
            vision: Mutex::new(vision),
            embed: Mutex::new(embed),
            decoder: Mutex::new(decoder),
            paths,
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

    /// Number of different tokens, if the decoder says it.
    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// What the decoder's cache is made of.
    pub(super) fn cache_layout(&self) -> &[CacheTensor] {
        &self.cache
    }

    /// Runs the vision encoder on one picture; gives the rows of its tokens. One picture a run: more at once are no
    /// faster on a CPU and need more memory.
    pub(super) fn image_features(
        &self,
        given: Vec<(&'static str, Input)>,
    ) -> Result<Vec<f32>, InferenceError> {
        let failed = |e: ort::Error| InferenceError::run("encoding an image", e);
        let mut inputs = Vec::new();
        for (name, input) in given {
            if self.vision_inputs.iter().any(|known| known == name) {
                inputs.push((name, input.value().map_err(failed)?));
            }
        }
        let options = onnx::giving_back().map_err(failed)?;
        let mut vision = lock(&self.vision);
        let outputs = vision.run_with_options(inputs, &options).map_err(failed)?;
        let features = outputs["image_features"].try_extract_tensor::<f32>();
        Ok(features.map_err(failed)?.1.to_vec())
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

    /// Runs the decoder on `tokens` after what each row of `past` covers. Gives each row's logits after its last
    /// token, and the cache with the new tokens; `past` stays as it is.
    pub(super) fn decode(
        &self,
        tokens: &Tokens<'_>,
        past: &Cache,
    ) -> Result<(Vec<Vec<f32>>, Cache), InferenceError> {
        let failed = |e: ort::Error| InferenceError::run("decoding", e);
        let rows = past.rows();
        let new = tokens.embeds.len() / self.hidden / rows;
        let masks = past.masks_with(new);
        let attention: Vec<i64> = masks.concat();
        let shape = [rows, new, self.hidden];
        let embeds = TensorRef::from_array_view((shape, tokens.embeds)).map_err(failed)?;
        let attention = TensorRef::from_array_view(([rows, past.width() + new], &*attention))
            .map_err(failed)?;
        let mut inputs = ort::inputs!["inputs_embeds" => embeds, "attention_mask" => attention];
        if self.axes > 0 {
            let positions = self.positions(tokens, rows, new).map_err(failed)?;
            inputs.push(("position_ids".into(), positions.into()));
        }
        for (name, tensor) in self.cache.iter().zip(past.tensors()) {
            inputs.push((name.past.as_str().into(), SessionInputValue::from(tensor)));
        }
        let mut decoder = lock(&self.decoder);
        let mut outputs = decoder.run(inputs).map_err(failed)?;
        let (shape, logits) = outputs["logits"]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        let vocabulary = shape.last().map_or(0, |&size| size as usize).max(1);
        // Some exports give the logits of every token, others those of the last one.
        let last = logits
            .chunks_exact((logits.len() / rows).max(1))
            .map(|row| row[row.len().saturating_sub(vocabulary)..].to_vec())
            .collect();
        let present = |tensor: &CacheTensor| -> DynValue {
            outputs
                .remove(&tensor.present)
                .expect("checked when the model was loaded")
        };
        let tensors = self.cache.iter().map(present).collect();
        Ok((last, Cache::new(tensors, masks)))
    }

    /// `[rows, new]` for one axis, `[axes, rows, new]` for several; a single given axis stands for all.
    fn positions(&self, tokens: &Tokens<'_>, rows: usize, new: usize) -> ort::Result<Tensor<i64>> {
        let axes = (0..self.axes).map(|axis| {
            let given = tokens.positions.get(axis).or(tokens.positions.first());
            given.map_or(&[][..], Vec::as_slice)
        });
        let values: Vec<i64> = axes.flatten().copied().collect();
        if self.axes == 1 {
            Tensor::from_array((vec![rows, new], values))
        } else {
            Tensor::from_array((vec![self.axes, rows, new], values))
        }
    }
}

impl Input {
    fn value(self) -> ort::Result<DynValue> {
        Ok(match self {
            Self::F32(shape, values) => Tensor::from_array((shape, values))?.into_dyn(),
            Self::I64(shape, values) => Tensor::from_array((shape, values))?.into_dyn(),
            Self::Bool(shape, values) => Tensor::from_array((shape, values))?.into_dyn(),
        })
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outlet<'a>(outlets: &'a [Outlet], name: &str) -> Option<&'a Outlet> {
    outlets.iter().find(|outlet| outlet.name() == name)
}

/// The shape of tensor `name` (-1 where it varies), which must hold 32 bit floats. All published exports
/// exchange those, whatever their weights are; only the cache may be in 16 bit.
fn float<'a>(outlets: &'a [Outlet], name: &str) -> Result<&'a [i64], String> {
    let outlet = outlet(outlets, name).ok_or_else(|| format!("it has no tensor {name}"))?;
    let kind = outlet.dtype();
    if kind.tensor_type() != Some(TensorElementType::Float32) {
        return Err(format!("its tensor {name} is {kind}, not 32 bit float"));
    }
    Ok(kind.tensor_shape().map_or(&[], |shape| shape))
}

/// Opens the vision encoder, fused where it computes on the CPU: other devices have fusions of their own. It is read
/// into memory for that, so one of gigabytes is left as it is, as one with half precision is.
fn open_vision(
    file: &Path,
    options: &VlmOptions,
    whole_pictures: bool,
) -> Result<Session, InferenceError> {
    const MOST: u64 = 1 << 30;
    let (device, threads) = (options.device, options.threads);
    let is_small = std::fs::metadata(file).is_ok_and(|about| about.len() <= MOST);
    let read = || Some(std::fs::read(file).ok()?.into());
    let fused = (device == Placed::Cpu && whole_pictures && is_small)
        .then(read)
        .flatten()
        .and_then(fuse::fused);
    match fused {
        Some(model) => onnx::open_rewritten(file, &model, device, threads, Memory::Kept),
        None => onnx::open_session(file, device, threads, Memory::Kept),
    }
}

fn check_vision(vision: &Session, wanted: &[i64]) -> Result<(), String> {
    let shape = float(vision.inputs(), "pixel_values")?;
    let fits = |(found, wanted): (&i64, &i64)| *found < 0 || *wanted < 0 || found == wanted;
    if shape.len() != wanted.len() || !shape.iter().zip(wanted).all(fits) {
        return Err(format!(
            "pixel_values is {shape:?}, but preprocessor_config.json says {wanted:?} (-1 is any): take all files \
             from one export"
        ));
    }
    float(vision.outputs(), "image_features").map(|_| ())
}

struct Decoding {
    hidden: usize,
    vocabulary: usize,
    axes: usize,
    cache: Vec<CacheTensor>,
}

/// Widths, positions and the tensors of the cache.
fn check_decoder(decoder: &Session) -> Result<Decoding, String> {
    let width = float(decoder.inputs(), "inputs_embeds")?;
    let width = width.last().copied().unwrap_or(-1);
    let hidden = usize::try_from(width).map_err(|_| "inputs_embeds has no fixed width")?;
    let logits = float(decoder.outputs(), "logits")?;
    let vocabulary = logits.last().map_or(0, |&size| size.max(0) as usize);
    let axes = match outlet(decoder.inputs(), "position_ids") {
        None => 0,
        Some(input) => match input.dtype().tensor_shape().map_or(&[][..], |shape| shape) {
            [_, _] => 1,
            &[axes @ 1..=8, _, _] => axes as usize,
            shape => {
                return Err(format!(
                    "position_ids is {shape:?}, not [_, _] or [3, _, _]"
                ));
            }
        },
    };
    let mut cache = Vec::new();
    for input in decoder.inputs() {
        if let Some(rest) = input.name().strip_prefix("past_key_values.") {
            cache.push(cache_tensor(decoder, input, rest)?);
        }
    }
    if cache.is_empty() {
        return Err("it takes no past_key_values; give the merged decoder".to_owned());
    }
    Ok(Decoding {
        hidden,
        vocabulary,
        axes,
        cache,
    })
}

fn cache_tensor(decoder: &Session, input: &Outlet, rest: &str) -> Result<CacheTensor, String> {
    let present = format!("present.{rest}");
    if outlet(decoder.outputs(), &present).is_none() {
        return Err(format!("it has no output {present}"));
    }
    let shape = input.dtype().tensor_shape().map_or(&[][..], |shape| shape);
    let (Some(element @ (TensorElementType::Float32 | TensorElementType::Float16)), shape) =
        (input.dtype().tensor_type(), shape)
    else {
        return Err(format!(
            "{} is {}, not of floats",
            input.name(),
            input.dtype()
        ));
    };
    let &[_, heads @ (1..), _, head_size @ (1..)] = shape else {
        return Err(format!(
            "{} is {}, not [_, heads, _, size]",
            input.name(),
            input.dtype()
        ));
    };
    Ok(CacheTensor {
        past: input.name().to_owned(),
        present,
        element,
        heads: heads as usize,
        head_size: head_size as usize,
    })
}
