"""Checkpoint -> Hugging Face model folder with the three ONNX files of SmolVLM-256M-Instruct.

    python export.py CHECKPOINT MODEL_DIR

MODEL_DIR already holds the tokenizer and processor files (tokbuild.py).  Writes config.json,
model.safetensors, onnx/{vision_encoder,embed_tokens,decoder_model_merged}.onnx and *_quantized.onnx
(dynamic int8), and checks the fp32 files against PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from torch import nn
from transformers import Idefics3ForConditionalGeneration

from config import IMAGE_SIZE, PATCH, SCALE, model_config
from runtime import Runtime


class VisionEncoder(nn.Module):
    """pixel_values [batch, images, 3, h, w] and mask [batch, images, h, w] -> [real images, tokens, text width]."""

    def __init__(self, vlm):
        super().__init__()
        self.v, self.c = vlm.model.vision_model, vlm.model.connector

    def forward(self, pixel_values, pixel_attention_mask):
        """Image tokens of the real images, one after another."""
        x = pixel_values.flatten(0, 1)
        mask = pixel_attention_mask.flatten(0, 1)
        real = (x != 0).flatten(1).any(1)  # images that are all zero are padding
        keep = real.nonzero().squeeze(1)
        x, mask = x.index_select(0, keep), mask.index_select(0, keep)
        patches = F.max_pool2d(mask.float()[:, None], PATCH, PATCH)[:, 0] > 0
        e = self.v.embeddings
        n = e.num_patches_per_side
        # position of every patch: its place among the valid ones, scaled to the position grid
        rows, cols = patches[:, :, 0].sum(1, keepdim=True), patches[:, 0, :].sum(1, keepdim=True)
        k = torch.arange(n, dtype=torch.float32)[None]
        py = torch.clamp(torch.floor(k * n / rows.clamp(min=1) + 1e-4), max=n - 1).long()
        px = torch.clamp(torch.floor(k * n / cols.clamp(min=1) + 1e-4), max=n - 1).long()
        pos = (py[:, :, None] * n + px[:, None, :]).flatten(1)
        flat = patches.flatten(1)
        pos = torch.where(flat, pos, torch.zeros_like(pos))
        h = e.patch_embedding(x).flatten(2).transpose(1, 2) + e.position_embedding(pos)
        bias = (~flat).float()[:, None, None, :] * -1e9
        for layer in self.v.encoder.layers:
            a = layer.self_attn
            y = layer.layer_norm1(h)
            q, kk, v = (
                p(y).unflatten(-1, (a.num_heads, a.head_dim)).transpose(1, 2)
                for p in (a.q_proj, a.k_proj, a.v_proj)
            )
            w = torch.softmax(q @ kk.transpose(-1, -2) * a.scale + bias, -1)
            h = h + a.out_proj((w @ v).transpose(1, 2).flatten(2))
            h = h + layer.mlp(layer.layer_norm2(h))
        h = self.v.post_layernorm(h)
        s, g = SCALE, n // SCALE  # pixel shuffle
        h = (
            h.view(-1, g, s, g, s * h.shape[-1])
            .transpose(2, 3)
            .reshape(-1, g * g, s * s * h.shape[-1])
        )
        return self.c.modality_projection(h)


class Decoder(nn.Module):
    """The Llama decoder with its key/value cache as plain tensors."""

    def __init__(self, vlm):
        super().__init__()
        self.t, self.head = vlm.model.text_model, vlm.lm_head
        c = vlm.config.text_config
        self.heads, self.kv, self.dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.register_buffer("inv_freq", self.t.rotary_emb.inv_freq.float().clone())

    def norm(self, m, x):
        """RMS norm, written out for the export."""
        return m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon))

    def forward(self, inputs_embeds, attention_mask, position_ids, *past):
        """Logits, then every layer's key and value including the past ones."""
        h = inputs_embeds
        total, seq = attention_mask.shape[1], inputs_embeds.shape[1]
        kpos = torch.arange(total)
        qpos = kpos[total - seq :]
        ok = (kpos[None, :] <= qpos[:, None])[None, None] & (attention_mask[:, None, None, :] > 0)
        bias = torch.where(ok, 0.0, -1e9)
        ang = position_ids[..., None].float() * self.inv_freq
        ang = torch.cat([ang, ang], -1)[:, None]
        cos, sin = ang.cos(), ang.sin()

        def rope(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        present = []
        for i, layer in enumerate(self.t.layers):
            a = layer.self_attn
            y = self.norm(layer.input_layernorm, h)
            q = rope(a.q_proj(y).unflatten(-1, (self.heads, self.dim)).transpose(1, 2))
            k = rope(a.k_proj(y).unflatten(-1, (self.kv, self.dim)).transpose(1, 2))
            v = a.v_proj(y).unflatten(-1, (self.kv, self.dim)).transpose(1, 2)
            k, v = torch.cat([past[2 * i], k], 2), torch.cat([past[2 * i + 1], v], 2)
            present += [k, v]
            rep = self.heads // self.kv
            q = q.unflatten(1, (self.kv, rep))
            w = torch.softmax(
                q @ k[:, :, None].transpose(-1, -2) * self.dim**-0.5 + bias[:, None], -1
            )
            h = h + a.o_proj((w @ v[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2))
            y = self.norm(layer.post_attention_layernorm, h)
            h = h + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
        return (self.head(self.norm(self.t.norm, h)), *present)


class Embed(nn.Module):
    """Token ids to embeddings."""

    def __init__(self, vlm):
        super().__init__()
        self.e = vlm.get_input_embeddings()

    def forward(self, input_ids):
        """[batch, tokens] ids to [batch, tokens, width]."""
        return self.e(input_ids)


def load(path, tok) -> Idefics3ForConditionalGeneration:
    """The model of a training checkpoint, without the auxiliary heads."""
    vlm = Idefics3ForConditionalGeneration(model_config(tok))
    state = torch.load(path, map_location="cpu")["model"]
    vlm.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("vlm.")})
    return vlm.eval()


def config_json(vlm) -> dict:
    """config.json with the keys of SmolVLM-256M-Instruct's."""
    t, v = vlm.config.text_config, vlm.config.vision_config
    ids = {
        "bos_token_id": t.bos_token_id,
        "eos_token_id": t.eos_token_id,
        "pad_token_id": t.pad_token_id,
    }
    js = {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}
    return {
        "architectures": ["Idefics3ForConditionalGeneration"],
        **ids,
        "image_token_id": vlm.config.image_token_id,
        "model_type": "idefics3",
        "scale_factor": vlm.config.scale_factor,
        "text_config": {
            "_name_or_path": "None",
            "architectures": ["VLlama3ForCausalLM"],
            **ids,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": t.head_dim,
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "is_llama_config": True,
            "max_position_embeddings": t.max_position_embeddings,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "pixel_shuffle_factor": vlm.config.scale_factor,
            "qk_layer_norms": False,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_interleaved": False,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "transformers.js_config": js,
            "use_cache": True,
            "use_resampler": False,
            "vocab_size": t.vocab_size,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers.js_config": js,
        "transformers_version": "4.46.0",
        "use_cache": True,
        "vision_config": {
            "attention_dropout": 0.0,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": v.hidden_size,
            "image_size": v.image_size,
            "initializer_range": 0.02,
            "intermediate_size": v.intermediate_size,
            "layer_norm_eps": 1e-6,
            "max_image_size": {"longest_edge": v.image_size},
            "model_type": "idefics3",
            "num_attention_heads": v.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": v.num_hidden_layers,
            "patch_size": v.patch_size,
            "size": {"longest_edge": 640},
            "tie_word_embeddings": False,
            "use_base_siglip": False,
        },
        "vocab_size": t.vocab_size,
    }


def export_onnx(vlm, out):
    """Writes the three fp32 ONNX files."""
    c = vlm.config.text_config
    L, kv, hd = c.num_hidden_layers, c.num_key_value_heads, c.head_dim
    opts = {"opset_version": 17, "do_constant_folding": True, "dynamo": False}
    px = torch.randn(1, 2, 3, IMAGE_SIZE, IMAGE_SIZE)
    pm = torch.ones(1, 2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    im = {0: "batch_size", 1: "num_images"}
    with torch.no_grad():
        torch.onnx.export(
            VisionEncoder(vlm).eval(),
            (px, pm),
            f"{out}/onnx/vision_encoder.onnx",
            input_names=["pixel_values", "pixel_attention_mask"],
            output_names=["image_features"],
            dynamic_axes={
                "pixel_values": im,
                "pixel_attention_mask": im,
                "image_features": {0: "num_image_features"},
            },
            **opts,
        )
        torch.onnx.export(
            Embed(vlm).eval(),
            (torch.ones(1, 3, dtype=torch.long),),
            f"{out}/onnx/embed_tokens.onnx",
            input_names=["input_ids"],
            output_names=["inputs_embeds"],
            dynamic_axes={
                k: {0: "batch_size", 1: "sequence_length"} for k in ("input_ids", "inputs_embeds")
            },
            **opts,
        )
        past = [torch.randn(1, kv, 5, hd) for _ in range(2 * L)]
        pn = [f"past_key_values.{i}.{k}" for i in range(L) for k in ("key", "value")]
        qn = [f"present.{i}.{k}" for i in range(L) for k in ("key", "value")]
        axes = {
            "inputs_embeds": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
            "position_ids": {0: "batch_size", 1: "sequence_length"},
            "logits": {0: "batch_size", 1: "sequence_length"},
            **{n: {0: "batch_size", 2: "past_sequence_length"} for n in pn},
            **{n: {0: "batch_size", 2: "total_sequence_length"} for n in qn},
        }
        torch.onnx.export(
            Decoder(vlm).eval(),
            (
                torch.randn(1, 4, c.hidden_size),
                torch.ones(1, 9, dtype=torch.long),
                torch.arange(5, 9)[None],
                *past,
            ),
            f"{out}/onnx/decoder_model_merged.onnx",
            input_names=["inputs_embeds", "attention_mask", "position_ids"] + pn,
            output_names=["logits"] + qn,
            dynamic_axes=axes,
            **opts,
        )


def quantise(out):
    """Checks the fp32 files and writes their dynamically quantised int8 copies."""
    for name in ("vision_encoder", "embed_tokens", "decoder_model_merged"):
        p = f"{out}/onnx/{name}.onnx"
        onnx.checker.check_model(p)
        quantize_dynamic(
            p,
            f"{out}/onnx/{name}_quantized.onnx",
            weight_type=QuantType.QInt8,
            per_channel=name != "embed_tokens",
            op_types_to_quantize=["MatMul", "Gather"] if name == "embed_tokens" else ["MatMul"],
        )


def parity(vlm, out):
    """Prints the largest differences between the exported files and PyTorch."""
    model = Runtime(out)
    torch.manual_seed(0)
    px = torch.randn(2, 2, 3, IMAGE_SIZE, IMAGE_SIZE)
    px[1, 1] = 0  # a padding image
    pm = torch.ones(2, 2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    pm[0, 1, 112:] = False
    with torch.no_grad():
        ref = torch.cat(vlm.model.get_image_features(px, pm).pooler_output).numpy()
    got = model.vision.run(None, {"pixel_values": px.numpy(), "pixel_attention_mask": pm.numpy()})[
        0
    ]
    print("vision", got.shape, "max difference", np.abs(ref - got.reshape(ref.shape)).max())
    ids = torch.randint(5, 300, (2, 11))
    am = torch.ones(2, 11, dtype=torch.long)
    am[1, :3] = 0
    posn = (am.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        ref = vlm(input_ids=ids, attention_mask=am, position_ids=posn).logits.numpy()
    emb = model.embed.run(None, {"input_ids": ids.numpy()})[0]
    mask, posn = am.numpy(), posn.numpy()
    first, past = model.step(emb[:, :7], mask[:, :7], posn[:, :7], model.empty_past(batch=2))
    second, _ = model.step(emb[:, 7:], mask, posn[:, 7:], past)
    got = np.concatenate([first, second], 1)
    ok = am.numpy() > 0
    print(
        "decoder (in two steps, with left padding)",
        got.shape,
        "max difference",
        np.abs(ref - got)[ok].max(),
    )


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("model_dir")
    a = ap.parse_args()
    out = a.model_dir
    torch.set_num_threads(1)
    vlm = load(a.checkpoint, Tokenizer.from_file(f"{out}/tokenizer.json"))
    vlm.save_pretrained(out)
    os.makedirs(f"{out}/onnx", exist_ok=True)
    with open(f"{out}/config.json", "w") as f:
        json.dump(config_json(vlm), f, indent=2)
        f.write("\n")
    export_onnx(vlm, out)
    quantise(out)
    parity(vlm, out)
    for f in sorted(os.listdir(f"{out}/onnx")):
        print(f, os.path.getsize(f"{out}/onnx/{f}"))


if __name__ == "__main__":
    main()
