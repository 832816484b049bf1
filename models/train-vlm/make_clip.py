"""Scripted clips as MP4 (H.264 + AAC commentary) with exact truth.

    python make_clip.py demo OUT.mp4            the 90 s demo, seed 770001
    python make_clip.py SEED OUT.mp4 [--light day|dusk|night|fog]
                                                a 60 s clip of shuffled events

The spoken sentences are ones that the demo speech model's grammar knows.

Needs ffmpeg and espeak-ng.  Beside OUT.mp4 it writes OUT.truth.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile

import numpy as np
import soundfile as sf

from language import FIXED, Truth, caption, fixed_answer
from picture import render
from scene import COLOURS, FPS, LIGHTS, TYPES, H, Layout, W, World

RATE = 22050  # samples a second of espeak-ng
DEMO_SEED = 770001


class Script:
    """Schedules actors and spoken sentences on a world's clock."""

    def __init__(self, seed, light):
        self.r = random.Random(seed)
        self.world = World(Layout.random(seed), light, seed)
        self.at, self.speech, self.marks = [], [], []

    def do(self, t, fn):
        """Calls `fn` at t seconds."""
        self.at.append((t, fn))

    def say(self, t, text):
        """Lets a sentence be spoken at t seconds, or once the one before it is over."""
        self.speech.append((t, text))

    def vehicle(self, t, kind, colour, lane, speed, **kw):
        """Lets a vehicle enter at t seconds."""
        self.do(t, lambda: self.world.spawn_vehicle(kind, colour, lane, speed, **kw))

    # each block takes its start time and returns when the next may start
    def calm(self, t, pairs=(("car", "blue"), ("bus", "green"))):
        """Light traffic and a pedestrian."""
        self.vehicle(t, *pairs[0], 1, 62)
        self.vehicle(t + 1.5, *pairs[1], 0, 78)
        self.do(t, lambda: self.world.spawn_walker(True, 1))
        return t + 13

    def fast(self, t, kind="car", colour="white", lane=0, speak=True):
        """A vehicle passes fast."""
        self.vehicle(t, kind, colour, lane, 245, obeys=False)
        if speak:
            self.say(t + 0.6, f"a {colour} {kind} is moving fast on the main road")
        return t + 5

    def crossing(self, t, n=2, waiting=("car", "red")):
        """n people use the zebra crossing."""
        for i in range(n):
            self.do(t + 0.4 * i, lambda i=i: self.world.spawn_crosser(i % 2 == 0))
        if waiting:
            self.vehicle(t - 1.0, *waiting, 1, 66)
        if n == 1:
            self.say(t + 2.2, "a man is crossing the zebra crossing")
        else:
            self.say(
                t + 2.2, f"{ {2: 'two', 3: 'three'}[n] } people are crossing the zebra crossing"
            )
        return t + 12

    def congestion(self, t, hold=18):
        """A queue builds up and dissolves after `hold` seconds."""
        r, w = self.r, self.world

        def gates(on):
            w.gates[0], w.gates[1] = (12.0, W - 12.0) if on else (None, None)

        self.do(t, lambda: gates(True))
        for i in range(5):
            for lane in (0, 1):
                kind = r.choices(list(TYPES), (0.75, 0.13, 0.12))[0]
                self.vehicle(
                    t + i * 1.7 + lane * 0.7, kind, r.choice(list(COLOURS)), lane, 86, obeys=False
                )
        self.say(t + 11.0, "traffic is heavy near gate two")
        self.do(t + hold, lambda: gates(False))
        return t + hold + 9

    def restricted(self, t, stay=10):
        """Somebody walks into the restricted area and leaves after `stay` seconds."""
        self.do(t, lambda: self.world.spawn_intruder(inside=False))
        self.vehicle(t + 0.5, "car", "yellow", 1, 60)
        self.say(t + 2.6, "someone entered the restricted area near gate two")
        self.do(t + stay, self.world.leave_area)
        return t + stay + 2.5

    def fire(self, t, kind="truck", colour="red", x=430):
        """A vehicle stops and burns."""
        w = self.world

        def go():
            v = w.spawn_vehicle(kind, colour, 1, 86, obeys=False)
            v.fire_since = w.t + (x - v.x) / 86 + 0.6

        self.do(t, go)
        self.say(t + 8.0, "there is a fire at the main road")
        return t + 14

    def crash(self, t):
        """Two cars collide."""
        w = self.world

        def go():
            a = w.spawn_vehicle("car", "blue", 0, 0, x=430)
            w.collide(a, w.spawn_vehicle("car", "yellow", 0, 0, x=430))

        self.do(t, go)
        self.say(t + 1.2, "there is an accident on the main road")
        return t + 8

    def dog(self, t):
        """A dog trots along the sidewalk."""
        self.do(t, lambda: self.world.spawn_dog(False, 1, 20))
        return t + 6

    def run(self, duration):
        """Yields (time, picture, truth) of every frame."""
        todo = sorted(self.at, key=lambda x: x[0])
        for i in range(int(duration * FPS)):
            while todo and todo[0][0] <= i / FPS + 1e-9:
                todo.pop(0)[1]()
            yield i / FPS, render(self.world), self.world.truth()
            self.world.step()


def demo():
    """The script of the demo clip, and its length in seconds."""
    s = Script(DEMO_SEED, "day")
    s.say(1.0, "control room to all units")
    s.say(4.2, "traffic is light on the main road")
    s.calm(0.3)
    s.fast(15.0, "car", "white", 0)
    s.crossing(22.0, 2)
    s.congestion(33.0, 20)
    s.restricted(64.0, 10)
    s.fire(75.5)
    return s, 90


def shuffled(seed, light=None):
    """A script of events in random order, and its length in seconds."""
    r = random.Random(seed * 17 + 3)
    drawn = r.choice(["dusk", "night", "fog"])
    s = Script(seed, light or drawn)
    s.say(0.8, "control room to all units")
    t = 0.3
    col = r.sample(list(COLOURS), 4)
    blocks = [
        lambda t: s.fast(t, r.choice(list(TYPES)), col[0], r.randint(0, 1)),
        lambda t: s.crossing(t, r.choice((1, 3)), ("car", col[1])),
        lambda t: s.restricted(t, 8),
    ]
    if r.random() < 0.5:
        blocks.append(lambda t: s.dog(t))
    r.shuffle(blocks)
    for b in blocks:
        t = b(t + 1.0)
    if t < 32:
        t = s.congestion(t, 14)
    else:
        s.vehicle(t, "bus", col[2], 0, 75)
        t += 9
    (s.fire(t, "car", col[3]) if seed % 2 else s.crash(t))
    return s, 60


def speak(text, folder):
    """A sentence as mono samples at RATE, cut at its first and last sound."""
    p = f"{folder}/s.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "160", "-w", p, text], check=True)
    x, rate = sf.read(p, dtype="float32")
    assert rate == RATE
    loud = np.nonzero(np.abs(x) > 0.004)[0]
    return x[loud[0] : loud[-1] + 1] * 0.85


def spans(flags, gap=0.5):
    """[(start, end)] of runs of true flags sampled at FPS."""
    out, on = [], None
    for i, f in enumerate(list(flags) + [False]):
        if f and on is None:
            on = i
        elif not f and on is not None:
            if out and on / FPS - out[-1][1] < gap:
                out[-1][1] = i / FPS
            else:
                out.append([on / FPS, i / FPS])
            on = None
    return [[round(a, 2), round(b, 2)] for a, b in out]


def make(s: Script, duration, path, seed):
    """Renders a script to an MP4 and writes its truth beside it."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        audio = np.random.default_rng(seed).normal(0, 0.0015, duration * RATE).astype(np.float32)
        said = []
        busy = 0.0
        for t, text in sorted(s.speech):
            x = speak(text, tmp)
            t = max(t, busy)
            a = int(t * RATE)
            x = x[: len(audio) - a]
            audio[a : a + len(x)] += x
            busy = t + len(x) / RATE + 0.25
            said.append(
                {"text": text, "start": round(a / RATE, 3), "end": round((a + len(x)) / RATE, 3)}
            )
        sf.write(f"{tmp}/a.wav", audio, RATE)
        ff = subprocess.Popen(
            [
                "ffmpeg",
                "-y",
                "-v",
                "error",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24",
                "-s",
                f"{W}x{H}",
                "-r",
                str(FPS),
                "-i",
                "-",
                "-i",
                f"{tmp}/a.wav",
                "-map",
                "0:v",
                "-map",
                "1:a",
                "-c:v",
                "libx264",
                "-preset",
                "medium",
                "-crf",
                "24",
                "-threads",
                "1",
                "-pix_fmt",
                "yuv420p",
                "-profile:v",
                "main",
                "-bf",
                "0",
                "-g",
                str(2 * FPS),
                "-keyint_min",
                str(2 * FPS),
                "-sc_threshold",
                "0",
                "-c:a",
                "aac",
                "-b:a",
                "64k",
                "-ac",
                "1",
                "-ar",
                "44100",
                "-movflags",
                "+faststart",
                "-map_metadata",
                "-1",
                "-fflags",
                "+bitexact",
                path,
            ],
            stdin=subprocess.PIPE,
        )
        truths = []
        for _, im, tr in s.run(duration):
            ff.stdin.write(im.tobytes())
            truths.append(tr)
        ff.stdin.close()
        assert ff.wait() == 0
    per = [Truth([t]) for t in truths]
    events = []
    names = {
        "fast": "vehicle moving fast",
        "crossing": "people crossing the zebra crossing",
        "congestion": "traffic congestion",
        "restricted": "someone inside the restricted area",
        "fire": "vehicle on fire",
        "collision": "two vehicles collided",
        "dog": "dog",
    }
    for fam, label in names.items():
        for a, b in spans([fixed_answer(t, fam) is True for t in per]):
            e = {"event": fam, "label": label, "start": a, "end": b, "prompt": FIXED[fam][0]}
            objs = [o for i in range(int(a * FPS), int(b * FPS)) for o in truths[i]]
            if fam == "fast":
                e["vehicles"] = sorted(
                    {
                        f"{o['colour']} {o['type']}"
                        for o in objs
                        if o["obj"] == "vehicle" and o["speed"] == "fast"
                    }
                )
            elif fam == "fire":
                e["vehicles"] = sorted(
                    {
                        f"{o['colour']} {o['type']}"
                        for o in objs
                        if o["obj"] == "vehicle" and o["fire"]
                    }
                )
            elif fam in ("crossing", "restricted"):
                e["people"] = max(
                    getattr(t, "crossing" if fam == "crossing" else "inside")
                    for t in per[int(a * FPS) : int(b * FPS)]
                )
            events.append(e)
    events.sort(key=lambda e: e["start"])
    keys = {
        "fast": ["moving fast"],
        "crossing": ["crossing"],
        "congestion": ["congested"],
        "restricted": ["restricted area"],
        "fire": ["on fire"],
        "collision": ["collided"],
        "dog": ["dog"],
    }
    windows = []
    for t0 in range(0, duration, 5):
        part = truths[t0 * FPS : (t0 + 5) * FPS]
        w = Truth(part)
        share = {
            f: sum(fixed_answer(p, f) is True for p in per[t0 * FPS : (t0 + 5) * FPS]) / len(part)
            for f in names
        }
        must = [k for f in names if share[f] >= 0.3 for k in keys[f]]
        may = [k for f in names if 0 < share[f] < 0.3 for k in keys[f]]
        fast = sorted(
            {f"{v['colour']} {v['type']}" for v in w.vehicles.values() if "fast" in v["speeds"]}
        )
        if share["fast"] >= 0.3:
            must += fast
        windows.append(
            {
                "start": t0,
                "end": t0 + 5,
                "keywords": must,
                "possible_keywords": may,
                "spoken_keywords": [
                    x["text"] for x in said if x["start"] < t0 + 5 and x["end"] > t0
                ],
                "events": {f: (None if 0 < share[f] < 0.3 else share[f] > 0) for f in names},
                "vehicles": sorted({f"{v['colour']} {v['type']}" for v in w.vehicles.values()}),
                "caption": caption(w, "plain") if w.congested is not None else None,
                "caption_unusual": caption(w, "unusual") if w.congested is not None else None,
                "caption_congestion": caption(w, "congestion") if w.congested is not None else None,
            }
        )
    with open(os.path.splitext(path)[0] + ".truth.json", "w") as f:
        json.dump(
            {
                "file": os.path.basename(path),
                "seed": seed,
                "width": W,
                "height": H,
                "fps": FPS,
                "gop": 2 * FPS,
                "duration": duration,
                "light": s.world.light,
                "events": events,
                "speech": said,
                "windows": windows,
            },
            f,
            indent=1,
        )
    print(
        path,
        os.path.getsize(path),
        [
            (e["event"], e["start"], e["end"], e.get("vehicles", e.get("people", "")))
            for e in events
        ],
    )


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("seed", help="'demo' or a number")
    ap.add_argument("out")
    ap.add_argument("--light", choices=LIGHTS, help="instead of the one drawn from the seed")
    a = ap.parse_args()
    if a.seed == "demo":
        make(*demo(), a.out, DEMO_SEED)
    else:
        make(*shuffled(int(a.seed), a.light), a.out, int(a.seed))


if __name__ == "__main__":
    main()
