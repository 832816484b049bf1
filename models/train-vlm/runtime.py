"""The exported model in onnxruntime: the three ONNX files, one prompt at a time.

Needs neither torch nor transformers.  A product would prefill the image prefix once for several
questions; here every question is one pass, which gives the same numbers.
"""

from __future__ import annotations

import json
import subprocess

import numpy as np
import onnxruntime as ort
from PIL import Image
from tokenizers import Tokenizer

from config import IMAGE_SIZE, prefix
from scene import H, W


def decode_clip(path) -> np.ndarray:
    """All frames of a generated clip, RGB [frames, H, W, 3]."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, H, W, 3)


def pixels(images: list[Image.Image]) -> np.ndarray:
    """Preprocessed frames of one window, float32 [1, frames, 3, IMAGE_SIZE, IMAGE_SIZE] in -1..1."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    arrays = [np.asarray(i.resize(size, Image.LANCZOS), np.float32) for i in images]
    return (np.stack(arrays).transpose(0, 3, 1, 2) / 127.5 - 1)[None]


class Runtime:
    """An exported model directory, loaded.  `suffix="_quantized"` takes the int8 copies."""

    def __init__(self, folder, suffix=""):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.vision, self.embed, self.decoder = (
            ort.InferenceSession(
                f"{folder}/onnx/{name}{suffix}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in ("vision_encoder", "embed_tokens", "decoder_model_merged")
        )
        with open(f"{folder}/config.json") as f:
            self.config = json.load(f)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self._present = [o.name for o in self.decoder.get_outputs()][1:]

    def ids(self, prompt, n_images) -> list[int]:
        """Token ids of the chat template around a prompt."""
        text = prefix(n_images) + prompt + "<end_of_utterance>\nAssistant:"
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def empty_past(self, batch=1) -> dict[str, np.ndarray]:
        """Key/value inputs of length 0."""
        text = self.config["text_config"]
        shape = (batch, text["num_key_value_heads"], 0, text["head_dim"])
        names = (n.replace("present", "past_key_values") for n in self._present)
        return {n: np.zeros(shape, np.float32) for n in names}

    def step(self, embeddings, mask, positions, past):
        """One run of the decoder: logits [batch, tokens, vocabulary] and the grown past."""
        inputs = {"inputs_embeds": embeddings, "attention_mask": mask, "position_ids": positions}
        logits, *present = self.decoder.run(None, {**inputs, **past})
        names = (n.replace("present", "past_key_values") for n in self._present)
        return logits, dict(zip(names, present))

    def prefill(self, ids, px):
        """Logits [vocabulary] of the first answer token, and the past, for ids that hold px's images."""
        mask = np.ones((1, px.shape[1], *px.shape[3:]), bool)
        feats = self.vision.run(None, {"pixel_values": px, "pixel_attention_mask": mask})[0]
        ids = np.asarray(ids, np.int64)[None]
        emb = self.embed.run(None, {"input_ids": ids})[0]
        emb[ids == self.config["image_token_id"]] = feats.reshape(-1, feats.shape[-1])
        positions = np.arange(ids.shape[1], dtype=np.int64)[None]
        logits, past = self.step(emb, np.ones_like(ids), positions, self.empty_past())
        return logits[0, -1], past

    def generate(self, ids, px, max_new=96) -> list[int]:
        """Greedy answer, up to and with the end token."""
        logits, past = self.prefill(ids, px)
        out, n = [int(logits.argmax())], len(ids)
        while out[-1] != self.config["eos_token_id"] and len(out) < max_new:
            emb = self.embed.run(None, {"input_ids": np.array([[out[-1]]], np.int64)})[0]
            n += 1
            ones, position = np.ones((1, n), np.int64), np.array([[n - 1]], np.int64)
            logits, past = self.step(emb, ones, position, past)
            out.append(int(logits[0, -1].argmax()))
        return out

    def ask(self, px, prompt) -> str:
        """The greedy answer to a prompt about a window, as text."""
        return self.tokenizer.decode(self.generate(self.ids(prompt, px.shape[1]), px)).strip()

    def probability_of_yes(self, px, prompt) -> float:
        """Softmax over the first tokens of " Yes" and " No" alone: what a verdict is made of."""
        logits, _ = self.prefill(self.ids(prompt, px.shape[1]), px)
        yes, no = (
            logits[self.tokenizer.encode(word, add_special_tokens=False).ids[0]]
            for word in (" Yes.", " No.")
        )
        return float(1 / (1 + np.exp(no - yes)))
