"""Models of true shape with random weights, in the layout that is published for ONNX Runtime, with golden answers.

    python make.py NAME DIRECTORY [--precisions int8,fp16,q4] [--no-golden]

NAME is one of the shapes in smolvlm.py or qwen2_vl.py. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import os
import pathlib

import torch

import qwen2_vl
import smolvlm
from common import precisions, write_golden

FAMILIES = {name: family for family in (smolvlm, qwen2_vl) for name in family.SHAPES}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument(
        "--precisions", default="", type=lambda text: text.split(",") if text else []
    )
    parser.add_argument("--no-golden", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.directory / "onnx", exist_ok=True)
    family = FAMILIES[args.name]
    vlm, processor = family.make(args.name, args.directory)
    precisions(args.directory, args.precisions)
    if not args.no_golden:
        note = f"transformers' own answers for {args.name}, float32 on a CPU; made by models/parity"
        write_golden(args.directory, note, family.golden(args.name, vlm, processor))


if __name__ == "__main__":
    main()
