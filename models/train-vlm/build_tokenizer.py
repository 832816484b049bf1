"""Trains the tokenizer on captions and prompts, and writes all tokenizer and processor files.

python build_tokenizer.py SHARD.npz OUT_DIR
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from config import corpus, train_tokenizer, write_processor
from language import Truth


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("shard", help="only its texts are used")
    ap.add_argument("out")
    a = ap.parse_args()
    truths = [Truth(t) for t in json.loads(bytes(np.load(a.shard)["truths"]))]
    tok = train_tokenizer(corpus(truths))
    write_processor(a.out, tok)
    print("vocabulary", tok.get_vocab_size())


if __name__ == "__main__":
    main()
