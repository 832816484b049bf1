"""fastembed for Python over the model of a directory: texts per second at a batch size. The last line is one JSON object.

    fastembed_python.py MODEL THREADS BATCH SECONDS
"""

import json
import pathlib
import sys
import time

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TEXTS = json.loads(pathlib.Path(__file__).with_name("texts.json").read_text())


def main():
    """Command line."""
    model_dir, threads, batch, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    TextEmbedding.add_custom_model(
        model="bench/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="bench/model"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("bench/model", specific_model_path=model_dir, threads=threads)
    batches = [TEXTS[at : at + batch] for at in range(0, len(TEXTS) - batch + 1, batch)]
    list(model.embed(batches[0], batch_size=batch))
    done, started, cpu = 0, time.monotonic(), time.process_time()
    vector = None
    while time.monotonic() - started < seconds:
        for texts in batches:
            vector = list(model.embed(texts, batch_size=batch))[0]
            done += len(texts)
    took, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"texts_per_second": done / took, "texts_per_cpu_second": done / cpu, "last": [float(x) for x in vector[:4]]}))


if __name__ == "__main__":
    main()
