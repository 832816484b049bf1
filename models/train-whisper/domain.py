"""Grammar expansion and the hash-based train / held-out split."""

import hashlib
import json
import os
import random
import re

HERE = os.path.dirname(os.path.abspath(__file__))
RULES = json.load(open(os.path.join(HERE, "grammar.json")))["rules"]
_SLOT = re.compile(r"\{(\w+)\}")
FIXED = {t for opts in RULES.values() for _, t in opts if "{" not in t}


def expand(rng, rule="S"):
    """A random expansion of a rule."""
    opts = RULES[rule]
    text = rng.choices([t for _, t in opts], [w for w, _ in opts])[0]
    return _SLOT.sub(lambda m: expand(rng, m.group(1)), text)


def is_heldout(text):
    """About one distinct sentence in ten is never trained on (fixed phrases excepted)."""
    return (
        text not in FIXED
        and len(text.split()) >= 5
        and hashlib.sha256(text.lower().encode()).digest()[0] % 10 == 0
    )


def sentence(rng, heldout=False):
    """A random sentence that is, or is not, held out."""
    while True:
        t = expand(rng)
        if is_heldout(t) == heldout:
            return t


def display(text):
    """Written form: capital first letter, final full stop."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?" else text + "."


def norm(text):
    """Form used for the word error rate."""
    return re.sub(r"[^a-z0-9' ]+", " ", re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", text.lower())).split()


def wer_counts(ref, hyp):
    """(word errors, words of the reference)."""
    r, h = norm(ref), norm(hyp)
    d = list(range(len(h) + 1))
    for i, a in enumerate(r, 1):
        p, d[0] = d[0], i
        for j, b in enumerate(h, 1):
            p, d[j] = d[j], min(d[j] + 1, d[j - 1] + 1, p + (a != b))
    return d[-1], len(r)


def vocabulary():
    """All words of the grammar."""
    words = set()
    for opts in RULES.values():
        for _, t in opts:
            words.update(w.strip("?.") for w in _SLOT.sub(" ", t).split())
    return sorted(w for w in words if w)


if __name__ == "__main__":
    rng = random.Random(0)
    v = vocabulary()
    print(
        len(v),
        "words;",
        len({expand(rng) for _ in range(50000)}),
        "distinct sentences in 50000 draws",
    )
    for _ in range(20):
        print(" ", display(expand(rng)))
