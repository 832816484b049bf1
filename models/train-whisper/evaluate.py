"""WER of an exported model with whisper-cli.

python evaluate.py --cli whisper.cpp/build/bin/whisper-cli --model M.bin --eval EVAL_DIR [--sets ab] [--limit N] [-- extra cli options]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time

from domain import wer_counts


def transcribe(cli, model, files, extra=()):
    """{file: text}; one process for all files."""
    out = subprocess.run(
        [cli, "-m", model, "-np", "-oj", "-t", "1", *extra, *sum((["-f", f] for f in files), [])],
        capture_output=True,
        text=True,
    )
    res = {}
    for f in files:
        j = f + ".json"
        if not os.path.exists(j):
            sys.exit(f"no output for {f}: {out.stderr[-2000:]}")
        res[f] = "".join(
            s["text"] for s in json.load(open(j, errors="replace"))["transcription"]
        ).strip()
        os.remove(j)
    return res


def main():
    """Command line."""
    argv, extra = sys.argv[1:], []
    if "--" in argv:
        k = argv.index("--")
        argv, extra = argv[:k], argv[k + 1 :]
    ap = argparse.ArgumentParser()
    ap.add_argument("--cli", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--eval", required=True)
    ap.add_argument("--sets", default="abcs")
    ap.add_argument("--limit", type=int, default=10**6)
    ap.add_argument("--show", type=int, default=5)
    a = ap.parse_args(argv)
    refs = json.load(open(os.path.join(a.eval, "refs.json")))
    for s in a.sets:
        names = [n for n in sorted(refs) if n[0] == s][: a.limit]
        if not names:
            continue
        t = time.time()
        hyp = transcribe(a.cli, a.model, [os.path.join(a.eval, n) for n in names], extra)
        t = time.time() - t
        errs = words = exact = shown = 0
        per = []
        for n in names:
            h = hyp[os.path.join(a.eval, n)]
            e, w = wer_counts(refs[n], h)
            errs, words, exact = errs + e, words + w, exact + (e == 0)
            per.append((e, w))
            if (e or (s == "s" and h)) and shown < a.show:
                shown += 1
                print(f"   {n} ref: {refs[n]}\n   {'':{len(n)}} hyp: {h}")
        rng = random.Random(0)  # 95 % bootstrap interval over clips
        boot = sorted(
            sum(e for e, _ in b) / max(1, sum(w for _, w in b))
            for b in (rng.choices(per, k=len(per)) for _ in range(2000))
        )
        ci = f"[{100 * boot[50]:.1f}, {100 * boot[1949]:.1f}]"
        print(
            f"{s}: WER {100 * errs / max(1, words):.1f}% {ci} ({errs}/{words}), exact {exact}/{len(names)}, {t:.1f} s  {' '.join(extra)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
