"""Ground truth -> sentences: captions for describing prompts, yes/no answers for event prompts."""

from __future__ import annotations

import random

from scene import COLOURS, CONGESTION_MIN, TYPES

SPEED_RANK = {"stopped": 0, "slow": 1, "fast": 2}
NUMBER = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
SEEN, MAYBE = 0.4, 0.12  # visible fraction to be reported, and to be left unasked


class Truth:
    """What is visible in a window: the union over its frames (each a list from World.truth())."""

    def __init__(self, frames: list[list[dict]]):
        self.vehicles, self.maybe = {}, []
        act, cross, inside = {}, [], []
        self.dog = None
        self.fire = self.smoke = self.collision = False
        self.unsure = set()  # events that can be answered neither way
        cong = []
        for objs in frames:
            slow = 0
            n_cross = n_in = 0
            for o in objs:
                vis = o["vis"]
                if o["obj"] == "vehicle":
                    if vis >= SEEN:
                        v = self.vehicles.setdefault(
                            o["id"],
                            {
                                "type": o["type"],
                                "colour": o["colour"],
                                "lane": o["lane"],
                                "speed": o["speed"],
                                "speeds": set(),
                                "fire": False,
                                "collided": o["collided"],
                            },
                        )
                        v["speeds"].add(o["speed"])
                        if SPEED_RANK[o["speed"]] > SPEED_RANK[v["speed"]]:
                            v["speed"] = o["speed"]
                        v["fire"] |= o["fire"]
                        self.fire |= o["fire"]
                        self.smoke |= o["smoke"]
                        self.collision |= o["collided"]
                        slow += o["speed"] != "fast" and not o["collided"]
                    elif vis >= MAYBE:
                        self.maybe.append(o)
                        if o["fire"] or o["smoke"]:
                            self.unsure.add("fire")
                        if o["collided"]:
                            self.unsure.add("collision")
                elif o["obj"] == "person":
                    if vis >= 0.5:
                        act.setdefault(o["id"], set()).add(o["act"])
                        n_cross += o["act"] == "crossing"
                        n_in += o["act"] == "restricted"
                        if o["act"] == "entering":
                            self.unsure.add("restricted")
                        if o["act"] == "kerb":
                            self.unsure.add("crossing")
                    elif vis >= 0.15:
                        self.unsure.update(
                            {"walking", "running", "crossing"}
                            if o["act"] != "restricted"
                            else {"restricted"}
                        )
                elif vis >= 0.5:
                    self.dog = o["place"]
                elif vis >= 0.15:
                    self.unsure.add("dog")
            cross.append(n_cross)
            inside.append(n_in)
            cong.append(
                True if slow >= CONGESTION_MIN else None if slow == CONGESTION_MIN - 1 else False
            )
        self.crossing, self.inside = max(cross), max(inside)
        self.running = sum("running" in a for a in act.values())
        self.walking = sum(a <= {"walking", "kerb", "entering"} for a in act.values())
        self.congested = True if True in cong else None if None in cong else False
        for k, have in (
            ("restricted", self.inside),
            ("crossing", self.crossing),
            ("running", self.running),
            ("walking", self.walking),
            ("fire", self.fire),
            ("collision", self.collision),
            ("dog", self.dog),
        ):
            if have:
                self.unsure.discard(k)
        if self.smoke and not self.fire:
            self.unsure.add("fire")
        if any("walking" in a for a in act.values()) and not self.walking:
            self.unsure.add("walking")
        self.empty = not self.vehicles and not act and not self.dog

    @property
    def usable(self):
        """False where the events that matter most can be answered neither way."""
        return self.congested is not None and not self.unsure & {"fire", "collision", "restricted"}

    def ranked(self):
        """Vehicles in the order in which they are reported; crashed and burning ones are told apart."""
        plain = [v for v in self.vehicles.values() if not v["fire"] and not v["collided"]]
        return sorted(
            plain, key=lambda v: (-SPEED_RANK[v["speed"]], v["lane"], v["type"], v["colour"])
        )


def article(v):
    """'a white car'."""
    return f"a {v['colour']} {v['type']}"


def _pick(r, *options):
    """The first option is the usual wording."""
    return options[0] if r is None or r.random() < 0.8 else r.choice(options)


def _cap(s):
    return s[0].upper() + s[1:]


def _join(parts):
    if len(parts) < 3:
        return " and ".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def vehicle_clause(v, r):
    """What one vehicle does, as a clause."""
    side = "left" if v["lane"] == 0 else "right"
    if v["speed"] == "fast":
        return f"{article(v)} is " + _pick(r, "moving fast", "driving fast") + f" to the {side}"
    if v["speed"] == "slow":
        return f"{article(v)} is " + _pick(r, "moving slowly", "driving slowly") + f" to the {side}"
    return f"{article(v)} is stopped"


def caption(t: Truth, style: str, r: random.Random | None = None) -> str:
    """style: 'plain', 'unusual' or 'congestion'.  r=None gives the usual wording throughout."""
    if t.empty:
        tail = {
            "plain": "",
            "unusual": " No unusual behavior.",
            "congestion": " No congestion, traffic is flowing.",
        }[style]
        return "The street is empty." + tail
    out = []
    unusual = []
    if t.inside:
        unusual.append(
            _pick(
                r, "someone is inside the restricted area", "a person is inside the restricted area"
            )
            if t.inside == 1
            else f"{NUMBER[t.inside]} people are inside the restricted area"
        )
    for v in sorted(
        (v for v in t.vehicles.values() if v["fire"]), key=lambda v: (v["type"], v["colour"])
    )[:1]:
        unusual.append(f"{article(v)} is on fire")
    if t.collision:
        unusual.append(_pick(r, "two vehicles have collided", "two vehicles have crashed"))
    if style != "unusual" and unusual:
        out.append(_cap(_join(unusual)) + ".")
    ranked = t.ranked()
    if t.congested:
        if style != "congestion":
            out.append(
                _pick(
                    r,
                    "Traffic is congested with many vehicles.",
                    "There is a traffic jam with many vehicles.",
                )
            )
    elif ranked:
        out.append(_cap(_join([vehicle_clause(v, r) for v in ranked[:3]])) + ".")
    people = []
    if t.crossing:
        people.append(
            "one person is " + "crossing the zebra crossing"
            if t.crossing == 1
            else f"{NUMBER[t.crossing]} people are crossing the zebra crossing"
        )
    if t.running:
        people.append(
            "one person is running" if t.running == 1 else f"{NUMBER[t.running]} people are running"
        )
    if t.walking:
        people.append(
            "one person is walking on the sidewalk"
            if t.walking == 1
            else f"{NUMBER[min(6, t.walking)]} people are walking on the sidewalk"
        )
    if t.dog:
        people.append(f"a dog is on the {t.dog}")
    if people:
        out.append(_cap(_join(people)) + ".")
    if style == "unusual":
        out.append(
            "Unusual behavior: " + _join(unusual) + "." if unusual else "No unusual behavior."
        )
    elif style == "congestion":
        out.append(
            _pick(
                r,
                "Traffic is congested, many vehicles are stopped or moving slowly.",
                "Heavy congestion, many vehicles are stopped or moving slowly.",
            )
            if t.congested
            else _pick(
                r, "No congestion, traffic is flowing.", "Traffic is flowing, no congestion."
            )
        )
    return " ".join(out)


# ------------------------------------------------------------------ prompts
PROMPTS = {
    "plain": [
        "Describe the scene",
        "Describe what is happening",
        "Describe the scene.",
        "Describe what is happening.",
        "What is happening?",
        "What is happening in the video?",
        "Describe the video",
        "Describe this video.",
        "What do you see?",
        "Describe the image",
        "Describe this scene in detail",
        "Can you describe this video?",
        "Give a short description of the scene.",
        "Summarize the video.",
        "Summarize what happens",
        "Describe the activity on the street.",
        "Report what the camera sees.",
        "Caption this video.",
        "Tell me what is going on.",
        "Describe the traffic and the people.",
    ],
    "unusual": [
        "Describe activity and detect unusual behavior",
        "Describe activity and detect unusual behavior.",
        "Describe the activity and detect any unusual behavior",
        "Detect unusual behavior",
        "Describe the scene and report anomalies",
        "Is there any unusual behavior? Describe the scene.",
        "Describe what is happening and highlight unusual behavior",
        "Detect anomalies and describe the scene.",
        "Describe activity and report anything suspicious.",
        "Watch for unusual activity and describe it.",
        "Describe the scene and detect unusual events",
    ],
    "congestion": [
        "Describe the scene and highlight congestion",
        "Describe the scene and highlight congestion.",
        "Describe the traffic and highlight congestion",
        "Describe the scene and report congestion",
        "Is the traffic congested? Describe the scene.",
        "Describe the traffic situation.",
        "Highlight congestion",
        "Describe the video and say if there is a traffic jam.",
        "Report the traffic flow and congestion.",
        "Describe traffic congestion in the scene",
    ],
}
HELD_OUT_PROMPTS = {
    "plain": [
        "What is going on in this video?",
        "Please describe the scene.",
        "Describe the street",
    ],
    "unusual": [
        "Describe the activity and highlight unusual behavior.",
        "Report any unusual behavior in the scene",
    ],
    "congestion": [
        "Describe what is happening and highlight congestion",
        "Describe the scene and detect congestion",
    ],
}

WRAPPERS = ["Is this happening in the video: {}? Answer yes or no."] * 6 + [
    "Is the following happening in the video: {}? Answer yes or no.",
    "Is this happening: {}? Answer yes or no.",
    "Does the video show this: {}? Answer yes or no.",
    "{}. Answer yes or no.",
]
WRAPPER = WRAPPERS[0]

FIXED = {
    "restricted": [
        "Detect when someone enters restricted area",
        "Detect when someone enters the restricted area",
        "someone enters the restricted area",
        "a person inside the restricted area",
        "Detect intrusion",
        "an intruder in the restricted area",
        "someone is in the restricted zone",
        "person in restricted area",
        "Alert me when a person is in the fenced area",
        "Detect a person in the restricted area",
        "trespassing in the restricted area",
        "someone entered the restricted area",
    ],
    "crossing": [
        "Detect pedestrians crossing the zebra",
        "people crossing the zebra crossing",
        "a person crossing the road",
        "pedestrians crossing the street",
        "someone is on the zebra crossing",
        "Detect people crossing the road",
        "a pedestrian on the crosswalk",
        "Detect pedestrians on the zebra crossing",
        "people crossing the street",
    ],
    "fire": [
        "Detect a vehicle on fire",
        "a vehicle on fire",
        "a burning vehicle",
        "fire or smoke from a vehicle",
        "Detect fire",
        "Detect smoke or fire",
        "a car is burning",
        "flames and smoke on the road",
        "Detect a burning vehicle",
    ],
    "congestion": [
        "Detect traffic congestion",
        "traffic congestion",
        "a traffic jam",
        "Detect a traffic jam",
        "heavy traffic",
        "many vehicles stuck in traffic",
        "the road is congested",
        "congested traffic",
        "Detect heavy traffic",
    ],
    "collision": [
        "Detect a collision",
        "two vehicles collided",
        "a car crash",
        "Detect a traffic accident",
        "a collision of two vehicles",
        "an accident on the road",
        "Detect a vehicle crash",
    ],
    "running": [
        "a person running",
        "Detect someone running",
        "someone is running",
        "a running person",
        "Detect a running person",
    ],
    "walking": [
        "people walking on the sidewalk",
        "a person walking on the sidewalk",
        "Detect people walking",
        "someone is walking on the sidewalk",
    ],
    "dog": [
        "a dog",
        "Detect a dog",
        "there is a dog",
        "an animal on the street",
        "Detect an animal",
    ],
    "empty": [
        "an empty street",
        "the street is empty",
        "Detect an empty street",
        "nobody and no vehicle on the street",
    ],
    "fast": [
        "a vehicle moving fast",
        "Detect a speeding vehicle",
        "Detect fast vehicles",
        "any vehicle moving fast",
        "a fast vehicle",
        "Detect speeding",
    ],
    "stopped": [
        "a stopped vehicle",
        "Detect a stopped vehicle",
        "a vehicle is stopped on the road",
    ],
}
HELD_OUT_EVENTS = {
    "restricted": [
        "a person enters the restricted zone",
        "Detect people inside the restricted area",
    ],
    "crossing": ["Detect people on the zebra crossing", "a pedestrian crossing the street"],
    "fire": ["a vehicle is burning", "Detect flames or smoke"],
    "congestion": ["the traffic is congested", "Detect congestion"],
    "collision": ["Detect a crash of two vehicles"],
    "running": ["a person is running"],
    "walking": ["Detect a person walking on the sidewalk"],
    "dog": ["a dog on the street"],
    "empty": ["the road is empty and nobody is there"],
    "fast": ["Detect a vehicle moving fast"],
    "stopped": ["Detect vehicles that are stopped"],
}
# share of windows in which each event is true; used to ask about each about as often with yes as with no
PRIOR = {
    "restricted": 0.27,
    "crossing": 0.33,
    "fire": 0.14,
    "congestion": 0.2,
    "collision": 0.1,
    "running": 0.2,
    "walking": 0.5,
    "dog": 0.17,
    "empty": 0.06,
    "fast": 0.35,
    "stopped": 0.5,
}


def fixed_answer(t: Truth, family: str):
    """True, False, or None where the frames do not settle it."""
    if family in t.unsure:
        return None
    if family == "empty":
        return (
            None
            if (not t.empty and not t.vehicles) or (t.empty and (t.maybe or t.unsure))
            else t.empty
        )
    if family == "fast":
        if any("fast" in v["speeds"] for v in t.vehicles.values()):
            return True
        return None if any(o["speed"] == "fast" or o["v"] > 90 for o in t.maybe) else False
    if family == "stopped":
        if any("stopped" in v["speeds"] for v in t.vehicles.values()):
            return True
        return None if any(o["v"] < 20 for o in t.maybe) else False
    return {
        "restricted": t.inside > 0,
        "crossing": t.crossing > 0,
        "fire": t.fire,
        "congestion": t.congested,
        "collision": t.collision,
        "running": t.running > 0,
        "walking": t.walking > 0,
        "dog": t.dog is not None,
    }[family]


VEHICLE_EVENTS = {
    "fast": [
        "a {c} {t} moving fast",
        "a {c} {t} driving fast",
        "a fast {c} {t}",
        "Detect a {c} {t} moving fast",
        "a {c} {t} speeding",
    ],
    "slow": [
        "a {c} {t} moving slowly",
        "a {c} {t} driving slowly",
        "Detect a {c} {t} moving slowly",
    ],
    "stopped": ["a {c} {t} stopped", "a stopped {c} {t}", "a {c} {t} is stopped on the road"],
    None: ["a {c} {t}", "a {c} {t} on the road", "Detect a {c} {t}", "there is a {c} {t}"],
}


def vehicle_answer(t: Truth, colour=None, kind=None, speed=None):
    """Whether such a vehicle is there: True, False, or None where the frames do not settle it."""

    def fits(v, speeds):
        return (
            (colour in (None, v["colour"]))
            and (kind in (None, v["type"]))
            and (speed is None or speed in speeds)
        )

    if any(fits(v, v["speeds"]) for v in t.vehicles.values()):
        return True
    if any(fits(o, {"fast", "slow", "stopped"}) for o in t.maybe):
        return None
    return False


def vehicle_event(t: Truth, r: random.Random, want: bool):
    """(text, answer, family) of a question about a vehicle, wrong ones mostly by one attribute."""
    speed = r.choice(["fast", "fast", "slow", "stopped", None, None])
    vs = list(t.vehicles.values())
    if vs and (want or r.random() < 0.75):
        if speed:
            vs = [v for v in vs if speed in v["speeds"]] or vs
        v = r.choice(vs)
        c, k = v["colour"], v["type"]
        if speed:
            speed = r.choice(sorted(v["speeds"]))
        if not want:
            what = r.choice(["c", "c", "k", "s", "s"] if speed else ["c", "k"])
            if what == "c":
                c = r.choice([x for x in COLOURS if x != c])
            elif what == "k":
                k = r.choice([x for x in TYPES if x != k])
            else:
                speed = r.choice([x for x in SPEED_RANK if x not in v["speeds"]] or [speed])
    else:
        c, k = r.choice(list(COLOURS)), r.choice(list(TYPES))
    a = vehicle_answer(t, c, k, speed)
    return r.choice(VEHICLE_EVENTS[speed]).format(c=c, t=k), a, "vehicle_" + (speed or "presence")


def event_question(t: Truth, r: random.Random, held_out=False, vehicle_share=0.35):
    """(event text, answer, family), balanced between yes and no."""
    want = r.random() < 0.5
    for _ in range(12):
        if r.random() < vehicle_share * (0.35 if t.congested else 1):
            text, a, fam = vehicle_event(t, r, want)
        else:
            fams = [f for f in FIXED if fixed_answer(t, f) is want]
            if not fams:
                continue
            w = [
                (1 / PRIOR[f] if want else 1 / (1 - PRIOR[f]))
                * (2 if f in ("restricted", "crossing", "fire", "congestion", "fast") else 1)
                for f in fams
            ]
            fam = r.choices(fams, w)[0]
            a = want
            text = r.choice((HELD_OUT_EVENTS if held_out else FIXED)[fam])
        if a is want:
            return text, a, fam
    return None


def wrap(event: str, r: random.Random | None = None) -> str:
    """The yes/no prompt of an event."""
    return (WRAPPER if r is None else r.choice(WRAPPERS)).format(event)


def describe_question(r: random.Random, held_out=False):
    """A random describing prompt and its style."""
    style = r.choice(["plain", "unusual", "congestion"])
    pool = (HELD_OUT_PROMPTS if held_out else PROMPTS)[style]
    return (pool[0] if not held_out and r.random() < 0.25 else r.choice(pool)), style
