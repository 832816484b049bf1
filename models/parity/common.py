"""What all families share: made-up frames, tokenizers, number formats, and the golden file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
NEW_TOKENS = 12
# Learned from by the tokenizers: fixed, so that models made later are the same.
TEXT = """A white car is moving fast to the left while two pedestrians are crossing the zebra. Behind them a red bus stands
still, and a dog is running on the sidewalk. Describe the scene. Describe what is happening and detect unusual behavior. Is this
happening in the video: someone enters the restricted area? Answer yes or no. You are provided the following series of three
frames from a 0:00:05 [H:MM:SS] video. Frame from 00:02: The traffic is congested; vehicles have stopped. Compare the
two images, count the people that can be seen, read the sign and say what there is. You are a helpful assistant. User: Assistant:
Was geschieht hier? Ein Auto steht auf der Strasse. 1234567890 (one, two, three, four, five)"""
logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)


def frame(index, width, height):
    """A frame that a program in another language can make too: integers only, smooth with edges."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    c = np.arange(3)[:, None, None]
    wave = (x * (3 + c) + y * (5 - c) + index * 40) // 4
    block = ((x // 24 + y // 17 + index) % 5) * 30
    values = (wave + block + c * 60 + (x * y) // 97) % 256
    return Image.fromarray(values.transpose(1, 2, 0).astype(np.uint8), "RGB")


def dump(path, value):
    """Writes `value` as JSON."""
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def tokenizer(special, at, digits):
    """A byte-level BPE learned from a little text; `special` tokens have the ids from `at` on.

    Where the learned vocabulary is smaller, as it is, tokens that no text can spell fill the room below.
    """
    tok = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tok.decoder = decoders.ByteLevel()
    texts = [TEXT] * 20 + ["Yes. No. Yes No"] * 100
    trainer = trainers.BpeTrainer(
        vocab_size=min(at, 2000),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    data = json.loads(tok.to_str())
    vocabulary = data["model"]["vocab"]
    for i in range(len(vocabulary), at):
        vocabulary[f"<unused {i}>"] = i
    tok = Tokenizer.from_str(json.dumps(data))
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    assert [tok.token_to_id(t) for t in special] == list(range(at, at + len(special)))
    return tok


def randomise(model, seed=0):
    """Weights large enough that different inputs give clearly different answers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1 and "bias" not in name:
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=generator))
            elif p.dim() == 1:
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
            else:
                fan = p[0].numel()
                scale = 1.0 if "embed" in name and "patch" not in name else 1.3 * fan**-0.5
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    return model.eval()


def export(module, arguments, out, name, inputs, outputs, axes):
    """Traces a module into `onnx/NAME.onnx` with its weights in `NAME.onnx_data`, as large models are published."""
    path = f"{out}/onnx/{name}.onnx"
    with torch.no_grad():
        torch.onnx.export(
            module.eval(),
            arguments,
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
            do_constant_folding=True,
            dynamo=False,
        )
    graph = onnx.load(path)
    for leftover in pathlib.Path(f"{out}/onnx").iterdir():
        if not leftover.name.endswith((".onnx", ".onnx_data")):
            leftover.unlink()
    pathlib.Path(path + "_data").unlink(missing_ok=True)
    onnx.save(
        graph, path, save_as_external_data=True, location=f"{name}.onnx_data", size_threshold=1024
    )


def precisions(out, wanted):
    """Writes the number formats of `wanted` beside the fp32 files, as transformers.js' scripts do."""
    for name in GRAPHS:
        source = f"{out}/onnx/{name}.onnx"
        if "int8" in wanted:
            quantize_dynamic(
                source,
                f"{out}/onnx/{name}_quantized.onnx",
                weight_type=QuantType.QInt8,
                per_channel=name != "embed_tokens",
                op_types_to_quantize=["Gather"] if name == "embed_tokens" else ["MatMul"],
                # A Constant of transposed weights is followed through by its shape.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        if "fp16" in wanted:
            half = onnx.load(source)
            # Only the cache is exchanged in 16 bit.
            kept = [v.name for v in [*half.graph.input, *half.graph.output]]
            kept = [n for n in kept if not n.startswith(("past_key_values", "present"))]
            half = convert_float_to_float16(half, keep_io_types=kept, disable_shape_infer=True)
            onnx.save(half, f"{out}/onnx/{name}_fp16.onnx")
        if "q4" in wanted:
            blocks = MatMulNBitsQuantizer(
                onnx.load(source), bits=4, block_size=32, is_symmetric=True, accuracy_level=4
            )
            blocks.process()
            blocks.model.save_model_to_file(f"{out}/onnx/{name}_q4.onnx")


def digest(pixels):
    """Digest of the 8 bit levels (channels first) that values were normalised from by mean = std = 0.5."""
    levels = np.rint((np.asarray(pixels, np.float64) + 1) * 127.5).astype(np.uint8)
    return hashlib.sha256(levels.tobytes()).hexdigest()


def rounded(values):
    """Floats short enough to be kept in a repository."""
    return [round(float(v), 4) for v in values]


def write_golden(out, note, cases):
    """Writes golden.json."""
    golden = {"note": note, "cases": cases}
    with open(os.path.join(out, "golden.json"), "w") as f:
        # One case a line: readable differences at a tenth of the size.
        lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in golden["cases"])
        f.write(f'{{"note": {json.dumps(note)},\n"cases": [\n{lines}\n]}}\n')
