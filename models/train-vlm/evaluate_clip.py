"""Runs the exported ONNX files on a clip as a product would: windows of real decoded H.264.

    python evaluate_clip.py MODEL_DIR CLIP.mp4 [--suffix _quantized]

Every window is 5 s long with 4 evenly spaced frames, one window every 2.5 s.
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np
from PIL import Image

import language as L
from runtime import Runtime, decode_clip, pixels

FAMILIES = {
    "restricted": "Detect when someone enters restricted area",
    "crossing": "Detect pedestrians crossing the zebra",
    "fire": "Detect a vehicle on fire",
    "congestion": "Detect traffic congestion",
    "fast": "a vehicle moving fast",
    "collision": "Detect a collision",
    "dog": "a dog",
}


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("clip")
    ap.add_argument("--suffix", default="")
    a = ap.parse_args()
    with open(os.path.splitext(a.clip)[0] + ".truth.json") as f:
        truth = json.load(f)
    video, model = decode_clip(a.clip), Runtime(a.model, a.suffix)
    right, total, wrong = 0, 0, []
    for start in np.arange(0, truth["duration"] - 5 + 0.01, 2.5):
        times = [start + 5 * (i + 0.5) / 4 for i in range(4)]
        px = pixels([Image.fromarray(video[int(t * truth["fps"])]) for t in times])
        print(f"{start:5.1f}", model.ask(px, "Describe activity and detect unusual behavior"))
        line = []
        for fam, event in FAMILIES.items():
            inside = [
                any(
                    e["start"] + 0.2 <= t <= e["end"] - 0.2
                    for e in truth["events"]
                    if e["event"] == fam
                )
                for t in times
            ]
            near = any(
                e["start"] - 0.8 <= t <= e["end"] + 0.8
                for t in times
                for e in truth["events"]
                if e["event"] == fam
            )
            if near and not any(inside):
                continue  # only at the very edge of the event
            got = model.ask(px, L.wrap(event))
            total += 1
            ok = got == ("Yes." if any(inside) else "No.")
            right += ok
            if any(inside):
                line.append(f"{fam}={got}")
            if not ok:
                wrong.append((float(start), fam, got))
        if line:
            print("      ", *line)
    print(f"event questions right: {right} of {total}; wrong: {wrong}")


if __name__ == "__main__":
    main()
