"""Training samples: utterances joined with pauses, augmentation, Whisper log-mel, token targets."""

import collections
import itertools
import json
import os
import random

import numpy as np
import torch
import whisper
from whisper.tokenizer import get_tokenizer

from domain import vocabulary
from model import EOT, NOSP, NOT, PREV, SOT

TOK = get_tokenizer(multilingual=False)
_FILT = np.load(os.path.join(os.path.dirname(whisper.__file__), "assets", "mel_filters.npz"))[
    "mel_80"
]
FILTERS, WINDOW = torch.from_numpy(_FILT), torch.hann_window(400)


def domain_tokens():
    """Every token that the grammar's words need."""
    ids = set()
    for w in vocabulary():
        for v in {w, w[0].upper() + w[1:]}:
            for end in ("", ".", "?"):
                ids.update(TOK.encode(" " + v + end))
    return sorted(ids)


def log_mel(x):
    """x [B, n] float, n a multiple of 320 -> [B, 80, n/160], as whisper (reflect at the start, zeros after the end)."""
    x = torch.cat([x[:, 1:201].flip(1), x, torch.zeros(x.shape[0], 200)], 1)
    p = (
        torch.stft(x, 400, 160, window=WINDOW, center=False, return_complex=True)[..., :-1]
        .abs()
        .square()
    )
    m = (FILTERS @ p).clamp_min(1e-10).log10()
    m = torch.maximum(m, m.amax((1, 2), keepdim=True) - 8.0)
    return (m + 4) / 4


class Corpus:
    """Recordings of synth.py with tokens, times and phonemes of their words."""

    def __init__(self, paths, phones=None):
        self.audio, self.meta = [], []
        for k, p in enumerate([paths] if isinstance(paths, str) else paths):
            self.audio.append(np.load(os.path.join(p, "audio.npy"), mmap_mode="r"))
            self.meta += [dict(e, src=k) for e in json.load(open(os.path.join(p, "meta.json")))]
        self.phones = phones or ["_"] + sorted(
            {p for e in self.meta for p, _ in e["phones"]} - {"_"}
        )
        pid = {p: i for i, p in enumerate(self.phones)}
        for e in self.meta:
            starts = {w[0]: w for w in e["words"]}
            out, pos, last = [], 0, (0.0, e["n"] / 16000)
            for w in e["text"].split(" "):
                hit = starts.get(pos)
                if hit:
                    last = (hit[2], hit[3])
                out.append((TOK.encode(" " + w), last[0], last[1]))
                pos += len(w) + 1
            e["tok"] = out
            e["ph"] = [(pid.get(p, 0), t) for p, t in e["phones"]]
            del e["words"], e["phones"]
        freq = collections.Counter(k for e in self.meta for w in e["tok"] for k in w[0])
        w = [
            min(freq[k] for x in e["tok"] for k in x[0]) ** -0.5 for e in self.meta
        ]  # rare words more often
        self.cum = list(itertools.accumulate(w))

    def draw(self, rng):
        """A random recording, those with rare words more often."""
        return rng.choices(range(len(self.meta)), cum_weights=self.cum)[0]

    def wav(self, i):
        """A recording as float samples."""
        e = self.meta[i]
        return self.audio[e["src"]][e["start"] : e["start"] + e["n"]].astype(np.float32) / 32768


class Sampler:
    """Draws augmented training windows."""

    def __init__(self, corpus, model, seed=0):
        self.c, self.cm, self.ts0 = corpus, model.compact, model.ts0
        self.r, self.np = random.Random(seed), np.random.default_rng(seed)
        n = 16000 * 60
        white = self.np.standard_normal(n).astype(np.float32)
        f = np.fft.rfft(self.np.standard_normal(n))
        f[1:] /= np.sqrt(np.arange(1, len(f)))
        f[:50] = 0
        pink = np.fft.irfft(f, n).astype(np.float32)
        f2 = np.fft.rfft(self.np.standard_normal(n))
        f2[1:] /= np.arange(1, len(f2)) ** 1.0
        f2[:1200] = 0
        brown = np.fft.irfft(f2, n).astype(np.float32)
        self.noise = [v / v.std() for v in (white, pink, brown)]

    def add_noise(self, x, n, level):
        """Adds one kind of noise to the first n samples."""
        k = self.r.randrange(len(self.noise[0]) - n)
        x[:n] += level * self.r.choice(self.noise)[k : k + n]

    def sample(self, T, hard, off=0):
        """One window of T positions (20 ms each). Returns audio, phones[T], tokens, targets, spans.

        off > 0: the window plays the part of positions off..off+T of a 30 s window, so that late positions and
        timestamps are learned at the price of a short window."""
        r, n = self.r, T * 320
        x, ph = np.zeros(n, np.float32), np.zeros(T, np.int64)
        segs, end, cut = [], 0, False  # segs: (start, end | None, [(ids, t0, t1)])
        dur = T * 0.02
        if off or r.random() >= 0.04:
            t = r.uniform(0, 0.5) if r.random() < 0.85 else r.uniform(0, min(3.0, dur / 3))
            p_stop = r.choice([0.0, 0.15, 0.4, 0.8])
            first = True
            while True:
                i = self.c.draw(r)
                e = self.c.meta[i]
                L = e["n"] / 16000
                if t + L + 0.1 > dur:
                    if first and L + 0.12 < dur:
                        t = r.uniform(0, dur - L - 0.1)
                    elif first:
                        continue
                    elif (
                        hard and r.random() < 0.3 and 0.5 < dur - t < L - 0.1
                    ):  # speech runs over the window's end
                        s = int(t * 16000)
                        w = self.c.wav(i)[: n - s]
                        x[s : s + len(w)] += w
                        segs.append((t, None, []))
                        self.label(ph, e, t, 0.0, dur)
                        end = n
                        break
                    else:
                        break
                w, t0, words = self.c.wav(i), 0.0, e["tok"]
                if (
                    first and hard and r.random() < 0.04 and len(words) > 3
                ):  # window starts inside a sentence
                    k = r.randint(1, len(words) - 2)
                    t0, words, t = words[k][1], words[k:], 0.0
                    w = w[int(t0 * 16000) :]
                words = [(ids, a + t - t0, b + t - t0) for ids, a, b in words]
                s = int(t * 16000)
                w = w[: n - s] * r.choice([1, 1, 0.7, 0.4])
                x[s : s + len(w)] += w
                self.label(ph, e, t, t0, t + L - t0)
                segs.append((t, t + L - t0, words))
                end, first = s + len(w), False
                if (
                    hard and r.random() < 0.04 and len(words) > 3
                ):  # recording stops inside a sentence
                    k = r.randint(2, len(words) - 1)
                    c = words[k][1] + r.uniform(0, 0.05)
                    end = int(c * 16000)
                    x[end:] = 0
                    ph[int(c * 50) :] = 0
                    segs[-1] = (t, c, words[:k])
                    cut = True
                    break
                t += L - t0 + (r.uniform(0.12, 0.8) if r.random() < 0.75 else r.uniform(0.8, 2.5))
                if r.random() < p_stop:
                    break
        m = (
            end
            if cut
            else min(
                n,
                max(end, 1600) + int(16000 * r.choice([0, 0.1, 0.3, 1.0, 3.0, 30.0]) * r.random()),
            )
        )
        if r.random() < 0.12 and segs and not cut:  # mild reverb
            k = int(r.uniform(0.03, 0.2) * 16000)
            ir = self.np.standard_normal(k).astype(np.float32) * np.exp(
                -4 * np.arange(k) / k
            ).astype(np.float32)
            ir *= r.uniform(0.1, 0.5) / np.sqrt((ir**2).sum())
            ir[0] = 1
            N = 1 << (n + k).bit_length()
            x = np.fft.irfft(np.fft.rfft(x, N) * np.fft.rfft(ir, N), N)[:n].astype(np.float32)
        sp = np.sqrt((x**2).mean() * n / max(end, 1)) if segs else 0.1
        if r.random() < 0.75:
            self.add_noise(x, m, sp * 10 ** (-r.uniform(10, 40) / 20))
        x *= 10 ** (r.uniform(-24, 6) / 20)
        np.clip(x, -1, 1, out=x)
        return x, ph, *self.tokens(segs, off)

    @staticmethod
    def label(ph, e, t, t0, stop):
        """Writes an utterance's phonemes, one for each 20 ms."""
        p = e["ph"]
        for j, (q, s) in enumerate(p):
            z = p[j + 1][1] if j + 1 < len(p) else s
            a, b = int((s - t0 + t) * 50 + 0.5), int((min(z - t0 + t, stop)) * 50 + 0.5)
            if s >= t0 and b > a:
                ph[a:b] = q

    def tokens(self, segs, off=0):
        """Decoder input, targets, and the time span of each target."""
        r, cm = self.r, self.cm
        timed = r.random() < 0.75
        inp, tgt, span = [], [], []  # tgt: compact id, or -1 for no loss; span: frames or None

        def push(tok, sp=None, loss=True):  # `tok` follows the current input
            tgt.append(tok if loss else -1)
            span.append(sp)
            inp.append(tok)

        seq0 = [cm[SOT]]
        if r.random() < 0.12:  # previous-text prompt
            prev = [cm[PREV]]
            for _ in range(r.randint(1, 3)):
                e = r.choice(self.c.meta)
                a = r.randrange(1000)
                ids = [cm[k] for w in e["tok"] for k in w[0]]
                prev += [self.ts0 + a] + ids + [self.ts0 + a + e["n"] // 320] if timed else ids
            seq0 = prev + seq0
        inp += seq0
        tgt += [-1] * (len(seq0) - 1)
        span += [None] * (len(seq0) - 1)

        def ts(t):
            return self.ts0 + min(1500, max(0, round(t * 50) + off))

        if not timed:
            push(cm[NOT], loss=False)
        if not segs:
            if timed and r.random() < 0.7:
                push(cm[NOSP])
            elif timed:
                push(ts(0))
                push(cm[EOT])
            else:
                push(cm[EOT])
        else:
            if timed and off and r.random() < 0.5:  # text of the part before the window
                t = r.uniform(0, 1)
                while len(inp) < 160:
                    e = self.c.meta[self.c.draw(r)]
                    L = e["n"] / 16000
                    if t + L > off * 0.02:
                        break
                    push(self.ts0 + round(t * 50), loss=False)
                    for w in e["tok"]:
                        for q in w[0]:
                            push(cm[q], loss=False)
                    push(self.ts0 + round((t + L) * 50), loss=False)
                    t += L + (r.uniform(0.12, 0.8) if r.random() < 0.75 else r.uniform(0.8, 5))
            for k, (a, b, words) in enumerate(segs):
                if timed:
                    push(ts(min(a, 1.0) if k == 0 and not off else a), (a - 0.1, a + 0.2))
                for ids, t0, t1 in words:
                    for q in ids:
                        push(cm[q], (t0, t1))
                if timed and b is not None:
                    push(ts(b), (b - 0.2, b + 0.1))
            push(cm[EOT])
        return inp[:-1], tgt, span


def batch(sampler, B, T, hard, off=0):
    """One batch: log-mel, phonemes, tokens, targets, and the frames each target is spoken in."""
    items = [sampler.sample(T, hard, off) for _ in range(B)]
    L = max(len(i[2]) for i in items)
    mel = log_mel(torch.from_numpy(np.stack([i[0] for i in items])))
    ph = torch.from_numpy(np.stack([i[1] for i in items]))
    toks, tgt = torch.zeros(B, L, dtype=torch.long), torch.full((B, L), -1)
    guide = torch.zeros(B, L, 2, dtype=torch.long)  # [first frame, last frame + 1), 0,0 = none
    for b, (_, _, i, t, s) in enumerate(items):
        toks[b, : len(i)], tgt[b, : len(t)] = torch.tensor(i), torch.tensor(t)
        for j, p in enumerate(s):
            if p:
                a = min(T - 2, max(0, int(p[0] * 50) - 2))
                guide[b, j, 0], guide[b, j, 1] = a, min(T, max(a + 2, int(p[1] * 50) + 3))
    return mel, ph, toks, tgt, guide
