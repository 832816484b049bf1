"""Write a checkpoint as a whisper.cpp ggml file (f16 weights), from this documented layout:

int32 magic 0x67676d6c; 11 x int32 hparams; int32 n_mel, n_fft, float32 filters; int32 n_words, then
(int32 length, bytes) per word; then per tensor: int32 n_dims, name length, type (0 f32, 1 f16),
dims innermost first, name, data.

python export_ggml.py RUN/last.pt ggml-demo.en-f16.bin
whisper-quantize ggml-demo.en-f16.bin ggml-demo.en-q5_1.bin q5_1        # whisper.cpp's tool
"""

import argparse
import base64
import os
import struct

import numpy as np
import torch
import whisper

from model import N_VOCAB, Whisper

ASSETS = os.path.join(os.path.dirname(whisper.__file__), "assets")


def tensors(m):
    """(name, array) of every tensor in the file's order."""

    def f(t):
        return t.detach().float().numpy()

    pos = f(m.pos[:1500])
    yield "encoder.positional_embedding", pos
    for c in ("conv1", "conv2"):
        yield f"encoder.{c}.weight", f(getattr(m, c).weight)
        yield f"encoder.{c}.bias", f(getattr(m, c).bias)[:, None]
    yield "encoder.ln_post.weight", f(m.ln_post.weight)
    yield "encoder.ln_post.bias", f(m.ln_post.bias)
    yield "decoder.positional_embedding", f(m.tpos)
    yield "decoder.token_embedding.weight", f(m.full_embedding())
    yield "decoder.ln.weight", f(m.ln.weight)
    yield "decoder.ln.bias", f(m.ln.bias)
    for side, blocks in (("encoder", m.enc), ("decoder", m.dec)):
        for i, b in enumerate(blocks):
            for k, v in b.state_dict().items():
                yield f"{side}.blocks.{i}.{k}", f(v)


def vocabulary():
    """The bytes of every ordinary token, in order."""
    with open(os.path.join(ASSETS, "gpt2.tiktoken"), "rb") as f:
        return [base64.b64decode(line.split()[0]) for line in f if line.strip()]


def write_ggml(m, cfg, dst):
    """Writes the model `m` of configuration `cfg` in the layout above."""
    filters = np.load(os.path.join(ASSETS, "mel_filters.npz"))["mel_80"].astype(np.float32)
    words = vocabulary()
    audio = [1500, cfg["d"], cfg["heads"], cfg["enc"]]
    text = [m.tpos.shape[0], cfg["d"], cfg["heads"], cfg["dec"]]
    mels, f16 = 80, 1
    with open(dst, "wb") as o:

        def i32(*v):
            o.write(struct.pack(f"<{len(v)}i", *v))

        i32(0x67676D6C, N_VOCAB, *audio, *text, mels, f16)
        i32(*filters.shape)
        o.write(filters.tobytes())
        i32(len(words))
        for w in words:
            i32(len(w))
            o.write(w)
        full = ("positional_embedding", "conv1.bias", "conv2.bias")  # stay float32
        for name, a in tensors(m):
            half = a.ndim >= 2 and not name.endswith(full)
            a = np.ascontiguousarray(a, np.float16 if half else np.float32)
            i32(a.ndim, len(name), int(half), *a.shape[::-1])
            o.write(name.encode())
            o.write(a.tobytes())


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    a = ap.parse_args()
    ck = torch.load(a.checkpoint, weights_only=False, map_location="cpu")
    m = Whisper(**ck["cfg"])
    m.load_state_dict(ck["model"])
    write_ggml(m, ck["cfg"], a.out)
    print(a.out, os.path.getsize(a.out), "bytes")


if __name__ == "__main__":
    main()
