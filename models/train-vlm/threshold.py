"""Chooses the default alert threshold on generated clips.

    python threshold.py MODEL_DIR CLIP.mp4 ...  [--sampling NAME] [--quantized] [--json FILE]

Every clip is cut into 5 s windows of 2 frames, as the product samples them, and the two event
questions of the demo are asked of each window.  A verdict is the probability of "Yes".  Samplings:

    first     the first keyframe at or after 0 and 2.5 s of the window: what the product does
    nearest   the keyframes nearest to 1.25 and 3.75 s of the window
    uniform   the frames at 1.25 and 3.75 s of the window, with a full decode

A window counts as true if a sampled frame lies inside the event, as false if the window does not
touch the event and no sampled frame is near it, and as an edge otherwise.  As the product is judged, an
interval is caught if a window fires that touches it or is next to one that does, and a firing in any
other window is false.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os

import numpy as np
from PIL import Image

import language as L
from runtime import Runtime, decode_clip, pixels

EVENTS = {
    "restricted": "Detect when someone enters restricted area",
    "crossing": "Detect pedestrians crossing the zebra",
}
WINDOW, FRAMES = 5.0, 2
JPEG_QUALITY = 85  # windows travel as JPEG between sampling and model
EDGE = 0.8  # seconds around an event in which somebody may be on the way in or out
THRESHOLDS = (0.3, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
LABELS = ("yes", "edge", "no")


def first_times(start, gop):
    """Times in seconds of the first keyframe of each slot of the window at `start`."""
    slots = (start + i * WINDOW / FRAMES for i in range(FRAMES))
    return [math.ceil(t / gop - 1e-9) * gop for t in slots]


def nearest_times(start, gop):
    """Times in seconds of the keyframes nearest to the middle of each slot."""
    return [round(t / gop) * gop for t in uniform_times(start, gop)]


def uniform_times(start, _gop):
    """Times in seconds of evenly spaced frames of the window at `start`."""
    return [start + WINDOW * (i + 0.5) / FRAMES for i in range(FRAMES)]


SAMPLINGS = {"first": first_times, "nearest": nearest_times, "uniform": uniform_times}


def as_jpeg(frame) -> Image.Image:
    """The frame after the compression that the product applies."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer)


def inside(times, event):
    """Whether a sampled frame lies inside the event."""
    return any(event["start"] <= t < event["end"] for t in times)


def touches(start, event, margin=0.0):
    """Whether the window overlaps the event, widened by a margin in seconds."""
    return event["start"] - margin < start + WINDOW and event["end"] + margin > start


def label_of(start, times, events):
    """'yes', 'no' or 'edge' for a window with frames at `times`."""
    if any(inside(times, e) for e in events):
        return "yes"
    near = (
        abs(t - t_edge) <= EDGE for t in times for e in events for t_edge in (e["start"], e["end"])
    )
    return "edge" if any(near) or any(touches(start, e) for e in events) else "no"


def cut(path, truth, times_of):
    """(start, frame times, preprocessed frames) of every whole window of a clip."""
    video, fps = decode_clip(path), truth["fps"]
    for start in np.arange(0, truth["duration"] - WINDOW + 0.01, WINDOW):
        times = [t for t in times_of(start, truth["gop"] / fps) if t * fps < len(video)]
        yield float(start), times, pixels([as_jpeg(video[round(t * fps)]) for t in times])


def verdicts_of(model, truth, windows):
    """One verdict for each window and event question."""
    for start, times, px in windows:
        for family, event in EVENTS.items():
            spans = [e for e in truth["events"] if e["event"] == family]
            yield {
                "event": family,
                "light": truth["light"],
                "start": start,
                "label": label_of(start, times, spans),
                "intervals": [i for i, e in enumerate(spans) if touches(start, e, margin=WINDOW)],
                "probability": model.probability_of_yes(px, L.wrap(event)),
            }


def fast_vehicles(model, truth, windows):
    """(fast vehicles, those in a sampled frame, those that a caption names as fast)."""
    fast = [e for e in truth["events"] if e["event"] == "fast"]
    framed, named = set(), set()
    for _, times, px in windows:
        for i, e in enumerate(fast):
            if inside(times, e):
                framed.add(i)
                caption = model.ask(px, "Describe the scene").lower()
                if any(f"{v} is moving fast" in caption for v in e["vehicles"]):
                    named.add(i)
    return np.array([len(fast), len(framed), len(named)])


def summarise(rows):
    """Distributions over the verdicts of one sampling and event, and what each threshold would do."""
    by = {label: sorted(v["probability"] for v in rows if v["label"] == label) for label in LABELS}
    best = {}
    for v in rows:
        for i in v["intervals"]:
            key = (v["clip"], i)
            best[key] = max(best.get(key, 0.0), v["probability"])
    elsewhere = sorted(v["probability"] for v in rows if not v["intervals"])
    print("  windows:", {label: len(p) for label, p in by.items()})
    for title, p in (
        ("highest of 'no'", by["no"][-5:]),
        ("lowest of 'yes'", by["yes"][:5]),
        ("highest more than a window from an event", elsewhere[-5:]),
        ("lowest of the intervals' best windows", sorted(best.values())[:5]),
    ):
        print(f"  {title}:", *(f"{x:.3f}" for x in p))
    print("  threshold | 'no' fired | 'yes' silent | false firings | intervals missed")
    for t in THRESHOLDS:
        counts = (
            sum(p >= t for p in by["no"]),
            sum(p < t for p in by["yes"]),
            sum(p >= t for p in elsewhere),
            sum(p < t for p in best.values()),
        )
        of = (len(by["no"]), len(by["yes"]), len(elsewhere), len(best))
        print(f"  {t} |", " | ".join(f"{c} of {n}" for c, n in zip(counts, of)))


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("clips", nargs="+")
    ap.add_argument("--sampling", choices=list(SAMPLINGS), help="only this one")
    ap.add_argument("--quantized", action="store_true", help="the int8 files")
    ap.add_argument("--json", default="", help="write all verdicts here")
    a = ap.parse_args()
    model = Runtime(a.model, "_quantized" if a.quantized else "")
    samplings = {k: v for k, v in SAMPLINGS.items() if a.sampling in (None, k)}
    verdicts, fast = [], dict.fromkeys(samplings, 0)
    for path in a.clips:
        with open(os.path.splitext(path)[0] + ".truth.json") as f:
            truth = json.load(f)
        source = {"clip": os.path.basename(path)}
        for sampling, times_of in samplings.items():
            source["sampling"] = sampling
            windows = list(cut(path, truth, times_of))
            verdicts += [{**source, **v} for v in verdicts_of(model, truth, windows)]
            fast[sampling] = fast[sampling] + fast_vehicles(model, truth, windows)
        print(source["clip"], flush=True)
    for sampling in samplings:
        for family in EVENTS:
            print(f"\n{sampling}, {family}")
            summarise([v for v in verdicts if (v["sampling"], v["event"]) == (sampling, family)])
    print("\nfast vehicles, those in a sampled frame, those that a caption names as fast")
    for sampling, counts in fast.items():
        print(f"  {sampling}:", *counts)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(verdicts, f, indent=1)


if __name__ == "__main__":
    main()
