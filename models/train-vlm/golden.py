"""Golden inputs and outputs, so that another implementation can check itself.

    python golden.py MODEL_DIR CLIP.mp4

Writes MODEL_DIR/golden/*.png and MODEL_DIR/golden.json: what transformers' processor and generate()
make of each input, and that onnxruntime decodes the same ids from the exported files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, Idefics3ForConditionalGeneration

import language as L
from dataset import random_world
from picture import camera_noise, render
from runtime import Runtime
from scene import H, W

FIRST_SEED = 9_500_000


def scene_frames(seed, n):
    """n frames of a random scene, and their truth."""
    w = random_world(seed, 6.0)
    shots = []
    for i in range(61):
        if i in {1: (20,), 2: (15, 45), 3: (10, 30, 50)}[n]:
            shots.append((camera_noise(render(w), random.Random(seed)), w.truth()))
        w.step()
    return [im for im, _ in shots], L.Truth([t for _, t in shots])


def clip_frames(clip, times):
    """Frames of a clip at the given seconds."""
    out = []
    for t in times:
        select = f"select=gte(t\\,{t - 0.01})"
        command = ["ffmpeg", "-v", "error", "-i", clip, "-vf", select, "-frames:v", "1"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        out.append(Image.frombytes("RGB", (W, H), raw))
    return out


CLIP_INPUTS = [
    ((16.2,), "Describe the scene", ""),
    ((15.6, 16.6, 17.4), L.wrap("a white car moving fast"), "Yes."),
    ((24.0, 25.5), "Describe activity and detect unusual behavior", ""),
    ((44.0, 46.0, 48.0), "Describe the scene and highlight congestion", ""),
    ((68.0, 70.0), L.wrap("Detect when someone enters restricted area"), "Yes."),
    ((86.0, 88.0), "Describe activity and detect unusual behavior", ""),
]
# (prompt, event family that it asks about, or caption style)
SCENE_INPUTS = [
    ("Describe what is happening", None, "plain"),
    (L.wrap("Detect pedestrians crossing the zebra"), "crossing", None),
    (L.wrap("Detect a vehicle on fire"), "fire", None),
    (L.wrap("Detect traffic congestion"), "congestion", None),
    ("Describe activity and detect unusual behavior", None, "unusual"),
    ("Describe the scene and highlight congestion", None, "congestion"),
]
PREPROCESSING = (
    "PNG -> RGB uint8. Step 1: resize so that the longest edge is size.longest_edge = 640 (a 640x360 frame stays as it is). "
    "Step 2: resize to 192x192 without keeping the aspect ratio. Both with PIL Image.resize(..., resample=LANCZOS) on uint8 "
    "(antialiased, support 3 scaled by the reduction, horizontal pass first, each pass rounded to uint8), by transformers' Idefics3ImageProcessorPil. "
    "Then x * 0.00392156862745098, then (x - 0.5) / 0.5, channels first. No padding, pixel_attention_mask all ones. "
    "transformers' torchvision backend (Idefics3ImageProcessor) differs in its resampling by a few grey levels; the model was trained with "
    "Lanczos, bicubic and bilinear reductions, so outputs should rarely differ."
)


def inputs(clip):
    """(frames, prompt, ground truth, where the frames are from) of every case."""
    for times, prompt, truth in CLIP_INPUTS:
        source = {"clip": os.path.basename(clip), "times": list(times)}
        yield clip_frames(clip, times), prompt, truth, source
    seed = FIRST_SEED
    for i, (prompt, family, style) in enumerate(SCENE_INPUTS):
        while True:
            frames, t = scene_frames(seed, i % 3 + 1)
            seed += 1
            if t.usable and t.vehicles:
                break
        answer = {True: "Yes.", False: "No."}
        truth = answer.get(L.fixed_answer(t, family), "") if family else L.caption(t, style)
        yield frames, prompt, truth, {"seed": seed - 1}


def describe_pixels(px):
    """Checksums and samples of the preprocessed pixels."""
    u8 = np.rint((px + 1) * 127.5).astype(np.uint8)
    return {
        "shape": list(px.shape),
        "dtype": "float32 little endian",
        "sha256": hashlib.sha256(px.tobytes()).hexdigest(),
        "sha256_u8_before_normalisation": hashlib.sha256(u8.tobytes()).hexdigest(),
        "mean": float(px.mean()),
        "std": float(px.std()),
        "first_16_of_first_image_red_row_0": [round(float(v), 6) for v in px[0, 0, 0, 0, :16]],
        "row_120_red_16_from_column_88": [round(float(v), 6) for v in px[0, 0, 0, 120, 88:104]],
    }


@torch.no_grad()
def answer(proc, vlm, frames, prompt):
    """transformers' template text, inputs, image features and greedy output ids."""
    content = [{"type": "image"}] * len(frames) + [{"type": "text", "text": prompt}]
    text = proc.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    x = proc(text=text, images=[frames], return_tensors="pt")
    out = vlm.generate(**x, max_new_tokens=96, do_sample=False)[0, x["input_ids"].shape[1] :]
    seen = vlm.model.get_image_features(x["pixel_values"], x["pixel_attention_mask"])
    return text, x, torch.cat(seen.pooler_output), out.tolist()


def main():
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model_dir")
    ap.add_argument("clip")
    a = ap.parse_args()
    model = a.model_dir
    torch.set_num_threads(1)
    os.makedirs(f"{model}/golden", exist_ok=True)
    proc = AutoProcessor.from_pretrained(model)
    vlm = Idefics3ForConditionalGeneration.from_pretrained(model).eval()
    fp32, int8 = Runtime(model), Runtime(model, "_quantized")
    cases = []
    for i, (frames, prompt, truth, source) in enumerate(inputs(a.clip)):
        names = [f"golden/{i:02d}_{j}.png" for j in range(len(frames))]
        for name, im in zip(names, frames):
            im.save(f"{model}/{name}", optimize=True)
        text, x, feats, ids = answer(proc, vlm, frames, prompt)
        px, input_ids = x["pixel_values"].numpy().astype("<f4"), x["input_ids"][0].tolist()
        cases.append(
            {
                "frames": names,
                "source": source,
                "prompt": prompt,
                "chat_text": text,
                "input_ids": input_ids,
                "pixel_values": describe_pixels(px),
                "image_features": {
                    "shape": list(feats.shape),
                    "first_8": [round(float(v), 5) for v in feats[0, :8]],
                },
                "output_ids": ids,
                "text": proc.tokenizer.decode(ids, skip_special_tokens=True).strip(),
                "ground_truth": truth,
                "onnxruntime_agrees": fp32.generate(input_ids, px) == ids,
                "onnxruntime_quantized_agrees": int8.generate(input_ids, px) == ids,
            }
        )
        print(i, prompt, "|", cases[-1]["text"], "|", truth)
    agree = sum(c["onnxruntime_agrees"] for c in cases)
    agree_q = sum(c["onnxruntime_quantized_agrees"] for c in cases)
    note = (
        "Greedy decoding. output_ids end with <end_of_utterance>. Made by transformers generate() on the PyTorch weights (float32, CPU); "
        f"onnxruntime on the exported fp32 files gave the same ids for {agree} of {len(cases)}, on the int8 files for {agree_q} of {len(cases)}."
    )
    golden = {
        "note": note,
        "preprocessing": PREPROCESSING,
        "eos_token_id": fp32.config["eos_token_id"],
        "image_token_id": fp32.config["image_token_id"],
        "cases": cases,
    }
    with open(f"{model}/golden.json", "w") as f:
        json.dump(golden, f, indent=1)
    print(note)


if __name__ == "__main__":
    main()
