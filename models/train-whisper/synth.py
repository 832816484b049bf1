"""Synthesise the training corpus with libespeak-ng (16 kHz int16, with word and phoneme times).

  python synth.py --out work/corpus --n 16000 --seed 1            # training corpus
  python synth.py --out work/corpus2 --balance 150 --seed 2       # more of the rare words (>= 150 recordings each)
  python synth.py --out work/eval_a --n 400 --seed 77 --heldout   # held-out sentences, trained voices
  python synth.py --out work/eval_b --n 200 --seed 78 --heldout --heldout-voice

Writes OUT/audio.npy (int16, all utterances joined) and OUT/meta.json
(one entry per utterance: start, samples, text, voice, words[[char,len,t0,t1]], phones[[name,t0]]).
"""

import argparse
import collections
import ctypes as C
import json
import os
import random
import time

import numpy as np
from scipy.signal import resample_poly

from domain import display, norm, sentence, vocabulary

HELDOUT_VARIANT = "f2"  # never used in training, with any accent
ACCENTS = (
    ["en-us"] * 4 + ["en-gb"] * 4 + ["en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan"]
)
VARIANTS = ["", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f3", "f4", "f5"] * 2 + [
    "adam",
    "steph",
    "belinda",
    "michael",
    "linda",
    "Andy",
    "Annie",
    "klatt2",
    "max",
    "edward",
]


class _Id(C.Union):
    _fields_ = [("number", C.c_int), ("name", C.c_char_p), ("string", C.c_char * 8)]


class _Event(C.Structure):
    _fields_ = [
        ("type", C.c_int),
        ("uid", C.c_uint),
        ("text_position", C.c_int),
        ("length", C.c_int),
        ("audio_position", C.c_int),
        ("sample", C.c_int),
        ("user", C.c_void_p),
        ("id", _Id),
    ]


_CB = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))


class Espeak:
    """libespeak-ng through ctypes."""

    def __init__(self):
        self.lib = C.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(
            2, 0, None, 1
        )  # synchronous retrieval, phoneme events
        self._cb = _CB(self._on)
        self.lib.espeak_SetSynthCallback(self._cb)

    def _on(self, wav, n, ev):
        if n > 0:
            self.pcm.append(np.ctypeslib.as_array(wav, (n,)).copy())
        i = 0
        while ev[i].type:
            e = ev[i]
            if e.type == 1:
                self.words.append([e.text_position - 1, e.length, e.audio_position / 1000])
            elif e.type == 7:
                self.phones.append([e.id.string.decode("utf8", "replace"), e.audio_position / 1000])
            i += 1
        return 0

    def say(self, text, voice, rate=170, pitch=50, prange=50):
        """16 kHz samples of a text, with the times of its words and phonemes."""
        self.pcm, self.words, self.phones = [], [], []
        self.lib.espeak_SetVoiceByName(voice.encode())
        for p, v in ((1, rate), (3, pitch), (4, prange)):
            self.lib.espeak_SetParameter(p, v, 0)
        b = text.encode()
        self.lib.espeak_Synth(b, len(b) + 1, 0, 1, 0, 1, None, None)
        x = np.concatenate(self.pcm).astype(np.float32)
        x = resample_poly(x, 320, 441) if self.rate == 22050 else resample_poly(x, 16000, self.rate)
        # trim leading / trailing silence and shift the times
        env = np.abs(x) > 0.004 * np.abs(x).max()
        nz = np.flatnonzero(env)
        a, b = max(0, nz[0] - 160), min(len(x), nz[-1] + 320)
        x, t, end = x[a:b], a / 16000, (b - a) / 16000

        def clip(v):
            return round(min(max(v - t, 0.0), end), 3)

        words = [[p, n, clip(s)] for p, n, s in self.words]
        for i, w in enumerate(words):
            w.append(words[i + 1][2] if i + 1 < len(words) else round(end, 3))
        phones = [[p, clip(s)] for p, s in self.phones]
        return x * (20000 / np.abs(x).max()), words, phones


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--n", type=int, default=16000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument(
        "--balance",
        type=int,
        default=0,
        help="only sentences with a word recorded fewer times than this",
    )
    ap.add_argument("--heldout", action="store_true")
    ap.add_argument("--heldout-voice", action="store_true")
    ap.add_argument("--max-repeats", type=int, default=4)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    rng, es, seen = random.Random(a.seed), Espeak(), collections.Counter()
    pcm, meta, pos, t0 = [], [], 0, time.time()
    todo, count = {w.lower() for w in vocabulary()}, collections.Counter()
    while len(meta) < a.n and (todo or not a.balance):
        text = sentence(rng, a.heldout)
        if a.balance:
            words = norm(text)
            if todo.isdisjoint(words):
                continue
            count.update(words)
            todo -= {w for w in words if count[w] >= a.balance}
        elif seen[text] >= (1 if a.heldout else a.max_repeats):
            continue
        seen[text] += 1
        variant = HELDOUT_VARIANT if a.heldout_voice else rng.choice(VARIANTS)
        voice = rng.choice(ACCENTS) + ("+" + variant if variant else "")
        kw = {
            "rate": rng.randint(130, 200),
            "pitch": rng.randint(30, 70),
            "prange": rng.randint(30, 75),
        }
        x, words, phones = es.say(display(text), voice, **kw)
        pcm.append(x.astype(np.int16))
        meta.append(
            dict(
                start=pos,
                n=len(x),
                text=display(text),
                voice=voice,
                words=words,
                phones=phones,
                **kw,
            )
        )
        pos += len(x)
    np.save(os.path.join(a.out, "audio.npy"), np.concatenate(pcm))
    json.dump(meta, open(os.path.join(a.out, "meta.json"), "w"))
    print(
        f"{len(meta)} utterances, {pos / 16000 / 3600:.2f} h, {len(seen)} distinct, {time.time() - t0:.0f} s"
    )


if __name__ == "__main__":
    main()
