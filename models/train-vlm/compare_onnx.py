"""How often the exported files say what PyTorch says, on held-out windows.

python compare_onnx.py MODEL_DIR [--data DIR] [--windows N]
"""

from __future__ import annotations

import argparse
import random

import numpy as np
import torch
from transformers import Idefics3ForConditionalGeneration

import language as L
from config import IMAGE_SIZE
from runtime import Runtime
from train import Store


def main():
    """Command line."""
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--data", default="work/data/eval")
    ap.add_argument("--windows", type=int, default=60)
    a = ap.parse_args()
    torch.set_num_threads(1)
    vlm = Idefics3ForConditionalGeneration.from_pretrained(a.model).eval()
    fp32, int8 = Runtime(a.model), Runtime(a.model, "_quantized")
    tok = fp32.tokenizer
    store, r = Store(a.data), random.Random(11)
    same, same_q, n_all, truth_ok, truth_ok_q = 0, 0, 0, 0, 0
    yes_no = [0, 0, 0]
    for n in (1, 2, 3, 4):
        for k, i, t in store.windows[n][: a.windows // 4]:
            t = L.Truth(t)
            x, _ = store.images([(k, i + j) for j in range(n)], labels=False)
            px, mask = x[None].numpy(), np.ones((1, n, IMAGE_SIZE, IMAGE_SIZE), bool)
            p, style = L.describe_question(r)
            jobs = [(p, L.caption(t, style), False)]
            e = L.event_question(t, r)
            if e:
                jobs.append((L.wrap(e[0]), "Yes." if e[1] else "No.", True))
            for prompt, want, yn in jobs:
                ids = fp32.ids(prompt, n)
                with torch.no_grad():
                    g = vlm.generate(
                        input_ids=torch.tensor([ids]),
                        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                        pixel_values=x[None],
                        pixel_attention_mask=torch.from_numpy(mask),
                        max_new_tokens=96,
                        do_sample=False,
                    )[0, len(ids) :].tolist()
                o, oq = fp32.generate(ids, px), int8.generate(ids, px)
                n_all += 1
                same += o == g
                same_q += oq == g
                truth_ok += tok.decode(g).strip() == want
                truth_ok_q += tok.decode(oq).strip() == want
                if yn:
                    yes_no[0] += 1
                    yes_no[1] += tok.decode(g).strip() == want
                    yes_no[2] += tok.decode(oq).strip() == want
    print(
        f"{n_all} prompts: fp32 files agree with transformers on {same}, int8 files on {same_q}; "
        f"word for word the expected text: transformers {truth_ok}, int8 {truth_ok_q}; "
        f"yes/no right: transformers {yes_no[1]} of {yes_no[0]}, int8 {yes_no[2]}"
    )


if __name__ == "__main__":
    main()
