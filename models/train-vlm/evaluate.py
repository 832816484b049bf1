"""Accuracy on windows whose seeds were never trained on.

    python evaluate.py CHECKPOINT_OR_MODEL_DIR [--windows N] [--onnx SUFFIX] [--json FILE]

Captions are parsed back into attributes and compared with the parsed ground truth caption; yes/no
questions are balanced, half of each is asked in wordings that training never used.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict

import torch
from tokenizers import Tokenizer

import language as L
from train import Packer, Store

VEHICLE = re.compile(
    r"\ba (\w+) (car|truck|bus) is (?:(?:moving|driving) (fast|slowly) to the (left|right)|(stopped)|(on fire))",
    re.I,
)
NUM = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "someone": 1, "a": 1}


def parse(text: str) -> dict:
    """The attributes that a caption states."""
    t = text.lower()
    vs = {(m[1], m[2], m[3] or m[5] or "fire", m[4] or "") for m in VEHICLE.finditer(t)}

    def count(pattern):
        m = re.search(r"(\w+) (?:person |people )?(?:is|are) " + pattern, t)
        return NUM.get(m[1], 1) if m and m[1] != "person" else 1 if m else 0

    return {
        "vehicles": {v for v in vs if v[2] != "fire"},
        "burning": {v[:2] for v in vs if v[2] == "fire"},
        "fire": "on fire" in t,
        "collision": bool(re.search("collided|crashed", t)),
        "restricted": "restricted area" in t,
        "restricted count": count("inside the restricted"),
        "crossing": "crossing the zebra" in t,
        "crossing count": count("crossing the zebra"),
        "running": "running" in t,
        "walking": "walking on the sidewalk" in t,
        "walking count": count("walking on the sidewalk"),
        "dog": "a dog" in t,
        "empty": "street is empty" in t,
        "congested": bool(re.search(r"traffic is congested|traffic jam|heavy congestion", t)),
        "flowing": "traffic is flowing" in t,
        "no unusual": "no unusual behavior" in t,
        "unusual": "unusual behavior:" in t,
    }


class Scores:
    """Counts of right answers by name."""

    def __init__(self):
        self.n = defaultdict(lambda: [0, 0])

    def add(self, name, ok, k=1):
        """Counts one answer, `k` times."""
        self.n[name][0] += int(ok) * k
        self.n[name][1] += k

    def compare(self, text, truth_text, style):
        """Counts every attribute of a caption against the true caption's."""
        g, t = parse(text), parse(truth_text)
        for k in (
            "fire",
            "collision",
            "restricted",
            "crossing",
            "running",
            "walking",
            "dog",
            "empty",
        ):
            self.add(f"{k} (all)", g[k] == t[k])
            if t[k]:
                self.add(f"{k} recall", g[k])
            if g[k]:
                self.add(f"{k} precision", t[k])
        self.add("congestion (all)", g["congested"] == t["congested"])
        if t["congested"]:
            self.add("congestion recall", g["congested"])
        if g["congested"]:
            self.add("congestion precision", t["congested"])
        if style == "congestion":
            self.add(
                "congestion stated when asked",
                (g["congested"], g["flowing"]) == (t["congested"], t["flowing"]),
            )
        if style == "unusual":
            self.add(
                "unusual stated when asked",
                (g["unusual"], g["no unusual"]) == (t["unusual"], t["no unusual"]),
            )
        for k in ("crossing count", "walking count", "restricted count"):
            if t[k]:
                self.add(k, g[k] == t[k])
        if t["burning"]:
            self.add("burning vehicle colour and type", g["burning"] == t["burning"])
        gv, tv = g["vehicles"], t["vehicles"]
        for v in tv:
            same = [x for x in gv if x[:2] == v[:2]]
            self.add("vehicle colour+type recall", bool(same))
            self.add("vehicle colour+type+speed+direction recall", v in gv)
            self.add(f"vehicle colour+type+speed recall, {v[2]}", any(x[2] == v[2] for x in same))
            if same:
                self.add("vehicle speed where found", any(x[2] == v[2] for x in same))
                if v[3]:
                    self.add(
                        "vehicle direction where found", any(x[3] == v[3] for x in same if x[3])
                    )
            self.add("vehicle type present", any(x[1] == v[1] for x in gv))
            self.add("vehicle colour present", any(x[0] == v[0] for x in gv))
        for v in gv:
            self.add("vehicle colour+type precision", any(x[:2] == v[:2] for x in tv))
        if not t["congested"]:
            self.add("all vehicles exactly right", gv == tv)
        self.add("whole caption exactly right", g == t)

    def table(self):
        """Accuracy and number of answers by name."""
        return {k: {"accuracy": round(a / b, 4), "n": b} for k, (a, b) in sorted(self.n.items())}


def batches(store, n_windows, size):
    """Yields (frames a window, windows) over about `n_windows` windows, in equal parts of each length."""
    for n in (1, 2, 3, 4):
        ws = store.windows[n][
            : max(1, n_windows * len(store.windows[n]) // sum(map(len, store.windows.values())))
        ]
        for i in range(0, len(ws), size):
            yield n, ws[i : i + size]


@torch.no_grad()
def evaluate(vlm, tok, store, n_windows=300, seed=5, max_new=72, show=0):
    """Scores of captions and yes/no questions, and a few captions beside the true ones."""
    packer = Packer(tok)
    r = random.Random(seed)
    cap, yn = Scores(), Scores()
    m = vlm.model
    eos, pad = packer.tok.token_to_id("<end_of_utterance>"), packer.pad
    yes, no = packer.ids(" Yes.")[0], packer.ids(" No.")[0]
    shown = []
    for n, ws in batches(store, n_windows, 12):
        ws = [(k, i, L.Truth(t)) for k, i, t in ws]
        x, _ = store.images([(k, i + j) for k, i, _ in ws for j in range(n)])
        z = m.connector(m.vision_model(pixel_values=x).last_hidden_state)
        z = z.view(len(ws), n * z.shape[1], -1)
        pre = torch.tensor(packer.prefix[n])
        for held in (False, True):
            # yes/no: first answer token of several segments behind one prefix
            rows, metas = [], []
            for w, (_, _, t) in enumerate(ws):
                for _ in range(5):
                    q = L.event_question(t, r, held)
                    if q:
                        rows.append(
                            (w, packer.ids(L.wrap(q[0]) + "<end_of_utterance>\nAssistant:"))
                        )
                        metas.append(q)
            for i in range(0, len(rows), 30):
                part = rows[i : i + 30]
                width = max(len(q) for _, q in part)
                ids = torch.stack(
                    [torch.cat([pre, torch.tensor(q + [pad] * (width - len(q)))]) for _, q in part]
                )
                emb = m.text_model.embed_tokens(ids)
                sel = z[[w for w, _ in part]]
                emb = emb.masked_scatter(
                    (ids == packer.image_id)[..., None], sel.reshape(-1, sel.shape[-1])
                )
                h = m.text_model(inputs_embeds=emb, use_cache=False).last_hidden_state
                last = torch.tensor([len(pre) + len(q) - 1 for _, q in part])
                pred = vlm.lm_head(h[torch.arange(len(part)), last]).argmax(-1).tolist()
                for p, q in zip(pred, metas[i : i + 30]):
                    ok = p == (yes if q[1] else no)
                    yn.add("all", ok)
                    yn.add("all, held-out wording" if held else "all, trained wording", ok)
                    yn.add(q[2], ok)
                    yn.add(q[2] + (" / yes" if q[1] else " / no"), ok)
            # captions: greedy, left padded
            qs = [L.describe_question(r, held) for _ in ws]
            segs = [
                packer.prefix[n] + packer.ids(p + "<end_of_utterance>\nAssistant:") for p, _ in qs
            ]
            width = max(map(len, segs))
            ids = torch.tensor([[pad] * (width - len(s)) + s for s in segs])
            am = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in segs])
            emb = m.text_model.embed_tokens(ids)
            emb = emb.masked_scatter(
                (ids == packer.image_id)[..., None], z.reshape(-1, z.shape[-1])
            )
            pos = (am.cumsum(-1) - 1).clamp(min=0)
            past, outs, live = None, [[] for _ in ws], [True] * len(ws)
            for _ in range(max_new):
                o = m.text_model(
                    inputs_embeds=emb,
                    attention_mask=am,
                    position_ids=pos,
                    past_key_values=past,
                    use_cache=True,
                )
                past = o.past_key_values
                nxt = vlm.lm_head(o.last_hidden_state[:, -1]).argmax(-1)
                for b, v in enumerate(nxt.tolist()):
                    if live[b]:
                        live[b] = v != eos
                        if live[b]:
                            outs[b].append(v)
                if not any(live):
                    break
                emb = m.text_model.embed_tokens(nxt[:, None])
                am = torch.cat([am, am.new_ones(len(ws), 1)], 1)
                pos = pos[:, -1:] + 1
            for (_, _, t), (p, style), o in zip(ws, qs, outs):
                text, want = packer.tok.decode(o).strip(), L.caption(t, style)
                cap.compare(text, want, style)
                if len(shown) < show:
                    shown.append((n, p, text, want))
    return {"captions": cap.table(), "yes_no": yn.table()}, shown


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--tokenizer", default="work/model")
    ap.add_argument("--data", default="work/data/eval")
    ap.add_argument("--windows", type=int, default=300)
    ap.add_argument("--show", type=int, default=6)
    ap.add_argument("--json", default="")
    a = ap.parse_args()
    torch.set_num_threads(1)
    tok = Tokenizer.from_file(f"{a.tokenizer}/tokenizer.json")
    if a.model.endswith(".pt"):
        from export import load

        vlm = load(a.model, tok)
    else:
        from transformers import Idefics3ForConditionalGeneration

        vlm = Idefics3ForConditionalGeneration.from_pretrained(a.model).eval()
    t0 = time.time()
    res, shown = evaluate(vlm, tok, Store(a.data), a.windows, show=a.show)
    for s in shown:
        print(*s, sep="\n   ")
    for part in res.values():
        for k, v in part.items():
            print(f"{v['accuracy']:.3f} {v['n']:5d}  {k}")
    print(f"{time.time() - t0:.0f} s")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(res, f, indent=1)


if __name__ == "__main__":
    main()
