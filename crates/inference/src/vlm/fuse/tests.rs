//! What is fused computes the same, and what is no such model is left alone.

use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::value::Tensor as Value;

use super::*;
use crate::Placed;
use crate::onnx::{self, Memory};

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/demo-vlm/onnx/{name}.onnx"))
}

fn read(file: &Path) -> Bytes {
    std::fs::read(file)
        .expect("a file of the demo model")
        .into()
}

#[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
fn init_runtime() {
    let library = std::env::var_os("SIGHTLINE_ONNXRUNTIME").expect("run `make test`");
    onnx::init(Path::new(&library)).expect("the runtime loads");
}

fn count(model: &[u8], operators: &[&str]) -> usize {
    let model = Model::decode(model).expect("a model");
    let nodes = model.graph.expect("its graph").nodes;
    let counted = nodes.iter().filter(|n| operators.contains(&&*n.operator));
    counted.count()
}

fn features(mut session: Session, edge: usize) -> Vec<f32> {
    let pixels = (0..3 * edge * edge).map(|i| ((i * 37 % 255) as f32) / 127.5 - 1.0);
    let pixels = Value::from_array(([1, 1, 3, edge, edge], pixels.collect::<Vec<_>>()));
    let mask = Value::from_array(([1, 1, edge, edge], vec![true; edge * edge]));
    let (pixels, mask) = (pixels.expect("a tensor"), mask.expect("a tensor"));
    let inputs = ort::inputs!["pixel_values" => pixels, "pixel_attention_mask" => mask];
    let outputs = session.run(inputs).expect("it runs");
    let (_, features) = outputs[0].try_extract_tensor::<f32>().expect("features");
    features.to_vec()
}

#[test]
fn a_fused_encoder_gives_the_same_features() {
    init_runtime();
    let config = std::fs::read(demo("").with_file_name("../preprocessor_config.json"));
    let config: serde_json::Value =
        serde_json::from_slice(&config.expect("a file of the demo model")).expect("JSON");
    let edge = config["max_image_size"]["longest_edge"].as_u64();
    let edge = edge.expect("an edge") as usize;
    // Eight bits round differently where a value lies between two steps.
    for (name, tolerance) in [("vision_encoder", 1e-3), ("vision_encoder_quantized", 0.2)] {
        let file = demo(name);
        let model = fused(read(&file)).expect("it is fused");
        assert_eq!(count(&model, &["Tanh", "Softmax"]), 0, "{name}");
        let layers = count(&read(&file), &["Softmax"]);
        assert_eq!(
            count(&model, &["FastGelu", "MultiHeadAttention"]),
            2 * layers
        );

        let cpu = Placed::Cpu;
        let plain = onnx::open_session(&file, cpu, 1, Memory::Returned).expect("it opens");
        let fused = onnx::open_rewritten(&file, &model, cpu, 1, Memory::Returned);
        let (plain, fused) = (
            features(plain, edge),
            features(fused.expect("it opens"), edge),
        );
        let most = plain.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let apart = plain.iter().zip(&fused).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max) / most;
        assert!(
            plain.len() == fused.len() && apart < tolerance,
            "{name}: {apart}"
        );
    }
}

#[test]
fn what_is_no_such_model_is_left_alone() {
    let whole = read(&demo("vision_encoder_quantized"));
    let cuts = (1..8).map(|eighth| whole.slice(..whole.len() * eighth / 8));
    for other in cuts.chain([
        Bytes::new(),
        Bytes::from_static(b"not a model"),
        read(&demo("embed_tokens")),
        read(&demo("decoder_model_merged_quantized")),
    ]) {
        assert_eq!(fused(other.clone()), None, "of {} bytes", other.len());
    }
}
