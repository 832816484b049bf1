"""A straightforward loop over a SmolVLM directory in Python: one window after another, one prompt each.

    python python_ort.py MODEL_DIRECTORY THREADS spin|no_spin|openvino WINDOWS FRAMES TOKENS

Prints what it cost as JSON.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np
import onnxruntime as ort
from PIL import Image
from tokenizers import Tokenizer

IMAGE = "<fake_token_around_image><global-img>{}<fake_token_around_image>"


def frame(index, width=640, height=360):
    """As `frame` of models/parity/common.py."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    c = np.arange(3)[:, None, None]
    values = (x * (3 + c) + y * (5 - c) + index * 40) // 4 + ((x // 24 + y // 17 + index) % 5) * 30 + c * 60 + (x * y) // 97
    return Image.fromarray((values % 256).transpose(1, 2, 0).astype(np.uint8), "RGB")


class Model:
    """The three sessions and what the files say."""

    def __init__(self, directory, threads, how):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        if how != "spin":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if how == "openvino":
            providers.insert(0, ("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": str(threads)}))
        names = ("vision_encoder", "embed_tokens", "decoder_model_merged")
        files = [str(directory / f"onnx/{name}_quantized.onnx") for name in names]
        self.vision, self.embed, self.decoder = (
            ort.InferenceSession(file, options, providers=providers) for file in files
        )
        read = {name: json.loads((directory / f"{name}.json").read_text()) for name in ("config", "preprocessor_config", "processor_config", "generation_config")}
        self.tile = read["preprocessor_config"]["max_image_size"]["longest_edge"]
        self.edge = read["preprocessor_config"]["size"]["longest_edge"]
        self.tokens, self.image = read["processor_config"]["image_seq_len"], read["config"]["image_token_id"]
        self.stop = read["generation_config"]["eos_token_id"]
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.past = [i for i in self.decoder.get_inputs() if i.name.startswith("past_key_values")]

    def pixels(self, frames):
        """Scaled twice, as the processor does, and normalised."""
        size = (self.edge, int(self.edge * frames[0].height / frames[0].width))
        tiles = [f.resize(size, Image.LANCZOS).resize((self.tile, self.tile), Image.LANCZOS) for f in frames]
        values = np.stack([np.asarray(t, np.float32) for t in tiles]).transpose(0, 3, 1, 2)
        return (values / 127.5 - 1)[None]

    def describe(self, frames, prompt, most, steps):
        """The greedy answer's ids."""
        started = cpu()
        pixels = self.pixels(frames)
        mask = np.ones((1, len(frames), self.tile, self.tile), bool)
        features = self.vision.run(None, {"pixel_values": pixels, "pixel_attention_mask": mask})[0]
        steps["encode"] += cpu() - started
        started = cpu()
        images = IMAGE.format("<image>" * self.tokens) * len(frames)
        text = f"<|im_start|>User:{images}{prompt}<end_of_utterance>\nAssistant:"
        ids = np.array([self.tokenizer.encode(text, add_special_tokens=False).ids], np.int64)
        embeds = self.embed.run(None, {"input_ids": ids})[0]
        embeds[ids == self.image] = features.reshape(-1, features.shape[-1])
        past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in self.past}
        length, answer = ids.shape[1], []
        positions = np.arange(length, dtype=np.int64)[None]
        while True:
            inputs = {"inputs_embeds": embeds, "attention_mask": np.ones((1, length), np.int64), "position_ids": positions}
            logits, *present = self.decoder.run(None, {**inputs, **past})
            steps["prefill" if not answer else "decode"] += cpu() - started
            started = cpu()
            past = {i.name: value for i, value in zip(self.past, present)}
            answer.append(int(logits[0, -1].argmax()))
            if answer[-1] == self.stop or len(answer) == most:
                return answer
            embeds = self.embed.run(None, {"input_ids": np.array([answer[-1:]], np.int64)})[0]
            positions = np.array([[length]], np.int64)
            length += 1


def cpu():
    """CPU-seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    """Command line."""
    directory, threads, how = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    windows, frames, tokens = (int(n) for n in sys.argv[4:7])
    model = Model(directory, threads, how)
    shown = [frame(i) for i in range(frames)]
    steps = dict.fromkeys(("encode", "prefill", "decode"), 0.0)
    started, before, decoded = time.monotonic(), cpu(), 0
    for _ in range(windows):
        decoded += len(model.describe(shown, "Describe the scene", tokens, steps)) - 1
    steps = {name: round(seconds, 2) for name, seconds in steps.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"wall": time.monotonic() - started, "cpu": cpu() - before, "steps": steps, "decoded": decoded, "peak_mb": peak}))


if __name__ == "__main__":
    main()
