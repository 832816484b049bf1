"""Deterministic synthetic street: the world's simulation and its exact ground truth.

A fixed camera looks across a two lane road with a zebra crossing, two sidewalks, buildings and a
fenced restricted area.  Everything is derived from integer seeds.  Coordinates are pixels of the
640x360 frame, time is seconds, speed is pixels per second.  `picture.py` draws it.

    world = World(Layout.random(seed), light="day", seed=seed)
    world.spawn_vehicle(...); world.spawn_walker(...)
    world.step(0.1); frame = render(world); objects = world.truth()
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

W, H, FPS = 640, 360, 10
COLOURS = {
    "white": (236, 238, 240),
    "black": (26, 26, 30),
    "red": (200, 26, 30),
    "blue": (28, 70, 200),
    "green": (24, 140, 56),
    "yellow": (246, 204, 26),
}
TYPES = {"car": (100, 46), "truck": (138, 64), "bus": (156, 68)}
LIGHTS = ("day", "dusk", "night", "fog")
# far lane drives left, near lane drives right; y is where the wheels touch the road
LANES = ({"y": 224, "dir": -1, "scale": 0.94}, {"y": 292, "dir": +1, "scale": 1.06})
ROAD_TOP, ROAD_BOTTOM = 164, 300
STOPPED, FAST = 8.0, 140.0  # speed class limits in px/s
CONGESTION_MIN = 6  # vehicles stopped or slow that make a congestion


def speed_class(v: float) -> str:
    """'stopped', 'slow' or 'fast' for a speed in px/s."""
    return "stopped" if v < STOPPED else "slow" if v < FAST else "fast"


@dataclass(frozen=True)
class Layout:
    """What differs between two cameras: positions and colours of the static background."""

    seed: int
    area_x0: int
    area_x1: int
    zebra_x0: int
    zebra_x1: int

    @staticmethod
    def random(seed: int) -> Layout:
        """The layout of a seed."""
        r = random.Random(seed * 7919 + 13)
        width = r.randrange(160, 220, 20)
        x0 = r.randint(14, 44) if r.random() < 0.5 else r.randint(W - 44 - width, W - 14 - width)
        z0 = r.randint(262, 306)
        return Layout(seed, x0, x0 + width, z0, z0 + r.randint(78, 92))


@dataclass
class Vehicle:
    """A vehicle; `x` is its centre, `v` its speed along the lane."""

    kind: str
    colour: str
    lane: int
    x: float  # centre
    v: float
    want: float  # desired speed
    obeys: bool = True  # stops for pedestrians
    fire_since: float | None = None
    collided: bool = False
    tilt: float = 0.0
    dy: float = 0.0
    uid: int = 0

    @property
    def dir(self):
        """+1 to the right, -1 to the left."""
        return LANES[self.lane]["dir"]

    @property
    def length(self):
        """In pixels, with the lane's perspective."""
        return TYPES[self.kind][0] * LANES[self.lane]["scale"]

    @property
    def height(self):
        """In pixels, with the lane's perspective."""
        return TYPES[self.kind][1] * LANES[self.lane]["scale"]


@dataclass
class Person:
    """A pedestrian; (x, y) is between the feet."""

    x: float
    y: float  # feet
    vx: float
    vy: float
    state: str  # walk, run, cross, restricted
    shirt: tuple
    trousers: tuple
    skin: tuple
    phase: float = 0.0
    target_y: float | None = None
    bounds: tuple | None = None  # x range to pace in
    uid: int = 0


@dataclass
class Dog:
    """A dog; (x, y) is between the paws."""

    x: float
    y: float
    vx: float
    colour: tuple
    uid: int = 0


SHIRTS = (
    (220, 60, 60),
    (60, 110, 220),
    (240, 220, 80),
    (240, 240, 240),
    (40, 160, 90),
    (160, 70, 180),
    (240, 140, 40),
    (90, 200, 220),
)
TROUSERS = ((30, 40, 80), (40, 40, 40), (90, 70, 50), (20, 60, 60))
SKINS = ((240, 200, 170), (200, 150, 110), (130, 90, 60))


class World:
    """All that moves, and the clock."""

    def __init__(self, layout: Layout, light: str = "day", seed: int = 0):
        self.layout, self.light, self.seed = layout, light, seed
        self.rng = random.Random(seed * 104729 + 7)
        self.vehicles: list[Vehicle] = []
        self.people: list[Person] = []
        self.dogs: list[Dog] = []
        self.gates: list[float | None] = [None, None]  # x where each lane is held up
        self.t = 0.0
        self._uid = 0

    def _next(self):
        self._uid += 1
        return self._uid

    def spawn_vehicle(self, kind, colour, lane, speed, x=None, **kw) -> Vehicle:
        """Adds a vehicle, by default just outside the picture or behind a queue there."""
        v = Vehicle(kind, colour, lane, 0.0, speed, speed, uid=self._next(), **kw)
        if x is None:  # just outside the picture
            x = -v.length / 2 - 4 if v.dir > 0 else W + v.length / 2 + 4
            for o in self.vehicles:  # queue up behind whoever waits there
                if o.lane == lane and not o.collided:
                    back = o.x - o.dir * (o.length / 2 + v.length / 2 + 16)
                    if (back - x) * v.dir < 0:
                        x = back
        v.x = x
        self.vehicles.append(v)
        return v

    def _person(self, x, y, vx, vy, state, **kw):
        r = self.rng
        p = Person(
            x,
            y,
            vx,
            vy,
            state,
            r.choice(SHIRTS),
            r.choice(TROUSERS),
            r.choice(SKINS),
            phase=r.random(),
            uid=self._next(),
            **kw,
        )
        self.people.append(p)
        return p

    def spawn_walker(self, near: bool, direction: int, x=None, run=False):
        """Adds a pedestrian on the near or far sidewalk."""
        r = self.rng
        speed = r.uniform(115, 150) if run else r.uniform(24, 40)
        y = r.uniform(330, 350) if near else r.uniform(148, 158)
        if x is None:
            x = -12 if direction > 0 else W + 12
        return self._person(x, y, direction * speed, 0, "run" if run else "walk")

    def spawn_crosser(self, down: bool, progress: float = 0.0):
        """Adds somebody who crosses the road, `progress` of the way already done."""
        r = self.rng
        x = r.uniform(self.layout.zebra_x0 + 10, self.layout.zebra_x1 - 10)
        y0, y1 = (156, 318) if down else (318, 156)
        p = self._person(
            x,
            y0 + (y1 - y0) * progress,
            0,
            math.copysign(r.uniform(22, 32), y1 - y0),
            "cross",
            target_y=y1,
        )
        return p

    def spawn_intruder(self, inside: bool = True):
        """A person inside the restricted area, or on the sidewalk about to walk into it."""
        r = self.rng
        lo, hi = self.layout.area_x0 + 18, self.layout.area_x1 - 18
        x = r.uniform(lo, hi)
        y = r.uniform(94, 116)
        vx = r.choice((-1, 1)) * r.uniform(0, 24)
        p = self._person(x, y if inside else 154, vx, 0, "restricted", bounds=(lo, hi))
        if not inside:
            p.target_y, p.vy, p.vx = y, -22, 0
        return p

    def spawn_dog(self, on_road: bool, direction: int, x: float):
        """Adds a dog."""
        r = self.rng
        y = r.uniform(200, 275) if on_road else r.uniform(328, 348)
        d = Dog(
            x,
            y,
            direction * r.uniform(20, 60),
            r.choice(((120, 80, 40), (60, 45, 30), (200, 170, 120))),
            uid=self._next(),
        )
        self.dogs.append(d)
        return d

    def collide(self, a: Vehicle, b: Vehicle):
        """Freeze two vehicles as crashed into each other at a's position."""
        for v in (a, b):
            v.collided, v.v, v.want = True, 0.0, 0.0
        b.x = a.x - (a.length + b.length) * 0.5 * 0.72 * (1 if self.rng.random() < 0.5 else -1)
        a.tilt, b.tilt = self.rng.uniform(9, 17), -self.rng.uniform(9, 17)
        mid = (LANES[0]["y"] + LANES[1]["y"]) / 2
        a.dy = (mid - LANES[a.lane]["y"]) * 0.6
        b.dy = (mid - LANES[b.lane]["y"]) * 0.6

    def crossing(self):
        """Whether anybody is on the zebra crossing."""
        return any(
            p.state == "cross" and ROAD_TOP - 4 < p.y < ROAD_BOTTOM + 10 for p in self.people
        )

    def step(self, dt: float = 1 / FPS):
        """Moves everything on by dt seconds."""
        self.t += dt
        busy = self.crossing()
        for lane in (0, 1):
            d = LANES[lane]["dir"]
            order = sorted(
                (v for v in self.vehicles if v.lane == lane and not v.collided),
                key=lambda v: -d * v.x,
            )
            ahead = None
            for v in order:
                front = d * v.x + v.length / 2  # position along the driving direction
                limit = v.want
                stops = []
                if ahead is not None:
                    stops.append((d * ahead.x - ahead.length / 2 - 12, ahead.v))
                if self.gates[lane] is not None and front < d * self.gates[lane] + 6:
                    stops.append((d * self.gates[lane], 0.0))
                if busy and v.obeys:
                    line = d * (self.layout.zebra_x0 - 10 if d > 0 else self.layout.zebra_x1 + 10)
                    if front < line + 4:
                        stops.append((line, 0.0))
                for pos, speed in stops:
                    gap = max(0.0, pos - front)
                    limit = min(
                        limit, speed + math.sqrt(2 * 220 * gap) * 0.55 if gap > 1.5 else speed
                    )
                if v.fire_since is not None and self.t > v.fire_since - 1:
                    limit = 0.0
                accel = 320 if limit < v.v else 90
                v.v += max(-accel * dt, min(accel * dt, limit - v.v))
                v.v = max(0.0, v.v)
                v.x += d * v.v * dt
                ahead = v
        self.vehicles = [
            v
            for v in self.vehicles
            if -4000 < v.x < W + 4000
            and not (v.dir * v.x > (W if v.dir > 0 else 0) + v.length / 2 + 10)
        ]
        for p in self.people:
            p.x += p.vx * dt
            p.y += p.vy * dt
            p.phase += dt * (abs(p.vx) + abs(p.vy)) / 26
            if p.target_y is not None and (p.target_y - p.y) * p.vy <= 0:
                p.y, p.vy, p.target_y = p.target_y, 0, None
                if p.state == "cross":
                    p.state, p.vx = "walk", self.rng.choice((-1, 1)) * self.rng.uniform(24, 40)
                elif p.state == "restricted":
                    p.vx = self.rng.choice((-1, 1)) * self.rng.uniform(6, 24)
                elif p.state == "leave":
                    p.state, p.vx = "walk", self.rng.choice((-1, 1)) * self.rng.uniform(24, 40)
            if (
                p.bounds
                and p.target_y is None
                and p.state == "restricted"
                and not p.bounds[0] < p.x < p.bounds[1]
            ):
                p.vx = -p.vx
                p.x = min(max(p.x, p.bounds[0]), p.bounds[1])
        # whoever is still on the way into the picture stays
        self.people = [
            p
            for p in self.people
            if -30 < p.x < W + 30 or (-2000 < p.x < W + 2000 and (p.x < W / 2) == (p.vx > 0))
        ]
        for g in self.dogs:
            g.x += g.vx * dt
        self.dogs = [g for g in self.dogs if -40 < g.x < W + 40]

    def leave_area(self):
        """Everyone inside the restricted area walks out again."""
        for p in self.people:
            if p.state == "restricted":
                p.state, p.vx, p.vy, p.target_y, p.bounds = "leave", 0, 24, 154, None

    def activity(self, p: Person) -> str:
        """What a person counts as doing."""
        if p.state in ("restricted", "leave"):
            return "restricted" if p.y < 122 else "entering" if p.y < 140 else "walking"
        if p.state == "cross":
            return "crossing" if ROAD_TOP < p.y < ROAD_BOTTOM + 6 else "kerb"
        return "running" if p.state == "run" else "walking"

    def truth(self) -> list[dict]:
        """Objects in the picture, each with its box; `vis` is the fraction inside the picture."""
        out = []
        for v in self.vehicles:
            y1 = LANES[v.lane]["y"] + v.dy
            box = (v.x - v.length / 2, y1 - v.height, v.x + v.length / 2, y1)
            out.append(
                {
                    "id": v.uid,
                    "obj": "vehicle",
                    "type": v.kind,
                    "colour": v.colour,
                    "lane": v.lane,
                    "speed": speed_class(v.v),
                    "v": round(v.v, 1),
                    "fire": v.fire_since is not None and self.t - v.fire_since > 0.5,
                    "smoke": v.fire_since is not None and self.t >= v.fire_since,
                    "collided": v.collided,
                    "box": box,
                    "vis": _visible(box),
                }
            )
        for p in self.people:
            h = person_height(p.y)
            box = (p.x - h * 0.2, p.y - h, p.x + h * 0.2, p.y)
            out.append(
                {
                    "id": p.uid,
                    "obj": "person",
                    "act": self.activity(p),
                    "box": box,
                    "vis": self._unoccluded(box, p.y),
                }
            )
        for g in self.dogs:
            box = (g.x - 17, g.y - 22, g.x + 17, g.y)
            out.append(
                {
                    "id": g.uid,
                    "obj": "dog",
                    "place": "road" if ROAD_TOP < g.y < ROAD_BOTTOM else "sidewalk",
                    "box": box,
                    "vis": self._unoccluded(box, g.y),
                }
            )
        return out

    def _unoccluded(self, b, y) -> float:
        """Visible fraction of a person or dog, less what the vehicles in front of it cover."""
        cover = 0.0
        for v in self.vehicles:
            y1 = LANES[v.lane]["y"] + v.dy
            if y1 > y:
                w = min(b[2], v.x + v.length / 2) - max(b[0], v.x - v.length / 2)
                h = min(b[3], y1) - max(b[1], y1 - v.height)
                if w > 0 and h > 0:
                    cover = max(cover, w * h / ((b[2] - b[0]) * (b[3] - b[1])))
        return round(_visible(b) * (1 - cover), 3)


def person_height(y: float) -> float:
    """In pixels, by where the feet are."""
    return 42 + (y - 90) * 0.085


def _visible(b) -> float:
    w = max(0.0, min(b[2], W) - max(b[0], 0))
    h = max(0.0, min(b[3], H) - max(b[1], 0))
    return round(w * h / max(1e-6, (b[2] - b[0]) * (b[3] - b[1])), 3)
