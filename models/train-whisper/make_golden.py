"""Example clips with the text expected from whisper-cli's greedy decoding, and a set of further held-out clips.

python make_golden.py --cli .../whisper-cli --model M.bin --a GOLD_A --b GOLD_B --out DEMO_DIR --heldout HELD_DIR
"""

import argparse
import json
import os
import random
import subprocess

import numpy as np
import soundfile as sf

from data import Corpus
from domain import wer_counts


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    for n in ("cli", "model", "a", "b", "out", "heldout"):
        ap.add_argument("--" + n, required=True)
    g = ap.parse_args()
    A, B, r, rn = Corpus(g.a), Corpus(g.b), random.Random(9), np.random.default_rng(9)

    def silence(s):
        return np.zeros(int(16000 * s), np.float32)

    def write(path, utts, snr):
        parts = [silence(0.3)]
        for c, i in utts:
            parts += [c.wav(i), silence(0.5)]
        x = np.concatenate(parts) * 0.7
        if snr:
            x = x + rn.standard_normal(len(x)) * np.sqrt((x**2).mean()) * 10 ** (-snr / 20)
        sf.write(path, (np.clip(x, -1, 1) * 32767).astype(np.int16), 16000)
        return " ".join(c.meta[i]["text"] for c, i in utts), [c.meta[i]["voice"] for c, i in utts]

    def greedy(path):
        command = [g.cli, "-m", g.model, "-f", path, "-bs", "1", "-bo", "1", "-t", "1"]
        command += ["-np", "-oj", "-of", os.path.join(g.out, "cli")]
        subprocess.run(command, check=True, capture_output=True)
        seg = json.load(open(os.path.join(g.out, "cli.json")))["transcription"]
        return "".join(s["text"] for s in seg).strip(), [
            {"t0_ms": s["offsets"]["from"], "t1_ms": s["offsets"]["to"], "text": s["text"]}
            for s in seg
        ]

    ex = os.path.join(g.out, "examples")
    os.makedirs(ex, exist_ok=True)
    plan = [
        ("ex1", [(A, 0)], None),
        ("ex2", [(A, 1)], 20),
        ("ex3", [(A, 2), (A, 3)], 30),
        ("ex4", [(A, 4), (A, 5), (A, 6)], None),
        ("ex5", [(B, 0)], None),
    ]
    gold = []
    for name, utts, snr in plan:
        p = os.path.join(ex, name + ".wav")
        ref, voices = write(p, utts, snr)
        text, segs = greedy(p)
        e, w = wer_counts(ref, text)
        gold.append(
            {
                "file": f"examples/{name}.wav",
                "reference": ref,
                "expected": text,
                "segments": segs,
                "voices": voices,
                "snr_db": snr,
                "word_errors": e,
                "words": w,
            }
        )
        print(e, w, "|", ref, "|", text)
    json.dump(
        {"decoder": "whisper-cli -bs 1 -bo 1 (greedy), default audio context, CPU", "clips": gold},
        open(os.path.join(g.out, "golden.json"), "w"),
        indent=1,
    )
    os.makedirs(g.heldout, exist_ok=True)
    held = []
    for k in range(20):
        c, i = (A, 10 + k) if k < 14 else (B, 10 + k)
        utts = [(c, i)] if k % 4 else [(c, i), (c, 50 + i)]
        ref, voices = write(
            os.path.join(g.heldout, f"h{k:02d}.wav"), utts, r.choice([None, 30, 20])
        )
        held.append({"file": f"h{k:02d}.wav", "text": ref, "voices": voices})
    json.dump(held, open(os.path.join(g.heldout, "transcripts.json"), "w"), indent=1)


if __name__ == "__main__":
    main()
