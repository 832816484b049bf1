"""Accuracy of the literal event prompts on evaluation windows.

python literal.py CHECKPOINT [--tokenizer DIR] [--data DIR] [--windows N]
"""

from __future__ import annotations

import argparse

import torch
from tokenizers import Tokenizer

import language as L
from export import load
from train import Packer, Store

PROMPTS = {
    "Detect when someone enters restricted area": "restricted",
    "Detect pedestrians crossing the zebra": "crossing",
    "Detect a vehicle on fire": "fire",
    "Detect traffic congestion": "congestion",
    "a white car moving fast": None,
}


@torch.no_grad()
def evaluate(checkpoint, tokenizer, data, windows):
    """Prints a table of how often each prompt is answered rightly."""
    tok = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    vlm, store, packer = load(checkpoint, tok), Store(data), Packer(tok)
    m, yes = vlm.model, packer.ids(" Yes.")[0]
    score = {p: [0, 0, 0, 0] for p in PROMPTS}  # right yes, yes, right no, no
    for n in (1, 2, 3, 4):
        for i in range(0, windows // 4, 10):
            ws = store.windows[n][i : i + 10]
            x, _ = store.images([(k, f + j) for k, f, _ in ws for j in range(n)], labels=False)
            z = m.connector(m.vision_model(pixel_values=x).last_hidden_state)
            z = z.reshape(-1, z.shape[-1])
            for p, fam in PROMPTS.items():
                ids = torch.tensor(
                    [packer.prefix[n] + packer.ids(L.wrap(p) + "<end_of_utterance>\nAssistant:")]
                    * len(ws)
                )
                emb = m.text_model.embed_tokens(ids).masked_scatter(
                    (ids == packer.image_id)[..., None], z
                )
                got = (
                    vlm.lm_head(
                        m.text_model(inputs_embeds=emb, use_cache=False).last_hidden_state[:, -1]
                    ).argmax(-1)
                    == yes
                )
                for g, (_, _, t) in zip(got.tolist(), ws):
                    t = L.Truth(t)
                    a = (
                        L.fixed_answer(t, fam)
                        if fam
                        else L.vehicle_answer(t, "white", "car", "fast")
                    )
                    if a is not None:
                        score[p][0 if a else 2] += g == a
                        score[p][1 if a else 3] += 1
    for p, (a, b, c, d) in score.items():
        print(
            f"| {p} | {100 * a / b:.1f} % of {b} | {100 * c / d:.1f} % of {d} | {50 * (a / b + c / d):.1f} % |"
        )


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("--tokenizer", default="work/model")
    ap.add_argument("--data", default="work/data/eval")
    ap.add_argument("--windows", type=int, default=600)
    a = ap.parse_args()
    torch.set_num_threads(1)
    evaluate(a.checkpoint, a.tokenizer, a.data, a.windows)


if __name__ == "__main__":
    main()
