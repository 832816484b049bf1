"""SmolVLM and SmolVLM2 (Idefics3's architecture) with random weights: files, ONNX export, golden answers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    GPT2TokenizerFast,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from common import NEW_TOKENS, digest, dump, export, frame, randomise, rounded, tokenizer

ROWS_AND_COLUMNS = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
# The published tokenizers have the first three at 0-2, the others from 49152 on.
LOW = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIGH = ["<global-img>", *ROWS_AND_COLUMNS, "<fake_token_around_image>", "<image>"]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# tile edge, scale, (vision width, layers, heads, inner), (text width, layers, heads, kv heads, inner), vocabulary, edges
SHAPES = {
    "smolvlm-256m": dict(tile=512, scale=4, vision=(768, 12, 12, 3072), text=(576, 30, 9, 3, 1536), vocabulary=49280, edge=2048),
    "smolvlm-500m": dict(tile=512, scale=4, vision=(768, 12, 12, 3072), text=(960, 32, 15, 5, 2560), vocabulary=49280, edge=2048),
    "smolvlm2-256m": dict(tile=512, scale=4, vision=(768, 12, 12, 3072), text=(576, 30, 9, 3, 1536), vocabulary=49280, edge=2048, video=512),
    "smolvlm2-2.2b": dict(tile=384, scale=3, vision=(1152, 27, 16, 4304), text=(2048, 24, 32, 32, 8192), vocabulary=49280, edge=1536, video=384, patch=14),
    "tiny-smolvlm": dict(tile=64, scale=2, vision=(24, 2, 2, 48), text=(48, 2, 3, 1, 64), vocabulary=480, edge=256),
    "tiny-smolvlm2": dict(tile=64, scale=2, vision=(24, 2, 2, 48), text=(48, 2, 3, 1, 64), vocabulary=480, edge=256, video=128),
}  # fmt: skip


class VisionEncoder(nn.Module):
    """pixel_values [batch, images, 3, h, w] and mask [batch, images, h, w] -> [real images, tokens, text width]."""

    def __init__(self, vlm):
        super().__init__()
        self.v, self.c = vlm.model.vision_model, vlm.model.connector
        self.scale = vlm.config.scale_factor

    def forward(self, pixel_values, pixel_attention_mask):
        """Image tokens of the real images, one after another."""
        x, mask = pixel_values.flatten(0, 1), pixel_attention_mask.flatten(0, 1)
        keep = (
            (x != 0).flatten(1).any(1).nonzero().squeeze(1)
        )  # images that are all zero are padding
        x, mask = x.index_select(0, keep), mask.index_select(0, keep)
        e = self.v.embeddings
        n, p = e.num_patches_per_side, e.patch_size
        patches = F.max_pool2d(mask.float()[:, None], p, p)[:, 0] > 0
        rows, cols = patches[:, :, 0].sum(1, keepdim=True), patches[:, 0, :].sum(1, keepdim=True)
        k = torch.arange(n, dtype=torch.float32)[None]
        py = torch.clamp(torch.floor(k * n / rows.clamp(min=1) + 1e-4), max=n - 1).long()
        px = torch.clamp(torch.floor(k * n / cols.clamp(min=1) + 1e-4), max=n - 1).long()
        flat = patches.flatten(1)
        position = (py[:, :, None] * n + px[:, None, :]).flatten(1)
        position = torch.where(flat, position, torch.zeros_like(position))
        h = e.patch_embedding(x).flatten(2).transpose(1, 2) + e.position_embedding(position)
        bias = (~flat).float()[:, None, None, :] * -1e9
        for layer in self.v.encoder.layers:
            a = layer.self_attn
            y = layer.layer_norm1(h)
            q, kk, v = (
                w(y).unflatten(-1, (a.num_heads, a.head_dim)).transpose(1, 2)
                for w in (a.q_proj, a.k_proj, a.v_proj)
            )
            w = torch.softmax(q @ kk.transpose(-1, -2) * a.scale + bias, -1)
            h = h + a.out_proj((w @ v).transpose(1, 2).flatten(2))
            h = h + layer.mlp(layer.layer_norm2(h))
        h = self.v.post_layernorm(h)
        s, g = self.scale, n // self.scale
        h = (
            h.view(-1, g, s, g, s * h.shape[-1])
            .transpose(2, 3)
            .reshape(-1, g * g, s * s * h.shape[-1])
        )
        return self.c.modality_projection(h)


class Decoder(nn.Module):
    """The Llama decoder with its cache as plain tensors."""

    def __init__(self, vlm):
        super().__init__()
        self.t, self.head = vlm.model.text_model, vlm.lm_head
        c = vlm.config.text_config
        self.heads, self.kv, self.dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.register_buffer("inv_freq", self.t.rotary_emb.inv_freq.float().clone())

    def norm(self, m, x):
        """RMS norm, written out for the export."""
        return m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon))

    def turns(self, position_ids):
        """Cosines and sines of every position."""
        angle = position_ids[..., None].float() * self.inv_freq
        angle = torch.cat([angle, angle], -1)[:, None]
        return angle.cos(), angle.sin()

    def forward(self, inputs_embeds, attention_mask, position_ids, *past):
        """Logits, then every layer's key and value including the past ones."""
        h = inputs_embeds
        total, new = attention_mask.shape[1], inputs_embeds.shape[1]
        key_at = torch.arange(total)
        query_at = key_at[total - new :]
        seen = (key_at[None, :] <= query_at[:, None])[None, None] & (
            attention_mask[:, None, None, :] > 0
        )
        bias = torch.where(seen, 0.0, -1e9)
        cos, sin = self.turns(position_ids)

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
            q = q.unflatten(1, (self.kv, self.heads // self.kv))
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


def files(out, shape, second, tok):
    """Writes tokenizer and processor files as SmolVLM-Instruct has them."""
    tokens = (shape["tile"] // shape.get("patch", 16)) ** 2 // shape["scale"] ** 2
    tok.save(f"{out}/tokenizer.json")
    named = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    kind = "SmolVLM" if second else "Idefics3"
    dump(
        f"{out}/tokenizer_config.json",
        {
            **named,
            "additional_special_tokens": [
                "<fake_token_around_image>",
                "<image>",
                "<end_of_utterance>",
            ],
            "model_max_length": 8192,
            "processor_class": f"{kind}Processor",
            "tokenizer_class": "GPT2Tokenizer",
        },
    )
    dump(f"{out}/chat_template.json", {"chat_template": TEMPLATE})
    dump(
        f"{out}/processor_config.json",
        {"image_seq_len": tokens, "processor_class": f"{kind}Processor"},
    )
    preprocessor = {
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": f"{kind}ImageProcessor",
        "max_image_size": {"longest_edge": shape["tile"]}, "processor_class": f"{kind}Processor", "resample": 1,
        "rescale_factor": 1 / 255, "size": {"longest_edge": shape["edge"]},
    }  # fmt: skip
    if second:
        preprocessor["video_sampling"] = {
            "fps": 1,
            "max_frames": 64,
            "video_size": {"longest_edge": shape["video"]},
        }
    dump(f"{out}/preprocessor_config.json", preprocessor)
    ids = {
        key.replace("_token", "_token_id"): tok.token_to_id(t)
        for key, t in named.items()
        if key != "unk_token"
    }
    dump(f"{out}/generation_config.json", ids)
    return tokens, named, ids, preprocessor


def configure(shape, second, tok, ids):
    """transformers' configuration of a shape."""
    width, layers, heads, kv, inner = shape["text"]
    vision, vision_layers, vision_heads, vision_inner = shape["vision"]
    config = SmolVLMConfig if second else Idefics3Config
    return config(
        image_token_id=tok.token_to_id("<image>"), scale_factor=shape["scale"], tie_word_embeddings=False, **ids,
        text_config={
            "model_type": "llama", "head_dim": width // heads, "hidden_size": width, "intermediate_size": inner,
            "max_position_embeddings": 8192, "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv,
            "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "vocab_size": shape["vocabulary"],
            "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, **ids,
        },
        vision_config={
            "model_type": "smolvlm_vision" if second else "idefics3_vision", "hidden_size": vision, "image_size": shape["tile"],
            "intermediate_size": vision_inner, "num_attention_heads": vision_heads, "num_hidden_layers": vision_layers,
            "patch_size": shape.get("patch", 16), "num_channels": 3, "hidden_act": "gelu_pytorch_tanh",
        },
    )  # fmt: skip


def graphs(vlm, shape, out):
    """Exports the three files."""
    c, tile = vlm.config.text_config, shape["tile"]
    px, mask = torch.randn(1, 2, 3, tile, tile), torch.ones(1, 2, tile, tile, dtype=torch.bool)
    images = {0: "batch_size", 1: "num_images"}
    tokens = {0: "batch_size", 1: "sequence_length"}
    export(
        VisionEncoder(vlm), (px, mask), out, "vision_encoder", ["pixel_values", "pixel_attention_mask"], ["image_features"],
        {"pixel_values": images, "pixel_attention_mask": images, "image_features": {0: "num_image_features"}},
    )  # fmt: skip
    export(
        Embed(vlm), (torch.ones(1, 3, dtype=torch.long),), out, "embed_tokens", ["input_ids"], ["inputs_embeds"],
        {"input_ids": tokens, "inputs_embeds": tokens},
    )  # fmt: skip
    decoder(Decoder(vlm), c, torch.arange(5, 9)[None], tokens, out)


def decoder(module, c, position_ids, position_axes, out):
    """Exports a decoder; also for other families with a cache of this form."""
    layers, kv = c.num_hidden_layers, c.num_key_value_heads
    size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    past = [torch.randn(1, kv, 5, size) for _ in range(2 * layers)]
    past_names = [f"past_key_values.{i}.{k}" for i in range(layers) for k in ("key", "value")]
    present = [f"present.{i}.{k}" for i in range(layers) for k in ("key", "value")]
    tokens = {0: "batch_size", 1: "sequence_length"}
    axes = {
        "inputs_embeds": tokens, "logits": tokens, "position_ids": position_axes,
        "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
        **{n: {0: "batch_size", 2: "past_sequence_length"} for n in past_names},
        **{n: {0: "batch_size", 2: "total_sequence_length"} for n in present},
    }  # fmt: skip
    export(
        module, (torch.randn(1, 4, c.hidden_size), torch.ones(1, 9, dtype=torch.long), position_ids, *past), out,
        "decoder_model_merged", ["inputs_embeds", "attention_mask", "position_ids", *past_names], ["logits", *present], axes,
    )  # fmt: skip


def make(name, out):
    """Writes a whole directory; gives what golden answers are made with."""
    shape = SHAPES[name]
    second, small = "video" in shape, shape["vocabulary"] < 1000
    end = shape["vocabulary"] - 1
    # <end_of_utterance> is the last row of the embedding, with reserved tokens before it.
    first = end - len(LOW + HIGH) if small else 49152
    special = [*LOW, *HIGH]
    special += [f"<reserved {i}>" for i in range(end - first - len(special))]
    tok = tokenizer([*special, "<end_of_utterance>"], first, True)
    tokens, named, ids, preprocessor = files(out, shape, second, tok)
    config = configure(shape, second, tok, ids)
    model = SmolVLMForConditionalGeneration if second else Idefics3ForConditionalGeneration
    torch.manual_seed(0)
    vlm = randomise(model(config))
    written = config.to_dict()
    written["text_config"]["rope_theta"] = 100000.0
    dump(f"{out}/config.json", written)
    graphs(vlm, shape, out)
    return vlm, processor(tok, named, tokens, preprocessor, second)


def processor(tok, named, tokens, preprocessor, second):
    """transformers' own processor, with Pillow's resampling: torchvision has no Lanczos."""
    fast = GPT2TokenizerFast(tokenizer_object=tok, **named)
    given = {k: v for k, v in preprocessor.items() if not k.endswith(("_type", "_class"))}
    if not second:
        return Idefics3Processor(
            Idefics3ImageProcessorPil(**given), fast, image_seq_len=tokens, chat_template=TEMPLATE
        )
    video = SmolVLMVideoProcessor(**given)
    images = SmolVLMImageProcessorPil(**given)
    return SmolVLMProcessor(images, fast, video, image_seq_len=tokens, chat_template=TEMPLATE)


# view, (width, height) of each frame, seconds, prompt
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
    ("tiles", [(640, 360)], 5.0, "Describe the scene"),
    ("tiles", [(360, 640)], 5.0, "Describe the scene"),
    ("tiles", [(100, 100), (90, 200)], 5.0, "Compare the two."),
    ("tiles", [(50, 33), (256, 256), (300, 100)], 5.0, "Describe the scene\nin two lines"),
    ("tiles", [(1000, 333)], 5.0, "Read the sign."),
]
VIDEO_CASES = [
    ("video", [(640, 360)], 5.0, "Describe the scene"),
    ("video", [(640, 360)] * 2, 130.0, "Describe the scene"),
    ("video", [(360, 640)] * 3, 2.0, "What is there?"),
    (
        "video",
        [(320, 240)] * 4,
        10.0,
        "Is this happening in the video: a dog is running? Answer yes or no.",
    ),
    ("video", [(123, 77)] * 5, 3725.0, "Was geschieht hier? 你好"),
]


def cases(name):
    """Ten inputs: for SmolVLM2 half of them in its video prompt."""
    return [*VIDEO_CASES, *CASES[1:3], *CASES[5:8]] if "video" in SHAPES[name] else CASES


def inputs(proc, view, frames, seconds, prompt):
    """What transformers' processor makes of a case."""
    words = {"type": "text", "text": prompt}
    if view != "video":
        content = [{"type": "image"}] * len(frames) + [words]
        text = proc.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return proc(
            text=text, images=[frames], return_tensors="pt", do_image_splitting=view == "tiles"
        )
    # Frames spread evenly over a video of so many seconds: the metadata that a decoder would have given.
    message = {"role": "user", "content": [{"type": "video"}, words]}
    text = proc.apply_chat_template([message], add_generation_prompt=True)
    fps = 1000.0
    taken = [int(round(seconds * fps * i / len(frames))) for i in range(len(frames))]
    metadata = {
        "fps": fps,
        "duration": seconds,
        "total_num_frames": int(seconds * fps),
        "frames_indices": taken,
    }
    video = torch.from_numpy(np.stack([np.asarray(f).transpose(2, 0, 1) for f in frames]))
    made = proc(
        text=text,
        videos=[video],
        video_metadata=[metadata],
        return_tensors="pt",
        do_sample_frames=False,
    )
    # The video processor's steps with Pillow's filter (torchvision has no Lanczos): to the video's edge, then to the tile.
    made["pixel_values"] = proc.image_processor(
        [frames],
        size={"longest_edge": proc.video_processor.size["longest_edge"]},
        do_image_splitting=False,
        return_tensors="pt",
    )["pixel_values"]
    made["pixel_attention_mask"] = torch.ones(
        made["pixel_values"].shape[:2] + made["pixel_values"].shape[3:], dtype=torch.long
    )
    return made


@torch.no_grad()
def golden(name, vlm, proc):
    """transformers' ids, pixels, logits and greedy answers of all cases."""
    made = []
    for view, sizes, seconds, prompt in cases(name):
        frames = [frame(i, *size) for i, size in enumerate(sizes)]
        x = inputs(proc, view, frames, seconds, prompt)
        fed = {
            k: x[k] for k in ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")
        }
        logits = vlm(**fed).logits[0, -1]
        answer = vlm.generate(**fed, max_new_tokens=NEW_TOKENS, do_sample=False)[
            0, fed["input_ids"].shape[1] :
        ]
        made.append(
            {
                "view": view, "sizes": sizes, "seconds": seconds, "prompt": prompt,
                "input_ids": fed["input_ids"][0].tolist(), "pixels": digest(fed["pixel_values"].numpy()),
                "logits": rounded(logits[:64]), "argmax": int(logits.argmax()), "output_ids": answer.tolist(),
            }
        )  # fmt: skip
        print(name, view, sizes, fed["input_ids"].shape[1], answer.tolist()[:4], flush=True)
    return made
