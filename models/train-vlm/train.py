"""Trains the demo vision-language model from scratch on one CPU core.

    python train.py --data DIR --tokenizer DIR --out DIR [--stages vision:12,text:20,joint:20] [--resume CKPT]

Stage `vision` trains the vision encoder alone on patch labels (which object covers which patch), `text`
the connector and the decoder on prompts and answers with the vision encoder frozen, `joint` everything
together.  Every window is encoded once and followed by several prompt/answer segments that do not see
each other, so that one pass through the decoder trains all of them; the loss is on answers only.  The
auxiliary heads that read the patch labels are dropped at export.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from transformers import Idefics3ForConditionalGeneration

import language as L
from config import model_config, prefix
from dataset import LABELS

NL = len(LABELS)
CELLS = (
    torch.arange(144).view(4, 3, 4, 3).permute(0, 2, 1, 3).reshape(16, 9)
)  # patches under each image token


class Store:
    """All shards in memory, windows grouped by number of frames; new shards are picked up as they appear."""

    def __init__(self, folder, limit=10**9):
        self.folder, self.limit, self.seen = folder, limit, set()
        self.frames, self.labels, self.windows = [], [], {1: [], 2: [], 3: [], 4: []}
        self.refresh()

    def refresh(self):
        """Loads shards that have appeared."""
        for p in sorted(glob.glob(f"{self.folder}/shard_????????.npz")):
            if p in self.seen or len(self.seen) >= self.limit:
                continue
            self.seen.add(p)
            z = np.load(p)
            k = len(self.frames)
            self.frames.append(z["frames"])
            self.labels.append(z["labels"])
            idx, truths = z["index"], json.loads(bytes(z["truths"]))
            for i, t in enumerate(truths):
                self.windows[len(t)].append((k, int(idx[i]), t))

    def sample(self, r, budget):
        """Windows with the same number of frames, about `budget` frames together; a third of them are cut
        down to some of their frames.  -> n, [[(shard, frame), ...], ...], [Truth, ...]"""
        n = r.choices((1, 2, 3, 4), (0.24, 0.26, 0.26, 0.24))[0]
        picks, truths = [], []
        while len(picks) < max(4, budget // n):
            m = n if r.random() < 0.67 else r.randint(n, 4)
            k, i, t = r.choice(self.windows[m])
            keep = sorted(r.sample(range(m), n))
            truth = L.Truth([t[j] for j in keep])
            if truth.usable:
                picks.append([(k, i + j) for j in keep])
                truths.append(truth)
        return n, picks, truths

    def images(self, picks, labels=True):
        """Pixels and patch labels of frames."""
        f = np.stack([self.frames[k][i] for k, i in picks])
        if not labels:
            return normalise(f), None
        y = np.unpackbits(np.stack([self.labels[k][i] for k, i in picks]), axis=-1)[..., :NL]
        return normalise(f), torch.from_numpy(y).float()


def normalise(frames_u8) -> torch.Tensor:
    """uint8 [n, H, W, 3] to float [n, 3, H, W] in -1..1."""
    x = torch.from_numpy(np.ascontiguousarray(frames_u8.transpose(0, 3, 1, 2)))
    return x.float().div_(127.5).sub_(1.0)


class Trainee(nn.Module):
    """The model with the two auxiliary heads."""

    def __init__(self, config):
        super().__init__()
        self.vlm = Idefics3ForConditionalGeneration(config)
        self.vlm.set_attn_implementation(
            "eager"
        )  # the fused kernel has a slow backward pass on CPU
        self.patch_head = nn.Linear(config.vision_config.hidden_size, NL)
        self.token_head = nn.Linear(config.text_config.hidden_size, NL)
        for (
            n,
            p,
        ) in self.vlm.named_parameters():  # the checkpoint's 0.02 is small for layers this narrow
            if p.ndim == 2 and "embed" not in n:
                nn.init.xavier_uniform_(
                    p,
                    gain=0.5
                    if n.endswith(
                        ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")
                    )
                    else 1,
                )
            elif p.ndim == 4:
                nn.init.normal_(p, std=p[0].numel() ** -0.5)
        with torch.no_grad():
            self.patch_head.bias.fill_(-4.0)
            self.token_head.bias.fill_(-3.0)

    def see(self, x):
        """Patch features and image tokens of frames."""
        h = self.vlm.model.vision_model(pixel_values=x).last_hidden_state
        return h, self.vlm.model.connector(h)

    def aux(self, h, z, y):
        """Losses of the patch labels on patches and on image tokens."""
        w = 1 + 3 * y
        a = F.binary_cross_entropy_with_logits(self.patch_head(h).float(), y, w)
        yt = y[:, CELLS].amax(2)
        b = F.binary_cross_entropy_with_logits(self.token_head(z).float(), yt, 1 + 2 * yt)
        return a, b


class Packer:
    """Turns windows and prompts into token tensors."""

    def __init__(self, tok: Tokenizer):
        self.tok = tok
        self.image_id = tok.token_to_id("<image>")
        self.pad = tok.token_to_id("<|im_end|>")
        self.prefix = {n: tok.encode(prefix(n), add_special_tokens=False).ids for n in (1, 2, 3, 4)}
        self.cache = {}

    def ids(self, text):
        """Token ids of a text, remembered."""
        if text not in self.cache:
            if len(self.cache) > 200000:
                self.cache.clear()
            self.cache[text] = self.tok.encode(text, add_special_tokens=False).ids
        return self.cache[text]

    def questions(self, t: L.Truth, r: random.Random, n_yes_no=6):
        """(prompt, answer, whether yes/no) of one window: a description and some event questions."""
        out = []
        p, style = L.describe_question(r)
        out.append((p, L.caption(t, style, r), False))
        for _ in range(n_yes_no):
            q = L.event_question(t, r, vehicle_share=0.55)
            if q:
                out.append((L.wrap(q[0], r), "Yes." if q[1] else "No.", True))
        return out

    def pack(self, n, truths, r, n_yes_no=6):
        """Two groups of segments, [windows, segments, length] each: the caption, and the yes/no questions."""
        groups = ([], [])
        for t in truths:
            rows = ([], [])
            for p, a, yn in self.questions(t, r, n_yes_no):
                q, ans = (
                    self.ids(p + "<end_of_utterance>\nAssistant:"),
                    self.ids(" " + a + "<end_of_utterance>"),
                )
                w = [3.0] + [0.2] * (len(ans) - 1) if yn else [1.0] * len(ans)
                rows[yn].append((q + ans, [-100] * len(q) + ans, [0.0] * len(q) + w))
            while len(rows[1]) < n_yes_no:
                rows[1].append(([self.pad], [-100], [0.0]))
            groups[0].append(rows[0])
            groups[1].append(rows[1])
        out = []
        for g in groups:
            m = max(len(x[0]) for rows in g for x in rows)
            out.append(
                [
                    torch.tensor(
                        [[x[k] + [v] * (m - len(x[k])) for x in rows] for rows in g], dtype=dt
                    )
                    for k, v, dt in (
                        (0, self.pad, torch.long),
                        (1, -100, torch.long),
                        (2, 0.0, torch.float),
                    )
                ]
            )
        return out


def rotary(x, cos, sin):
    """Rotary position embedding."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def decode_packed(text_model, prefix_emb, segments):
    """The Llama decoder over prefixes [B, P, d] and groups of segments [B, S, L, d] that each see only their
    prefix and themselves.  The same numbers as one pass per segment, at a fraction of the work."""
    c = text_model.config
    H, KV, D = c.num_attention_heads, c.num_key_value_heads, c.head_dim
    B, P, d = prefix_emb.shape
    parts = [prefix_emb] + [s.flatten(0, 1) for s in segments]
    sizes = [p.shape[0] * p.shape[1] for p in parts]
    x = torch.cat([p.reshape(-1, d) for p in parts])
    tables, masks = [], []
    for i, p in enumerate(parts):
        L_ = p.shape[1]
        pos = torch.arange(L_) + (P if i else 0)
        ang = pos[:, None].float() * text_model.rotary_emb.inv_freq.float()
        ang = torch.cat([ang, ang], -1)[None, :, None]
        tables.append((ang.cos(), ang.sin()))
        own = torch.zeros(L_, L_).masked_fill_(~torch.ones(L_, L_, dtype=torch.bool).tril(), -1e9)
        masks.append(torch.cat([torch.zeros(L_, P), own], 1) if i else own)

    def attend(q, k, v, bias):
        n, L_, T = q.shape[0], q.shape[1], k.shape[1]
        q = q.view(n, L_, KV, H // KV, D).permute(0, 2, 3, 1, 4).reshape(n, KV, -1, D)
        s = (q @ k.permute(0, 2, 3, 1)).view(n, KV, H // KV, L_, T) * D**-0.5 + bias.to(q.dtype)
        w = torch.softmax(s, -1).view(n, KV, -1, T).to(v.dtype)
        return (
            (w @ v.transpose(1, 2))
            .view(n, KV, H // KV, L_, D)
            .permute(0, 3, 1, 2, 4)
            .reshape(n * L_, H * D)
        )

    for layer in text_model.layers:
        a = layer.self_attn
        y = layer.input_layernorm(x)
        q, k, v = a.q_proj(y).split(sizes), a.k_proj(y).split(sizes), a.v_proj(y).split(sizes)
        outs, kp, vp = [], None, None
        for i, p in enumerate(parts):
            n, L_ = p.shape[:2]
            qi = rotary(q[i].view(n, L_, H, D), *tables[i]).to(q[i].dtype)
            ki = rotary(k[i].view(n, L_, KV, D), *tables[i]).to(q[i].dtype)
            vi = v[i].view(n, L_, KV, D)
            if i == 0:
                kp, vp = ki, vi
            else:
                rep = n // B
                ki = torch.cat([kp[:, None].expand(B, rep, P, KV, D).reshape(n, P, KV, D), ki], 1)
                vi = torch.cat([vp[:, None].expand(B, rep, P, KV, D).reshape(n, P, KV, D), vi], 1)
            outs.append(attend(qi, ki, vi, masks[i]))
        x = x + a.o_proj(torch.cat(outs))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return [h.view(*s.shape) for h, s in zip(text_model.norm(x).split(sizes)[1:], segments)]


def lm_loss(model: Trainee, z, n, groups, packer):
    """Weighted loss on the answers, and the first tokens' loss and accuracy."""
    m = model.vlm.model
    embed = m.text_model.embed_tokens
    B = groups[0][0].shape[0]
    ids = torch.tensor(packer.prefix[n])[None].expand(B, -1)
    pre = embed(ids).masked_scatter(
        (ids == packer.image_id)[..., None], z.reshape(-1, z.shape[-1]).to(embed.weight.dtype)
    )
    hs = decode_packed(m.text_model, pre, [embed(g[0]) for g in groups])
    total, weight, stats = 0.0, 0.0, []
    for h, (_, lab, wt) in zip(hs, groups):
        tgt, w = lab[..., 1:], wt[..., 1:]
        keep = tgt >= 0
        logits = model.vlm.lm_head(h[..., :-1, :][keep]).float()
        ce = F.cross_entropy(logits, tgt[keep], reduction="none")
        total, weight = total + (ce * w[keep]).sum(), weight + w[keep].sum()
        first = w[keep] == w.max()
        stats += [
            ce[first].mean().item(),
            (logits[first].argmax(-1) == tgt[keep][first]).float().mean().item(),
        ]
    return total / weight, (stats[0], stats[2], stats[3])


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", default="work/data/train")
    ap.add_argument("--tokenizer", default="work/model")
    ap.add_argument("--out", default="work/runs/a")
    ap.add_argument("--stages", default="vision:12,text:20,joint:20", help="stage:minutes in order")
    ap.add_argument(
        "--until", default="", help="HH:MM at which the last stage ends, instead of its minutes"
    )
    ap.add_argument("--lr", type=float, default=1.2e-3)
    ap.add_argument("--images", type=int, default=16, help="images a batch")
    ap.add_argument("--resume", default="")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--fp32", action="store_true", help="no bfloat16 matrix products")
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    r = random.Random(a.seed)
    os.makedirs(a.out, exist_ok=True)
    tok = Tokenizer.from_file(f"{a.tokenizer}/tokenizer.json")
    model = Trainee(model_config(tok))
    print(
        "parameters",
        {
            k: sum(p.numel() for p in m.parameters())
            for k, m in {
                "vision": model.vlm.model.vision_model,
                "connector": model.vlm.model.connector,
                "text": model.vlm.model.text_model,
                "lm_head": model.vlm.lm_head,
            }.items()
        },
        flush=True,
    )
    if a.resume:
        model.load_state_dict(torch.load(a.resume)["model"])
    groups = {}
    for n, p in model.named_parameters():
        vision = "vision_model" in n or "patch_head" in n
        groups.setdefault((0.03 if p.ndim > 1 and "embed" not in n else 0.0, vision), []).append(p)
    opt = torch.optim.AdamW(
        [{"params": ps, "weight_decay": wd, "vision": v} for (wd, v), ps in groups.items()],
        lr=a.lr,
        betas=(0.9, 0.98),
    )
    store, packer = Store(a.data), Packer(tok)
    print("windows", {k: len(v) for k, v in store.windows.items()}, flush=True)
    stages = [(s.split(":")[0], float(s.split(":")[1]) * 60) for s in a.stages.split(",")]
    begin = time.time()
    if a.until:
        now = time.localtime()
        h, m = map(int, a.until.split(":"))
        left = (
            (h - now.tm_hour) * 3600
            + (m - now.tm_min) * 60
            - now.tm_sec
            - sum(x for _, x in stages[:-1])
        )
        stages[-1] = (stages[-1][0], left)
    windows = 0
    for k, (stage, seconds) in enumerate(stages):
        windows += run_stage(
            stage, seconds, k == len(stages) - 1, model, opt, store, packer, r, a, begin
        )
        save(model, f"{a.out}/{stage}.pt", windows)
    save(model, f"{a.out}/last.pt", windows)
    print("done", windows, {k: len(v) for k, v in store.windows.items()}, flush=True)


@torch.no_grad()
def features(model, store, picks, cache):
    """Vision features of frames, computed once while the encoder is frozen."""
    new = [p for p in picks if p not in cache]
    if new:
        x, _ = store.images(new, labels=False)
        cache.update(
            zip(new, model.vlm.model.vision_model(pixel_values=x).last_hidden_state.bfloat16())
        )
    return torch.stack([cache[p] for p in picks]).float()


def run_stage(stage, seconds, final, model, opt, store, packer, r, a, begin):
    """Trains one stage for some seconds; returns the number of windows seen."""
    start = time.time()
    last_save = last_print = last_refresh = start
    step, windows, avg, cache = 0, 0, {}, {}
    while (el := time.time() - start) < seconds:
        f = el / seconds
        lr = (
            a.lr
            * min(1, (step + 1) / 60)
            * (
                (0.02 if final else 0.25)
                + (0.98 if final else 0.75) * 0.5 * (1 + math.cos(math.pi * f))
            )
        )
        for g in opt.param_groups:
            g["lr"] = lr * (0.5 if g["vision"] and stage == "joint" else 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=not a.fp32):
            if stage == "vision":
                picks = []
                for _ in range(a.images):
                    k = r.randrange(len(store.frames))
                    picks.append((k, r.randrange(len(store.frames[k]))))
                x, y = store.images(picks)
                pa, pb = model.aux(*model.see(x), y)
                loss = 20 * pa + 10 * pb
                logs = {"patch": pa.item(), "token": pb.item()}
            else:
                n, picks, truths = store.sample(r, a.images)
                flat = [p for ps in picks for p in ps]
                logs = {}
                if stage == "text":
                    z = model.vlm.model.connector(features(model, store, flat, cache))
                    loss = 0
                else:
                    x, y = store.images(flat)
                    h, z = model.see(x)
                    pa, pb = model.aux(h, z, y)
                    loss = (20 * pa + 10 * pb) * (1 - 0.7 * f)
                    logs = {"patch": pa.item(), "token": pb.item()}
                lm, (c, q, acc) = lm_loss(model, z, n, packer.pack(n, truths, r), packer)
                loss = loss + lm
                logs |= {"caption": c, "yesno": q, "acc": acc}
                windows += len(picks)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        opt.step()
        step += 1
        for k, v in logs.items():
            if v == v:
                avg[k] = v if k not in avg else 0.97 * avg[k] + 0.03 * v
        now = time.time()
        if now - last_print > 20:
            last_print = now
            print(
                f"{(now - begin) / 60:6.2f} min  {stage} step {step}  windows {windows}  lr {lr:.2e}  "
                + "  ".join(f"{k} {v:.4f}" for k, v in avg.items()),
                flush=True,
            )
        if now - last_refresh > 60:
            last_refresh = now
            store.refresh()
        if now - last_save > 120:
            last_save = now
            save(model, f"{a.out}/last.pt", windows)
    return windows


def save(model, path, windows):
    """Writes a checkpoint."""
    torch.save({"model": model.state_dict(), "windows": windows}, path + ".tmp")
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    main()
