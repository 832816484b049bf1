"""Train the demo model on one CPU thread.

  OMP_NUM_THREADS=1 nice -n 5 python train.py --corpus CORPUS CORPUS2 --out RUN --schedule "256:16:1500,256:16+512:8+1500:3:3000"

`--schedule` is a comma-separated list of stages T:B[+T:B...]:SECONDS (T positions of 20 ms and batch size B, one T:B
drawn per step; wall-clock seconds). `--hard` adds windows that begin or end inside a sentence. `--resume CKPT`
continues from a checkpoint. A checkpoint is written every two minutes, at the end and on SIGTERM to RUN/last.pt. The learning rate is constant
for the --hold share of the time and then falls linearly to --final-lr times its value.
"""

import argparse
import math
import os
import signal
import time

import torch
import torch.nn.functional as F

from data import Corpus, Sampler, batch, domain_tokens
from model import Whisper


class Muon:
    """Momentum + orthogonalised updates for the hidden matrices, grouped by shape."""

    def __init__(self, params, momentum=0.95, wd=0.05):
        self.groups, self.mom, self.wd = {}, momentum, wd
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.buf = {s: torch.zeros(len(g), *s) for s, g in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        """One update."""
        for s, ps in self.groups.items():
            g, m = torch.stack([p.grad for p in ps]), self.buf[s]
            m.lerp_(g, 1 - self.mom)
            u = g.lerp(m, self.mom)
            t = s[0] > s[1]
            x = u.transpose(1, 2) if t else u
            x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)).bfloat16()
            for _ in range(5):
                a = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = (x.transpose(1, 2) if t else x).float() * (0.2 * math.sqrt(max(s)))
            for p, d in zip(ps, x):
                p.mul_(1 - lr * self.wd).sub_(d, alpha=lr)


def losses(model, b, off, pad_zero_keys, guide_w, phone_w):
    """Total loss of a batch, and its parts."""
    mel, ph, toks, tgt, guide = b
    T = ph.shape[1]
    pad = (-T) % 256 if pad_zero_keys else 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mem = model.encode(mel, pad, off)
        lp_ph = model.phone(mem)
        logits, ws = model.decode(mem, toks, pad, want=guide_w > 0)
    l_ph = F.cross_entropy(lp_ph.float().flatten(0, 1), ph.flatten())
    keep = tgt >= 0
    lp, t = model.log_probs(logits[keep]), tgt[keep]
    hard = -lp.gather(1, t[:, None])[:, 0]
    is_ts = t >= model.ts0
    nll = hard[~is_ts].mean()
    if is_ts.any():  # timestamps: Gaussian soft target, sigma 1.5 positions (30 ms)
        k = torch.arange(-4, 5)
        idx = t[is_ts][:, None] + k
        w = torch.exp(-0.5 * (k / 1.5) ** 2) * ((idx >= model.ts0) & (idx < lp.shape[1]))
        w = w / w.sum(1, keepdim=True)
        l_ts = -(lp[is_ts].gather(1, idx.clamp(max=lp.shape[1] - 1)) * w).sum(1).mean()
    else:
        l_ts = torch.zeros(())
    n_ts = is_ts.float().mean()
    loss = nll * (1 - n_ts) + l_ts * n_ts + phone_w * l_ph
    l_g = torch.zeros(())
    if guide_w > 0:  # head 0 of every decoder layer but the first looks at the word being written
        fr = torch.arange(T + pad)
        inside = (fr >= guide[..., :1]) & (fr < guide[..., 1:])
        has = guide[..., 1] > 0
        for w in ws[1:]:
            l_g = l_g - (w[:, 0] * inside).sum(-1)[has].clamp_min(1e-6).log().mean() / (len(ws) - 1)
        loss = loss + guide_w * l_g
    acc = (lp.argmax(1) == t)[~is_ts].float().mean()
    return loss, {
        "nll": nll.item(),
        "ts": l_ts.item(),
        "ph": l_ph.item(),
        "g": l_g.item(),
        "acc": acc.item(),
    }


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("--corpus", required=True, nargs="+")
    ap.add_argument("--out", required=True)
    ap.add_argument("--schedule", required=True)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--final-lr", type=float, default=0.05)
    ap.add_argument("--hold", type=float, default=0.4)
    ap.add_argument("--warm", type=int, default=100)
    ap.add_argument("--phone-w", type=float, default=1.0)
    ap.add_argument("--guide-w", type=float, default=0.3)
    ap.add_argument("--d", type=int, default=128)
    ap.add_argument("--heads", type=int, default=4)
    ap.add_argument("--layers", type=int, nargs=2, default=[3, 3])
    ap.add_argument("--hard", action="store_true")
    ap.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="share of short windows placed inside a 30 s window",
    )
    ap.add_argument("--resume")
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    os.makedirs(a.out, exist_ok=True)
    ck = torch.load(a.resume, weights_only=False) if a.resume else None
    corpus = Corpus(a.corpus, ck["phones"] if ck else None)
    cfg = (
        ck["cfg"]
        if ck
        else {
            "domain": domain_tokens(),
            "n_phones": len(corpus.phones),
            "d": a.d,
            "heads": a.heads,
            "enc": a.layers[0],
            "dec": a.layers[1],
        }
    )
    model = Whisper(**cfg)
    if ck:
        model.load_state_dict(ck["model"])
    print(
        sum(p.numel() for p in model.parameters()) / 1e6,
        "M trained parameters;",
        len(cfg["domain"]),
        "domain tokens",
        flush=True,
    )
    mats = [
        p
        for n, p in model.named_parameters()
        if p.ndim == 2 and (n.startswith("enc.") or n.startswith("dec."))
    ]
    ids = {id(p) for p in mats}
    rest = [p for p in model.parameters() if id(p) not in ids]
    muon, adam = Muon(mats), torch.optim.AdamW(rest, lr=a.lr, betas=(0.9, 0.98), weight_decay=0.01)
    if ck and "muon" in ck:
        muon.buf = ck["muon"]
        adam.load_state_dict(ck["adam"])
    sampler = Sampler(corpus, model, a.seed + 1)
    stages = []
    for s in a.schedule.split(","):
        mix, secs = s.rsplit(":", 1)
        stages.append(([tuple(map(int, p.split(":"))) for p in mix.split("+")], int(secs)))
    total, t_start, step, saved, agg = sum(s[1] for s in stages), time.time(), 0, time.time(), {}

    def save():
        state = {"cfg": model.cfg, "phones": corpus.phones, "model": model.state_dict()}
        optimisers = {"muon": muon.buf, "adam": adam.state_dict()}
        torch.save({**state, **optimisers}, os.path.join(a.out, "last.pt"))

    stop = []
    # SIGTERM: write the checkpoint and leave
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    for mix, secs in stages:
        t_stage = time.time()
        while time.time() - t_stage < secs and not stop:
            t_el = time.time() - t_start
            frac = min(1.0, t_el / total)
            lr = (
                a.lr
                * min(1.0, (step + 1) / a.warm)
                * (
                    1.0
                    if frac < a.hold
                    else a.final_lr + (1 - a.final_lr) * (1 - frac) / (1 - a.hold)
                )
            )
            r = sampler.r
            T0, B = r.choice(mix)
            T = T0 if T0 >= 1024 or r.random() < 0.5 else r.randint(int(T0 * 0.6), T0)
            td = time.time()
            off = r.randint(0, 1500 - T) if T < 1024 and r.random() < a.offset else 0
            b = batch(sampler, B, T, a.hard, off)
            td = time.time() - td
            loss, m = losses(
                model,
                b,
                off,
                r.random() < (0.7 if T % 256 > 128 or T % 256 == 0 else 0.0),
                a.guide_w,
                a.phone_w,
            )
            loss.backward()
            gn = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for g in adam.param_groups:
                g["lr"] = lr
            muon.step(lr)
            adam.step()
            for p in model.parameters():
                p.grad = None
            step += 1
            m.update(gn=gn.item(), data=td)
            for k, v in m.items():
                agg.setdefault(k, []).append(v)
            if step % 25 == 0:
                print(
                    f"{time.time() - t_start:6.0f}s step {step:5d} lr {lr:.1e} "
                    + " ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in agg.items()),
                    flush=True,
                )
                agg = {}
            if time.time() - saved > 120:
                save()
                saved = time.time()
    save()


if __name__ == "__main__":
    main()
