"""Qwen2-VL with random weights: files, ONNX export as onnx-community publishes it, golden answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import (
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from common import NEW_TOKENS, digest, dump, export, frame, randomise, rounded, tokenizer
from smolvlm import Decoder as LlamaDecoder
from smolvlm import Embed, decoder

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
# What Qwen's own qwen_vl_utils allows a frame of a video.
VIDEO_PIXELS = 768 * 28 * 28
# (vision width, layers, heads), (text width, layers, heads, kv heads, inner), vocabulary, sections of the positions, pixels
SHAPES = {
    "qwen2-vl-2b": dict(vision=(1280, 32, 16), text=(1536, 28, 12, 2, 8960), vocabulary=151936, sections=[16, 24, 24], pixels=(3136, 12845056)),
    "tiny-qwen2-vl": dict(vision=(16, 2, 2), text=(32, 2, 2, 1, 48), vocabulary=420, sections=[2, 3, 3], pixels=(3136, 28 * 28 * 40)),
}  # fmt: skip


class VisionEncoder(nn.Module):
    """pixel_values [patches, 3 * 2 * 14 * 14] and image_grid_thw [1, 3] -> [tokens, text width]."""

    def __init__(self, vlm):
        super().__init__()
        self.v = vlm.model.visual
        self.merge = vlm.config.vision_config.spatial_merge_size
        self.register_buffer("inv_freq", self.v.rotary_pos_emb.inv_freq.float().clone())

    def forward(self, pixel_values, image_grid_thw):
        """Image tokens of one image."""
        weight = self.v.patch_embed.proj.weight
        h = pixel_values @ weight.reshape(weight.shape[0], -1).T
        m, columns = self.merge, image_grid_thw[0, 2]
        k = torch.arange(h.shape[0])
        block, inside, across = k // (m * m), k % (m * m), columns // m
        row = torch.div(block, across, rounding_mode="floor") * m + inside // m
        column = (block - torch.div(block, across, rounding_mode="floor") * across) * m + inside % m
        angle = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], -1)
        angle = torch.cat([angle, angle], -1)[None]
        cos, sin = angle.cos(), angle.sin()

        def rope(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        for block in self.v.blocks:
            a = block.attn
            q, k, v = a.qkv(block.norm1(h)).unflatten(-1, (3, a.num_heads, -1)).permute(1, 2, 0, 3)
            w = torch.softmax(rope(q) @ rope(k).transpose(-1, -2) * a.scaling, -1)
            h = h + a.proj((w @ v).transpose(0, 1).flatten(1))
            h = h + block.mlp(block.norm2(h))
        return self.v.merger(h)


class Decoder(LlamaDecoder):
    """Llama's decoder but for positions on three axes (time, row, column), each of which turns some of the frequencies."""

    def __init__(self, vlm):
        nn.Module.__init__(self)
        self.t, self.head = vlm.model.language_model, vlm.lm_head
        c = vlm.config.text_config
        self.heads, self.kv = c.num_attention_heads, c.num_key_value_heads
        self.dim = c.hidden_size // c.num_attention_heads
        self.sections = c.rope_parameters["mrope_section"]
        self.register_buffer("inv_freq", self.t.rotary_emb.inv_freq.float().clone())

    def turns(self, position_ids):
        """Cosines and sines of every position."""
        angle = position_ids[..., None].float() * self.inv_freq
        angle = torch.cat(
            [part[i % 3] for i, part in enumerate(angle.split(self.sections, -1))], -1
        )
        angle = torch.cat([angle, angle], -1)[:, None]
        return angle.cos(), angle.sin()


def make(name, out):
    """Writes a whole directory; gives what golden answers are made with."""
    shape = SHAPES[name]
    first = 151643 if shape["vocabulary"] > 1000 else shape["vocabulary"] - len(SPECIAL)
    tok = tokenizer(SPECIAL, first, True)
    tok.save(f"{out}/tokenizer.json")
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    dump(
        f"{out}/tokenizer_config.json",
        {
            **named,
            "model_max_length": 32768,
            "processor_class": "Qwen2VLProcessor",
            "tokenizer_class": "Qwen2Tokenizer",
        },
    )
    dump(f"{out}/chat_template.json", {"chat_template": TEMPLATE})
    smallest, largest = shape["pixels"]
    preprocessor = {
        "min_pixels": smallest, "max_pixels": largest, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": MEAN, "image_std": STD, "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
    }  # fmt: skip
    dump(f"{out}/preprocessor_config.json", preprocessor)
    ends = [tok.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>")]
    dump(
        f"{out}/generation_config.json",
        {"bos_token_id": ends[1], "pad_token_id": ends[1], "eos_token_id": ends},
    )
    width, layers, heads, kv, inner = shape["text"]
    vision, depth, vision_heads = shape["vision"]
    ids = {f"{n}_token_id": tok.token_to_id(f"<|{t}|>") for n, t in [("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end")]}  # fmt: skip
    text = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": inner, "vocab_size": shape["vocabulary"], "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": shape["sections"]},
        "bos_token_id": ends[1], "eos_token_id": ends[0],
    }  # fmt: skip
    vision_config = {
        "depth": depth,
        "embed_dim": vision,
        "num_heads": vision_heads,
        "hidden_size": width,
        "mlp_ratio": 4,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision_config, tie_word_embeddings=False, **ids
    )
    vlm = randomise(Qwen2VLForConditionalGeneration(config))
    # As published: the text model's numbers stand at the top.
    dump(
        f"{out}/config.json",
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            **ids,
            **text,
            "vision_config": {**vision_config, "spatial_merge_size": 2, "model_type": "qwen2_vl"},
        },
    )
    graphs(vlm, out)
    fast = Qwen2TokenizerFast(tokenizer_object=tok, **named)
    given = {k: v for k, v in preprocessor.items() if not k.endswith(("_type", "_class"))}
    images = Qwen2VLImageProcessorPil(**given)
    return vlm, Qwen2VLProcessor(images, fast, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)


def graphs(vlm, out):
    """Exports the three files."""
    tokens = {0: "batch_size", 1: "sequence_length"}
    export(
        VisionEncoder(vlm), (torch.randn(24, 1176), torch.tensor([[1, 4, 6]])), out, "vision_encoder",
        ["pixel_values", "image_grid_thw"], ["image_features"],
        {"pixel_values": {0: "num_patches"}, "image_grid_thw": {0: "num_images"}, "image_features": {0: "num_tokens"}},
    )  # fmt: skip
    export(
        Embed(vlm), (torch.ones(1, 3, dtype=torch.long),), out, "embed_tokens", ["input_ids"], ["inputs_embeds"],
        {"input_ids": tokens, "inputs_embeds": tokens},
    )  # fmt: skip
    positions = torch.arange(5, 9)[None, None].expand(3, 1, 4).contiguous()
    decoder(
        Decoder(vlm),
        vlm.config.text_config,
        positions,
        {1: "batch_size", 2: "sequence_length"},
        out,
    )


CASES = [
    ("images", [(640, 360)], 5.0, "Describe the scene"),
    (
        "images",
        [(360, 640)] * 2,
        5.0,
        "Is this happening in the video: a dog is running? Answer yes or no.",
    ),
    ("images", [(320, 240), (240, 320), (64, 64)], 6.0, "What is there?"),
    ("images", [(200, 150)] * 4, 8.0, "Count 12345 things, please."),
    ("images", [(128, 72)] * 5, 10.0, "Was geschieht hier? 你好"),
    ("images", [(30, 30)], 5.0, "Describe the scene"),
    ("images", [(1000, 333)], 5.0, "Read the sign."),
    ("video", [(640, 360)] * 3, 5.0, "Describe the scene\nin two lines"),
    ("video", [(42, 70)] * 2, 5.0, "Compare the two."),
    ("video", [(100, 500)], 5.0, "Describe the scene"),
]


def planes(values, grids, merge=2, size=14):
    """8 bit levels of each image, channels first, out of the patches that they were cut into."""
    levels, at = [], 0
    for _, rows, columns in grids:
        patches = values[at : at + rows * columns]
        at += rows * columns
        patches = patches.reshape(rows // merge, columns // merge, merge, merge, 3, 2, size, size)[
            :, :, :, :, :, 0
        ]
        image = patches.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * size, columns * size)
        image = image * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
        levels.append((image * 2 - 1).ravel())
    return np.concatenate(levels)


@torch.no_grad()
def golden(name, vlm, proc):
    """transformers' ids, pixels, logits and greedy answers of all cases."""
    made = []
    smallest, largest = SHAPES[name]["pixels"]
    for view, sizes, seconds, prompt in CASES:
        frames = [frame(i, *size) for i, size in enumerate(sizes)]
        content = [{"type": "image"}] * len(frames) + [{"type": "text", "text": prompt}]
        text = proc.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        limit = min(largest, VIDEO_PIXELS) if view == "video" else largest
        size = {"shortest_edge": smallest, "longest_edge": limit}
        x = proc(text=text, images=frames, return_tensors="pt", images_kwargs={"size": size})
        vlm.model.rope_deltas = None
        logits = vlm(**x).logits[0, -1]
        vlm.model.rope_deltas = None
        answer = vlm.generate(
            **x,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=[vlm.config.text_config.eos_token_id],
        )
        answer = answer[0, x["input_ids"].shape[1] :]
        pixels = planes(x["pixel_values"].numpy(), x["image_grid_thw"].tolist())
        made.append(
            {
                "view": view, "sizes": sizes, "seconds": seconds, "prompt": prompt,
                "input_ids": x["input_ids"][0].tolist(), "pixels": digest(pixels),
                "logits": rounded(logits[:64]), "argmax": int(logits.argmax()), "output_ids": answer.tolist(),
            }
        )  # fmt: skip
        print(name, view, sizes, x["input_ids"].shape[1], answer.tolist()[:4], flush=True)
    return made
