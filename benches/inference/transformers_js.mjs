// The same work with transformers.js (@huggingface/transformers on onnxruntime-node): all windows in one batch, or one after another.
//
//     node transformers_js.mjs MODEL_DIRECTORY THREADS together|one_by_one WINDOWS FRAMES TOKENS
//
// Prints what it cost as JSON.

import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';

// Imports are looked for beside this file; where the package was installed is told instead.
const dist = 'node_modules/@huggingface/transformers/dist/transformers.node.mjs';
const { AutoModelForImageTextToText, AutoProcessor, RawImage, env } = await import(pathToFileURL(path.join(process.env.PEERS_JS ?? '.', dist)));

const [directory, threads, how, ...numbers] = process.argv.slice(2);
const [windows, frames, tokens] = numbers.map(Number);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(directory);
const name = path.basename(directory);

// As `frame` of models/parity/common.py.
function frame(index, width = 640, height = 360) {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++, i++)
        pixels[i] =
          (Math.floor((x * (3 + c) + y * (5 - c) + index * 40) / 4) +
            ((Math.floor(x / 24) + Math.floor(y / 17) + index) % 5) * 30 +
            c * 60 +
            Math.floor((x * y) / 97)) %
          256;
  return new RawImage(pixels, width, height, 3);
}

const session_options = { intraOpNumThreads: Number(threads), interOpNumThreads: 1 };
const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageTextToText.from_pretrained(name, { dtype: 'q8', device: 'cpu', session_options });
const shown = Array.from({ length: frames }, (_, i) => frame(i));
const text = `<|im_start|>User:${'<image>'.repeat(frames)}Describe the scene<end_of_utterance>\nAssistant:`;

const started = process.hrtime.bigint();
const before = process.cpuUsage();
let decoded = 0;
const rounds = how === 'together' ? 1 : windows;
for (let round = 0; round < rounds; round++) {
  const rows = windows / rounds;
  const texts = Array(rows).fill(text);
  const images = Array(rows).fill(shown);
  const inputs = rows === 1 ? await processor(text, shown, { do_image_splitting: false }) : await processor(texts, images, { do_image_splitting: false });
  const output = await model.generate({ ...inputs, max_new_tokens: tokens, do_sample: false });
  decoded += rows * (output.dims.at(-1) - inputs.input_ids.dims.at(-1) - 1);
}
const used = process.cpuUsage(before);
const status = fs.readFileSync('/proc/self/status', 'utf8');
const peak = Number(/VmHWM:\s*(\d+)/.exec(status)[1]) / 1024;
console.log(
  JSON.stringify({
    wall: Number(process.hrtime.bigint() - started) / 1e9,
    cpu: (used.user + used.system) / 1e6,
    steps: {},
    decoded,
    peak_mb: Math.round(peak),
  }),
);
process.exit(0);
