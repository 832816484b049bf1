"""Random models in llama.cpp's format, small enough to be made in a second: a language model and what lets it see and hear.

Their answers mean nothing but are the same every time, and words that matter to Sightline are the likely ones.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 128
CONTEXT = 2048
IMAGE, PATCH = 64, 8
MELS, STACK = 80, 4
WORDS = ["Yes", "No", "yes", "no", "car", "street", "person", "red", "walks"]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def ones(width: int) -> np.ndarray:
    return np.ones(width, dtype=np.float32)


def vocabulary(writer: GGUFWriter) -> list[str]:
    """Every byte, and the words with and without the space before them."""
    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    bytes_ = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    words = [(mark + word, TokenType.NORMAL) for word in WORDS for mark in ("", "▁")]
    letters = [(chr(code), TokenType.NORMAL) for code in range(33, 127)] + [("▁", TokenType.NORMAL)]
    tokens = special + bytes_ + words + letters
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_scores([float(len(token)) if kind == TokenType.NORMAL else -1e3 for token, kind in tokens])
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    return [token for token, _ in tokens]


def language(path: Path) -> None:
    random = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    tokens = vocabulary(writer)
    writer.add_vocab_size(len(tokens))
    # The first number of every state stays large, and raises the words above all other tokens.
    embeddings = numbers(random, len(tokens), WIDTH)
    embeddings[:, 0] = 1
    output = numbers(random, len(tokens), WIDTH)
    output[:, 0] = [2 if token.lstrip("▁") in WORDS else -2 for token in tokens]
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", ones(WIDTH))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{name}.weight", ones(WIDTH))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{name}.weight", numbers(random, WIDTH, WIDTH) / 4)
        for name in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{block}.{name}.weight", numbers(random, INNER, WIDTH))
        writer.add_tensor(f"{block}.ffn_down.weight", numbers(random, WIDTH, INNER) / 4)
    write(writer)


def senses(path: Path) -> None:
    """Sight of Gemma 3's kind: 64 patches, of which 16 become a token."""
    random = np.random.default_rng(2)
    writer = GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_string("clip.vision.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_image_size(IMAGE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(INNER)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(HEADS)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_tensor("v.patch_embd.weight", random.standard_normal((WIDTH, 3, PATCH, PATCH)).astype(np.float32) / 14)
    writer.add_tensor("v.patch_embd.bias", np.zeros(WIDTH, dtype=np.float32))
    writer.add_tensor("v.position_embd.weight", numbers(random, (IMAGE // PATCH) ** 2, WIDTH))
    block(writer, random, "v")
    writer.add_tensor("mm.input_projection.weight", numbers(random, WIDTH, WIDTH))
    writer.add_tensor("mm.soft_emb_norm.weight", ones(WIDTH))
    hearing(writer, random)
    write(writer)


def hearing(writer: GGUFWriter, random: np.random.Generator) -> None:
    """Of Ultravox' kind: Whisper's encoder, of which 4 states become a token."""
    writer.add_clip_has_audio_encoder(True)
    writer.add_string("clip.audio.projector_type", "ultravox")
    writer.add_audio_num_mel_bins(MELS)
    writer.add_audio_projection_dim(WIDTH)
    writer.add_audio_embedding_length(WIDTH)
    writer.add_audio_feed_forward_length(INNER)
    writer.add_audio_block_count(1)
    writer.add_audio_head_count(HEADS)
    writer.add_audio_attention_layernorm_eps(1e-5)
    writer.add_audio_stack_factor(STACK)
    for number, inputs in ((1, MELS), (2, WIDTH)):
        writer.add_tensor(f"a.conv1d.{number}.weight", numbers(random, WIDTH, inputs, 3))
        writer.add_tensor(f"a.conv1d.{number}.bias", np.zeros((WIDTH, 1), dtype=np.float32))
    writer.add_tensor("a.position_embd.weight", numbers(random, 1500, WIDTH))
    block(writer, random, "a")
    writer.add_tensor("mm.a.norm_pre.weight", ones(WIDTH * STACK))
    writer.add_tensor("mm.a.mlp.1.weight", numbers(random, 2 * INNER, WIDTH * STACK))
    writer.add_tensor("mm.a.norm_mid.weight", ones(INNER))
    writer.add_tensor("mm.a.mlp.2.weight", numbers(random, WIDTH, INNER))


def block(writer: GGUFWriter, random: np.random.Generator, tower: str) -> None:
    """A layer of a vision or audio encoder, and the norm behind it."""
    linear = [(f"attn_{name}", WIDTH, WIDTH) for name in ("q", "k", "v", "out")]
    for name, rows, columns in [*linear, ("ffn_up", INNER, WIDTH), ("ffn_down", WIDTH, INNER)]:
        writer.add_tensor(f"{tower}.blk.0.{name}.weight", numbers(random, rows, columns))
        # Whisper's keys have none.
        if (tower, name) != ("a", "attn_k"):
            writer.add_tensor(f"{tower}.blk.0.{name}.bias", np.zeros(rows, dtype=np.float32))
    for name in ("blk.0.ln1", "blk.0.ln2", "post_ln"):
        writer.add_tensor(f"{tower}.{name}.weight", ones(WIDTH))
        writer.add_tensor(f"{tower}.{name}.bias", np.zeros(WIDTH, dtype=np.float32))


def write(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
