"""Build the fixed evaluation clips from held-out synth corpora.

  python make_eval.py --a EVAL_A --b EVAL_B --out EVAL_DIR

a: one held-out sentence, trained voices; b: the held-out voice variant; c: ~20 s of held-out sentences with pauses
(trained voices); s: silence and noise only. Clips in a, b and c are clean or have white / pink noise at 30, 20 or 15 dB.
Writes 16-bit 16 kHz WAVs and refs.json {file: text}.
"""

import argparse
import json
import os
import random

import numpy as np
import soundfile as sf

from data import Corpus


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("--a", required=True)
    ap.add_argument("--b", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--n", type=int, nargs=3, default=[120, 80, 12])
    g = ap.parse_args()
    os.makedirs(g.out, exist_ok=True)
    r, rn, refs = random.Random(4), np.random.default_rng(4), {}

    def noise(n, pink):
        v = rn.standard_normal(n)
        if pink:
            f = np.fft.rfft(v)
            f[1:] /= np.sqrt(np.arange(1, len(f)))
            f[:20] = 0
            v = np.fft.irfft(f, n)
        return v / v.std()

    def write(name, parts, texts):
        x = np.concatenate(parts)
        sp = np.sqrt((x**2).mean())
        snr = r.choice([None, 30, 20, 15])
        if snr is not None:
            x = x + noise(len(x), r.random() < 0.5) * sp * 10 ** (-snr / 20)
        x = np.clip(x * r.uniform(0.2, 1.0), -1, 1)
        sf.write(os.path.join(g.out, name), (x * 32767).astype(np.int16), 16000)
        refs[name] = " ".join(texts)

    def silence(s):
        return np.zeros(int(16000 * s), np.float32)

    A, B = Corpus(g.a), Corpus(g.b)
    for tag, c, n in (("a", A, g.n[0]), ("b", B, g.n[1])):
        for i in range(n):
            write(
                f"{tag}{i:03d}.wav",
                [silence(r.uniform(0.1, 0.6)), c.wav(i), silence(r.uniform(0.2, 1.0))],
                [c.meta[i]["text"]],
            )
    k = g.n[0]
    for i in range(g.n[2]):
        parts, texts = [silence(r.uniform(0.1, 0.6))], []
        while sum(map(len, parts)) < 16000 * 17.5:
            parts += [A.wav(k), silence(r.uniform(0.3, 1.2))]
            texts.append(A.meta[k]["text"])
            k += 1
        write(f"c{i:03d}.wav", parts, texts)
    for i, v in enumerate(
        [
            np.zeros(48000),
            np.zeros(320000),
            noise(80000, False) * 0.003,
            noise(80000, True) * 0.01,
            noise(160000, True) * 0.05,
            noise(320000, False) * 0.02,
        ]
    ):
        sf.write(os.path.join(g.out, f"s{i:03d}.wav"), (v * 32767).astype(np.int16), 16000)
        refs[f"s{i:03d}.wav"] = ""
    json.dump(refs, open(os.path.join(g.out, "refs.json"), "w"), indent=1)
    print({t: sum(f[0] == t for f in refs) for t in "abcs"})


if __name__ == "__main__":
    main()
