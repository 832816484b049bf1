"""Builds tokenizer, processor files and the model configuration in SmolVLM-256M-Instruct's format."""

from __future__ import annotations

import json
import os
import random

IMAGE_SIZE, PATCH, SCALE = 192, 16, 3
IMAGE_SEQ_LEN = (IMAGE_SIZE // PATCH) ** 2 // SCALE**2  # 16 tokens an image
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}"
    "{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
FIRST_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0, 1, 2 as in SmolVLM
LAST_SPECIAL = (
    ["<global-img>"]
    + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    + ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
)
IMAGE = (
    "<fake_token_around_image><global-img>"
    + "<image>" * IMAGE_SEQ_LEN
    + "<fake_token_around_image>"
)


def prefix(n_images: int) -> str:
    """The prompt's beginning: user turn and placeholders of n images."""
    return "<|im_start|>User:" + IMAGE * n_images


def train_tokenizer(corpus, vocab=1100):
    """A byte-level BPE tokenizer with SmolVLM's special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        show_progress=False,
        special_tokens=FIRST_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tok.train_from_iterator(corpus, trainer)
    tok.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in FIRST_SPECIAL + LAST_SPECIAL]
    )
    return tok


def corpus(truths, seed=1, n=20000):
    """Sentences like those of training, prompts and answers."""
    import language as L

    r = random.Random(seed)
    out = []
    for i in range(n):
        t = truths[i % len(truths)]
        p, style = L.describe_question(r)
        out += ["User:" + p, "Assistant: " + L.caption(t, style, r)]
        q = L.event_question(t, r)
        if q:
            out += [L.wrap(q[0], r), " Yes.", " No."]
    extra = [
        "person people vehicle vehicles car truck bus dog street road traffic sidewalk video camera image scene what where when how many "
        "is are was the a an in on at of to and or not any there this that left right fast slow slowly near gate two three four five six "
        "seven eight nine ten alarm alert unusual behavior activity event events report describe detect"
    ] * 40
    return out + extra


def special_tokens_map():
    """The content of special_tokens_map.json."""
    return {
        "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }


def write_processor(out, tok):
    """Writes the tokenizer, processor and generation files of a model directory."""
    os.makedirs(out, exist_ok=True)
    tok.save(f"{out}/tokenizer.json")
    ids = {t: tok.token_to_id(t) for t in FIRST_SPECIAL + LAST_SPECIAL}

    def dump(name, obj):
        with open(f"{out}/{name}", "w") as f:
            json.dump(obj, f, indent=2, ensure_ascii=False)
            f.write("\n")

    dump(
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(i): {
                    "content": t,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for t, i in sorted(ids.items(), key=lambda x: x[1])
            },
            **special_tokens_map(),
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "legacy": False,
            "model_max_length": 2048,
            "processor_class": "Idefics3Processor",
            "tokenizer_class": "GPT2Tokenizer",
            "truncation_side": "left",
            "vocab_size": tok.get_vocab_size(),
        },
    )
    dump("special_tokens_map.json", special_tokens_map())
    dump("chat_template.json", {"chat_template": CHAT_TEMPLATE})
    dump("added_tokens.json", {t: ids[t] for t in LAST_SPECIAL})
    dump(
        "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_image_splitting": False,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "Idefics3ImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "max_image_size": {"longest_edge": IMAGE_SIZE},
            "processor_class": "Idefics3Processor",
            "resample": 1,
            "rescale_factor": 0.00392156862745098,
            "size": {"longest_edge": 640},
        },
    )
    dump(
        "processor_config.json",
        {"image_seq_len": IMAGE_SEQ_LEN, "processor_class": "Idefics3Processor"},
    )
    v = json.loads(tok.to_str())["model"]
    dump("vocab.json", v["vocab"])
    with open(f"{out}/merges.txt", "w") as f:
        f.write(
            "#version: 0.2\n"
            + "\n".join(m if isinstance(m, str) else " ".join(m) for m in v["merges"])
            + "\n"
        )
    dump(
        "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<end_of_utterance>"],
            "pad_token_id": ids["<|im_end|>"],
            "transformers_version": "4.46.0",
        },
    )


def model_config(
    tok,
    vision_dim=128,
    vision_layers=4,
    vision_heads=4,
    text_dim=192,
    text_layers=4,
    heads=6,
    kv_heads=2,
    mlp=448,
):
    """The transformers configuration of the demo model."""
    from transformers import Idefics3Config

    ids = tok.token_to_id
    return Idefics3Config(
        architectures=["Idefics3ForConditionalGeneration"],
        image_token_id=ids("<image>"),
        scale_factor=SCALE,
        tie_word_embeddings=False,
        use_cache=True,
        bos_token_id=ids("<|im_start|>"),
        eos_token_id=ids("<end_of_utterance>"),
        pad_token_id=ids("<|im_end|>"),
        text_config={
            "model_type": "llama",
            "architectures": ["VLlama3ForCausalLM"],
            "head_dim": text_dim // heads,
            "hidden_size": text_dim,
            "intermediate_size": mlp,
            "max_position_embeddings": 2048,
            "num_attention_heads": heads,
            "num_hidden_layers": text_layers,
            "num_key_value_heads": kv_heads,
            "pad_token_id": ids("<|im_end|>"),
            "bos_token_id": ids("<|im_start|>"),
            "eos_token_id": ids("<end_of_utterance>"),
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "vocab_size": tok.get_vocab_size(),
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        },
        vision_config={
            "model_type": "idefics3_vision",
            "hidden_size": vision_dim,
            "image_size": IMAGE_SIZE,
            "intermediate_size": vision_dim * 4,
            "num_attention_heads": vision_heads,
            "num_hidden_layers": vision_layers,
            "patch_size": PATCH,
            "num_channels": 3,
            "hidden_act": "gelu_pytorch_tanh",
            "max_image_size": {"longest_edge": IMAGE_SIZE},
            "size": {"longest_edge": 640},
        },
    )
