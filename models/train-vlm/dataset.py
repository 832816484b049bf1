"""Random windows of random scenes, written as shards of training samples.

    python dataset.py OUT_DIR FIRST_SEED COUNT [--shard-size N]

A shard is one .npz: frames uint8 [n, 192, 192, 3], patch labels (packed bits) [n, 144, ..], `index`
(first frame of each window) and the ground truth of every window as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random

import numpy as np
from PIL import Image

from language import Truth
from picture import camera_noise, render
from scene import COLOURS, LANES, LIGHTS, TYPES, H, Layout, W, World

SIZE, GRID = 192, 12
LABELS = (
    [f"{d}_{c}_{k}" for d in "LR" for c in COLOURS for k in TYPES]
    + [f"{d}_{s}" for d in "LR" for s in ("stopped", "slow", "fast")]
    + ["fire", "collision", "crossing", "running", "walking", "restricted", "dog"]
)
LID = {n: i for i, n in enumerate(LABELS)}


AIMED_FROM = 100_000  # scenes from this seed on let fast actors pass while a picture is taken


def random_world(seed: int, duration: float, times=(3.0,)) -> World:
    """A scene that runs for `duration` seconds and is looked at at `times`."""
    aimed = seed >= AIMED_FROM
    r = random.Random(seed * 2654435761 % (1 << 31))
    w = World(
        Layout.random(r.randint(0, 1 << 30)), r.choices(LIGHTS, (0.4, 0.2, 0.22, 0.18))[0], seed
    )
    kind = r.choices(("calm", "jam", "fire", "crash", "empty"), (0.53, 0.2, 0.14, 0.1, 0.03))[0]
    fresh = [(c, k) for c in COLOURS for k in TYPES for _ in range(3 if k == "car" else 2)]

    def pair():
        c = r.choice(fresh)
        while c in fresh:
            fresh.remove(c)
        return c

    if kind == "jam" or (kind in ("fire", "crash") and r.random() < 0.12):
        for lane in (0, 1):
            d = LANES[lane]["dir"]
            pos = r.uniform(0, 230 if lane == 0 else 330)
            creep = r.choice((0, 0, 16, 30))
            while pos < W + 240:
                c, k = r.choice(list(COLOURS)), r.choices(list(TYPES), (0.72, 0.15, 0.13))[0]
                length = TYPES[k][0] * LANES[lane]["scale"]
                w.spawn_vehicle(
                    k, c, lane, creep, x=(W - pos - length / 2) if d > 0 else pos + length / 2
                )
                pos += length + r.uniform(9, 26)
            if creep == 0 and r.random() < 0.4:
                w.gates[lane] = w.vehicles[-1].x
    elif kind != "empty":
        n = r.choices((0, 1, 2, 3, 4), (0.1, 0.33, 0.34, 0.18, 0.05))[0]
        if kind == "fire":
            n = max(1, min(n, 2))
        if kind == "crash":
            n = min(n, 2)
        for _ in range(n):
            c, k = pair()
            lane = r.randint(0, 1)
            speed = r.choices(("fast", "slow", "stopped"), (0.44, 0.33, 0.23))[0]
            v = {"fast": r.uniform(190, 330), "slow": r.uniform(28, 70), "stopped": 0.0}[speed]
            if aimed and speed == "fast" and any(o.lane == lane for o in w.vehicles):
                lane = 1 - lane
            moment = r.choice(times) + 0.3 if aimed else 0
            for _ in range(8):
                if aimed and speed == "fast":
                    x = r.uniform(70, W - 70) - LANES[lane]["dir"] * moment * v
                    if all(o.lane != lane for o in w.vehicles):
                        w.spawn_vehicle(k, c, lane, v, x=x, obeys=False)
                    break
                x = r.uniform(20, W - 20) - LANES[lane]["dir"] * (
                    r.uniform(0, duration) * v if speed == "fast" else r.uniform(0, 2) * v
                )
                if all(o.lane != lane or abs(o.x - x) > 190 for o in w.vehicles):
                    w.spawn_vehicle(k, c, lane, v, x=x, obeys=r.random() < 0.8 and speed != "fast")
                    break
        if kind == "crash":
            (c1, k1), (c2, k2) = pair(), pair()
            lane = r.randint(0, 1)
            w.vehicles = [v for v in w.vehicles if v.lane != lane][:1]
            x = r.uniform(150, W - 150)
            a = w.spawn_vehicle(k1, c1, lane, 0, x=x)
            w.collide(a, w.spawn_vehicle(k2, c2, lane, 0, x=x))
    if kind == "fire" and w.vehicles:
        inside = [v for v in w.vehicles if 70 < v.x < W - 70]
        v = r.choice(inside or w.vehicles)
        if not inside:
            v.x = r.uniform(90, W - 90)
            w.vehicles = [o for o in w.vehicles if o is v or o.lane != v.lane]
        v.want = v.v = 0
        v.fire_since = r.choice(
            (-r.uniform(2, 20), -r.uniform(2, 20), r.uniform(0, duration * 0.6))
        )
    if kind != "empty":
        people = 0
        if r.random() < (0.12 if kind == "jam" else 0.4):
            for _ in range(r.choice((1, 1, 2, 2, 3))):
                w.spawn_crosser(r.random() < 0.5, r.uniform(0, 0.75))
                people += 1
        if r.random() < 0.28:
            for _ in range(r.choice((1, 1, 1, 2))):
                w.spawn_intruder(inside=r.random() < 0.75)
                people += 1
        if r.random() < (0.22 if aimed else 0.17):
            d = r.choice((-1, 1))
            t = r.uniform(0, duration)
            if aimed:
                p = w.spawn_walker(r.random() < 0.5, d, x=0, run=True)
                p.x = r.uniform(30, W - 30) - p.vx * (r.choice(times) + 0.3)
            else:
                w.spawn_walker(
                    r.random() < 0.5,
                    d,
                    x=(0 if d > 0 else W) + d * (r.uniform(0, W) - 130 * t),
                    run=True,
                )
            people += 1
        for _ in range(min(4 - people, r.choices((0, 1, 2), (0.5, 0.33, 0.17))[0])):
            w.spawn_walker(r.random() < 0.5, r.choice((-1, 1)), x=r.uniform(0, W))
        if r.random() < (0.2 if aimed else 0.14):
            w.spawn_dog(r.random() < 0.4, r.choice((-1, 1)), r.uniform(0, W))
    return w


def random_window(seed: int, size=SIZE, noise=True, max_frames=4):
    """(frames, truths, crops) of a window of 1..4 frames, or None where the truth would be ambiguous."""
    r = random.Random(seed ^ 0x5EED)
    n = r.choices((1, 2, 3, 4), (0.22, 0.26, 0.28, 0.24))[0]
    n = min(n, max_frames)
    duration = r.uniform(2, 10)
    times = (
        [duration * (i / max(1, n - 1)) for i in range(n)]
        if r.random() < 0.5
        else [duration * (i + 0.5) / n for i in range(n)]
    )
    w = random_world(seed, duration, times)
    for _ in range(3):
        w.step()
    z, sx, sy = r.uniform(0, 0.05), r.random(), r.random()
    if r.random() < 0.3:
        z = 0
    crop = (W * z * sx, H * z * sy, W * z * sx + W * (1 - z), H * z * sy + H * (1 - z))
    nseed = r.randint(0, 1 << 30)
    steps = 0
    shots = []
    for t in times:
        while steps < round(t * 10):
            w.step()
            steps += 1
        shots.append((w.truth(), render(w)))
    truths = [t for t, _ in shots]
    if not Truth(truths).usable:
        return None
    frames = []
    for _, im in shots:
        if noise:
            im = camera_noise(im, random.Random(nseed))
            im = im.resize(
                (size, size),
                r.choice((Image.LANCZOS, Image.LANCZOS, Image.BICUBIC, Image.BILINEAR)),
                box=crop,
            )
        else:
            im = im.resize((size, size), Image.LANCZOS)
        frames.append(im)
    return frames, truths, crop if noise else (0, 0, W, H)


def patch_labels(objs, crop) -> np.ndarray:
    """[144, labels] bool: which attribute each 16x16 patch shows."""
    out = np.zeros((GRID, GRID, len(LABELS)), bool)
    kx, ky = GRID / (crop[2] - crop[0]), GRID / (crop[3] - crop[1])
    for o in objs:
        if o["vis"] < 0.25:
            continue
        b = (
            (o["box"][0] - crop[0]) * kx,
            (o["box"][1] - crop[1]) * ky,
            (o["box"][2] - crop[0]) * kx,
            (o["box"][3] - crop[1]) * ky,
        )
        if o["obj"] == "vehicle":
            d = "LR"[o["lane"]]
            ids = [LID[f"{d}_{o['colour']}_{o['type']}"]]
            if o["collided"]:
                ids.append(LID["collision"])
            else:
                ids.append(LID[f"{d}_{o['speed']}"])
            if o["fire"]:
                ids.append(LID["fire"])
        elif o["obj"] == "person":
            a = {"kerb": "walking", "entering": "walking"}.get(o["act"], o["act"])
            ids = [LID[a]]
        else:
            ids = [LID["dog"]]
        area = (b[2] - b[0]) * (b[3] - b[1])
        for gy in range(max(0, int(b[1])), min(GRID - 1, int(b[3])) + 1):
            for gx in range(max(0, int(b[0])), min(GRID - 1, int(b[2])) + 1):
                ov = max(0, min(b[2], gx + 1) - max(b[0], gx)) * max(
                    0, min(b[3], gy + 1) - max(b[1], gy)
                )
                if ov > 0.3 or ov > 0.25 * area:
                    out[gy, gx, ids] = True
    return out.reshape(GRID * GRID, -1)


def build_shard(path, seeds):
    """Writes the usable windows of some seeds to one .npz; returns their number and that of the frames."""
    frames, labels, index, truths, used = [], [], [], [], []
    for s in seeds:
        got = random_window(s)
        if got is None:
            continue
        ims, tr, crop = got
        index.append(len(frames))
        used.append(s)
        truths.append([[{k: v for k, v in o.items() if k != "box"} for o in objs] for objs in tr])
        for im, objs in zip(ims, tr):
            frames.append(np.asarray(im, np.uint8))
            labels.append(np.packbits(patch_labels(objs, crop), axis=-1))
    tmp = path + ".tmp.npz"
    np.savez(
        tmp,
        frames=np.stack(frames),
        labels=np.stack(labels),
        index=np.array(index + [len(frames)]),
        seeds=np.array(used),
        truths=np.frombuffer(json.dumps(truths).encode(), np.uint8),
    )
    os.replace(tmp, path)
    return len(used), len(frames)


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("first_seed", type=int)
    ap.add_argument("count", type=int)
    ap.add_argument("--shard-size", type=int, default=1000)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    end = a.first_seed + a.count
    for k in range(a.first_seed, end, a.shard_size):
        path = f"{a.out}/shard_{k:08d}.npz"
        if not os.path.exists(path):
            print(path, *build_shard(path, range(k, min(k + a.shard_size, end))), flush=True)


if __name__ == "__main__":
    main()
