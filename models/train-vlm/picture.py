"""Draws the synthetic street (PIL, 640x360) and adds camera noise.  The same world gives the same pixels."""

from __future__ import annotations

import functools
import io
import math
import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from scene import (
    COLOURS,
    FAST,
    LANES,
    ROAD_BOTTOM,
    ROAD_TOP,
    STOPPED,
    TYPES,
    Dog,
    H,
    Layout,
    Person,
    W,
    World,
    person_height,
)


def render(world: World) -> Image.Image:
    """The picture now (RGB, 640x360)."""
    frame = _background(world.layout).copy()
    frng = random.Random(int(world.t * 1000) * 31 + world.seed)
    items = (
        [(LANES[v.lane]["y"] + v.dy, 0, v) for v in world.vehicles]
        + [(p.y, 1, p) for p in world.people]
        + [(g.y, 2, g) for g in world.dogs]
    )
    items.sort(key=lambda i: i[0])
    fence_done = False
    lights = []
    draw = ImageDraw.Draw(frame)
    for y, what, o in items:
        if not fence_done and y > 124:
            _front_fence(frame, world.layout)
            fence_done = True
        if what == 0:
            sprite = _vehicle_sprite(
                o.kind, o.colour, o.lane, int(o.v * 0.15 / 4) * 4 if o.v > FAST * 0.7 else 0
            )
            if o.tilt:
                sprite = sprite.rotate(o.tilt, resample=Image.BILINEAR, expand=True)
            sx, sy = (
                int(o.x - sprite.width / 2),
                int(LANES[o.lane]["y"] + o.dy - sprite.height + 4),
            )
            frame.paste(sprite, (sx, sy), sprite)
            if o.collided:
                for _ in range(9):
                    cx, cy = (
                        o.x + frng.uniform(-60, 60),
                        LANES[o.lane]["y"] + o.dy + frng.uniform(-8, 10),
                    )
                    draw.polygon(
                        [(cx, cy), (cx + 8, cy + 2), (cx + 3, cy - 6)], fill=(225, 225, 230)
                    )
            lights.append(o)
        elif what == 1:
            _draw_person(draw, o)
        else:
            _draw_dog(draw, o, world.t)
    if not fence_done:
        _front_fence(frame, world.layout)
    frame = frame.point(_light_lut(world.light))
    _emit(world, frame, lights, frng)
    return frame


def _emit(world, frame, vehicles, frng):
    """Lamps and flames shine whatever the daylight."""
    draw = ImageDraw.Draw(frame)
    for v in vehicles:
        if v.tilt:
            continue
        y = LANES[v.lane]["y"] - v.height * 0.45
        rear, front = v.x - v.dir * v.length / 2, v.x + v.dir * v.length / 2
        if v.v < STOPPED:  # brake lamps
            glow = _glow((255, 30, 20), 19)
            box = (int(rear - 19), int(y - 19))
            _add(frame, glow, box)
            draw.rectangle((rear - 5, y - 7, rear + 5, y + 7), fill=(255, 40, 30))
        elif world.light == "night":
            draw.rectangle((rear - 2, y - 4, rear + 2, y + 4), fill=(150, 20, 16))
        if world.light != "day":  # headlamps
            glow = _glow((150, 140, 100), 26)
            _add(frame, glow, (int(front + v.dir * 14 - 26), int(y - 22)))
    for v in vehicles:
        if v.fire_since is None or world.t < v.fire_since:
            continue
        age = world.t - v.fire_since
        size = min(1.0, 0.25 + age / 2.0)
        cx, cy = v.x + v.dir * v.length * 0.2, LANES[v.lane]["y"] + v.dy - v.height * 0.55
        patch = Image.new("RGBA", (220, 220), (0, 0, 0, 0))
        d = ImageDraw.Draw(patch)
        for i in range(12):  # smoke
            k = (i / 12 + world.t * 0.35) % 1.0
            r = (10 + 26 * k) * size
            px, py = 110 + 22 * math.sin(i * 2.1 + world.t) * k + 14 * k, 160 - 150 * k * size
            g = int(58 + 50 * k)
            d.ellipse((px - r, py - r, px + r, py + r), fill=(g, g, g, int(190 * (1 - k * 0.75))))
        for i in range(9):  # flames
            w = frng.uniform(9, 17) * size
            h = frng.uniform(26, 58) * size
            px, py = 110 + frng.uniform(-30, 30) * size, 166 + frng.uniform(-6, 8)
            col = ((255, 90, 10), (255, 150, 20), (255, 220, 90))[i % 3]
            s = (1, 0.8, 0.5)[i % 3]
            d.polygon(
                [(px - w * s, py), (px + frng.uniform(-6, 6), py - h * s), (px + w * s, py)],
                fill=col + (255,),
            )
        patch = patch.filter(ImageFilter.GaussianBlur(1.5))
        frame.paste(patch, (int(cx - 110), int(cy - 160)), patch)


@functools.cache
def _light_lut(light):
    gain, lift, tint = {
        "day": (1.0, 0, (1, 1, 1)),
        "dusk": (0.78, 4, (1.08, 0.93, 0.84)),
        "night": (0.56, 3, (0.86, 0.95, 1.18)),
        "fog": (0.62, 82, (1, 1, 1)),
    }[light]
    return [max(0, min(255, int(i * gain * tint[c] + lift))) for c in range(3) for i in range(256)]


@functools.lru_cache(maxsize=8)
def _background(lay: Layout) -> Image.Image:
    r = random.Random(lay.seed * 31337 + 5)
    im = Image.new("RGB", (W, H), (150 + r.randint(-15, 15), 185 + r.randint(-15, 15), 220))
    d = ImageDraw.Draw(im)
    x = -r.randint(0, 60)
    while x < W:  # buildings
        w, top = r.randint(70, 130), r.randint(0, 26)
        base = r.randint(105, 175)
        col = (base + r.randint(-10, 25), base + r.randint(-10, 10), base + r.randint(-25, 10))
        d.rectangle((x, top, x + w, 128), fill=col)
        for wy in range(top + 10, 112, 24):
            for wx in range(x + 8, x + w - 14, 22):
                d.rectangle((wx, wy, wx + 11, wy + 13), fill=tuple(max(0, c - 55) for c in col))
        x += w + r.randint(0, 8)
    grey = r.randint(158, 182)
    d.rectangle((0, 126, W, ROAD_TOP), fill=(grey, grey, grey - 8))
    d.rectangle((0, ROAD_TOP, W, ROAD_TOP + 4), fill=(120, 120, 116))
    road = r.randint(78, 98)
    d.rectangle((0, ROAD_TOP + 4, W, ROAD_BOTTOM), fill=(road, road, road + 4))
    d.rectangle((0, ROAD_BOTTOM, W, H), fill=(grey - 6, grey - 6, grey - 14))
    d.rectangle((0, ROAD_BOTTOM, W, ROAD_BOTTOM + 4), fill=(120, 120, 116))
    for x in range(0, W, 46):  # lane marking
        if not lay.zebra_x0 - 24 < x < lay.zebra_x1 + 4:
            d.rectangle((x, 231, x + 24, 234), fill=(225, 225, 215))
    for y in range(ROAD_TOP + 8, ROAD_BOTTOM - 8, 17):  # zebra crossing
        d.rectangle((lay.zebra_x0, y, lay.zebra_x1, y + 9), fill=(228, 228, 224))
    for x in range(0, W, 64):
        d.line((x, ROAD_BOTTOM + 4, x - 20, H), fill=(grey - 30,) * 3)
    # restricted area: hatched ground, red and white border, sign
    x0, x1 = lay.area_x0, lay.area_x1
    d.rectangle((x0, 70, x1, 126), fill=(196, 178, 120))
    for k in range(x0 - 56, x1, 18):
        pts = [(k, 126), (k + 56, 70)]
        a = max(0, x0 - k), max(0, k + 56 - x1)
        d.line(
            (pts[0][0] + a[0], 126 - a[0], pts[1][0] - a[1], 70 + a[1]),
            fill=(150, 120, 60),
            width=3,
        )
    for k in range(x0, x1, 20):
        d.rectangle((k, 66, k + 10, 71), fill=(214, 30, 30))
        d.rectangle((k + 10, 66, k + 20, 71), fill=(240, 240, 240))
    for x in (x0, x1):
        for y in range(66, 126, 20):
            d.rectangle((x - 3, y, x + 2, y + 10), fill=(214, 30, 30))
            d.rectangle((x - 3, y + 10, x + 2, y + 20), fill=(240, 240, 240))
    sx = x1 + 8 if x0 < W / 2 else x0 - 60
    d.rectangle((sx, 84, sx + 52, 112), fill=(245, 245, 245), outline=(200, 20, 20), width=3)
    d.text((sx + 5, 86), "RESTRIC", fill=(190, 10, 10))
    d.text((sx + 5, 98), "  AREA", fill=(190, 10, 10))
    d.line((sx + 26, 112, sx + 26, 130), fill=(90, 90, 90), width=3)
    for _ in range(r.randint(0, 2)):  # trees
        tx = r.choice([x for x in range(20, W, 30) if not x0 - 70 < x < x1 + 70])
        d.rectangle((tx - 3, 100, tx + 3, 140), fill=(90, 66, 40))
        d.ellipse((tx - 22, 58, tx + 22, 108), fill=(60, 118 + r.randint(-15, 15), 56))
    noise = np.random.default_rng(lay.seed).normal(0, 3.0, (H, W, 1))
    return Image.fromarray(np.clip(np.asarray(im, np.float32) + noise, 0, 255).astype(np.uint8))


def _front_fence(im, lay):
    d = ImageDraw.Draw(im)
    for k in range(lay.area_x0, lay.area_x1, 20):
        d.rectangle((k, 121, k + 10, 126), fill=(214, 30, 30))
        d.rectangle((k + 10, 121, k + 20, 126), fill=(240, 240, 240))


@functools.cache
def _vehicle_sprite(kind, colour, lane, blur) -> Image.Image:
    s = LANES[lane]["scale"] * 2  # drawn at twice the size, then reduced
    L, Hh = TYPES[kind]
    pad = 4
    im = Image.new("RGBA", (int((L + 2 * pad) * s), int((Hh + 2 * pad) * s)), (0, 0, 0, 0))
    d = ImageDraw.Draw(im)
    c = COLOURS[colour]
    dark = tuple(int(v * 0.72) for v in c)
    light = tuple(min(255, int(v * 1.15 + 12)) for v in c)
    glass = (120, 150, 170) if colour in ("black",) else (52, 64, 78)

    def R(x0, y0, x1, y1, fill, rad=0):
        b = tuple(int((v + pad) * s) for v in (x0, y0, x1, y1))
        d.rounded_rectangle(b, radius=int(rad * s), fill=fill)

    def P(pts, fill):
        d.polygon([((x + pad) * s, (y + pad) * s) for x, y in pts], fill=fill)

    d.ellipse(
        [int(v * s) for v in (pad - 2, Hh + pad - 7, L + pad + 2, Hh + pad + 4)],
        fill=(20, 20, 20, 110),
    )
    # everything is drawn driving right, and mirrored for the other lane
    if kind == "car":
        P([(18, 20), (32, 1), (68, 1), (84, 20)], dark)
        P([(25, 19), (35, 4), (49, 4), (49, 19)], glass)
        P([(53, 19), (53, 4), (66, 4), (77, 19)], glass)
        R(1, 18, 99, 39, c, 8)
        R(3, 19, 97, 25, light, 4)
        wheels = (24, 77)
    elif kind == "truck":
        R(0, 0, 98, 52, c, 2)
        R(0, 0, 98, 7, light, 2)
        for x in range(12, 96, 16):
            R(x, 8, x + 2, 50, dark)
        R(101, 14, 137, 54, dark, 5)
        R(112, 19, 134, 34, glass, 3)
        R(0, 52, 137, 56, (50, 50, 52))
        wheels = (22, 80, 118)
    else:
        R(0, 0, 155, 60, c, 7)
        R(4, 10, 151, 29, glass, 3)
        for x in range(26, 150, 22):
            R(x, 10, x + 3, 29, c)
        R(1, 44, 154, 49, dark)
        wheels = (30, 124)
    wr = 9 if kind == "car" else 10
    for x in wheels:
        d.ellipse(
            [int((v + pad) * s) for v in (x - wr, Hh - 2 * wr, x + wr, Hh)], fill=(18, 18, 18)
        )
        d.ellipse(
            [int((v + pad) * s) for v in (x - 4, Hh - wr - 4, x + 4, Hh - wr + 4)],
            fill=(150, 150, 150),
        )
    R(0, Hh * 0.5 - 4, 4, Hh * 0.5 + 5, (120, 14, 14))
    R(L - 5, Hh * 0.5 - 3, L - 1, Hh * 0.5 + 6, (250, 245, 200))
    im = im.resize((im.width // 2, im.height // 2), Image.BOX)
    if LANES[lane]["dir"] < 0:
        im = im.transpose(Image.FLIP_LEFT_RIGHT)
    if blur:  # horizontal motion blur, premultiplied average
        a = np.asarray(im, np.float32)
        a = np.concatenate([a[..., :3] * a[..., 3:] / 255, a[..., 3:]], -1)
        n = max(4, blur // 3)
        out = np.zeros((a.shape[0], a.shape[1] + blur, 4), np.float32)
        for i in range(n):
            o = int(i * blur / (n - 1))
            out[:, o : o + a.shape[1]] += a / n
        rgb = np.where(out[..., 3:] > 1, out[..., :3] * 255 / np.maximum(out[..., 3:], 1), 0)
        im = Image.fromarray(
            np.clip(np.concatenate([rgb, out[..., 3:]], -1), 0, 255).astype(np.uint8), "RGBA"
        )
    return im


@functools.cache
def _glow(colour, r):
    y, x = np.mgrid[-r:r, -r:r]
    k = np.clip(1 - np.hypot(x, y) / r, 0, 1)[..., None] ** 1.4
    return Image.fromarray((k * np.array(colour)).astype(np.uint8))


def _add(frame, glow, at):
    box = (at[0], at[1], at[0] + glow.width, at[1] + glow.height)
    if box[2] <= 0 or box[3] <= 0 or box[0] >= W or box[1] >= H:
        return
    frame.paste(ImageChops.add(frame.crop(box), glow), box)


def _draw_person(d: ImageDraw.ImageDraw, p: Person):
    h = person_height(p.y)
    u = h / 50
    run = p.state == "run"
    lean = 7 * u * (1 if p.vx > 0 else -1) if run else 0
    moving = abs(p.vx) + abs(p.vy) > 2
    s = math.sin(p.phase * 2 * math.pi) if moving else 0.2
    stride = (
        (13 if run else 5) * u * (s if not run else (0.75 + 0.25 * abs(s)) * (1 if s >= 0 else -1))
    )
    hip, sh = (p.x, p.y - 23 * u), (p.x + lean, p.y - 40 * u)
    lw = max(3, int(5.5 * u))
    d.ellipse((p.x - 9 * u, p.y - 2 * u, p.x + 9 * u, p.y + 3 * u), fill=(60, 60, 60))
    d.line((*hip, p.x + stride, p.y - 1), fill=p.trousers, width=lw)
    d.line((*hip, p.x - stride, p.y - 1 - (6 * u if run else 0)), fill=p.trousers, width=lw)
    arm = (11 if run else 4) * u * (-s if not run else -math.copysign(1, s))
    d.line((*sh, sh[0] + arm + 5 * u, sh[1] + 13 * u), fill=p.skin, width=max(2, int(3 * u)))
    d.line((*sh, sh[0] - arm - 5 * u, sh[1] + 13 * u), fill=p.skin, width=max(2, int(3 * u)))
    d.polygon(
        [
            (sh[0] - 6.5 * u, sh[1]),
            (sh[0] + 6.5 * u, sh[1]),
            (hip[0] + 6 * u, hip[1]),
            (hip[0] - 6 * u, hip[1]),
        ],
        fill=p.shirt,
    )
    hx, hy = sh[0] + lean * 0.3, sh[1] - 5.5 * u
    d.ellipse((hx - 5 * u, hy - 5 * u, hx + 5 * u, hy + 5 * u), fill=p.skin)
    d.pieslice((hx - 5 * u, hy - 5.6 * u, hx + 5 * u, hy + 4.4 * u), 180, 360, fill=(40, 30, 24))


def _draw_dog(d: ImageDraw.ImageDraw, g: Dog, t: float):
    f = 1 if g.vx >= 0 else -1
    x, y, c = g.x, g.y, g.colour
    d.ellipse((x - 14, y - 17, x + 12, y - 6), fill=c)
    hx = x + f * 14
    d.ellipse((hx - 6, y - 23, hx + 6, y - 12), fill=c)
    d.polygon([(hx + f * 4, y - 18), (hx + f * 11, y - 15), (hx + f * 4, y - 13)], fill=c)
    d.line((x - f * 13, y - 13, x - f * 20, y - 20), fill=c, width=3)
    k = 3 * math.sin(t * 9)
    for i, lx in enumerate((-9, -5, 6, 10)):
        d.line(
            (x + lx, y - 8, x + lx + (k if i % 2 else -k), y),
            fill=tuple(int(v * 0.7) for v in c),
            width=3,
        )


def camera_noise(im: Image.Image, rng: random.Random) -> Image.Image:
    """What lies between renderer and decoder: exposure, sensor noise and lossy compression."""
    gain, lift = rng.uniform(0.86, 1.14), rng.uniform(-10, 10)
    im = im.point([max(0, min(255, int(i * gain + lift))) for i in range(256)] * 3)
    if rng.random() < 0.35:
        im = im.filter(ImageFilter.BoxBlur(rng.choice((0.5, 0.8))))
    if rng.random() < 0.85:
        buf = io.BytesIO()
        im.save(buf, "JPEG", quality=rng.randint(28, 88))
        im = Image.open(buf).convert("RGB")
    return im
