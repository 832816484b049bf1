"""llama.cpp's own server with random models: one that chats, sees and hears, one that embeds.

    python serve.py DIRECTORY KEY

Makes the models in DIRECTORY, prints the two base addresses as one line of JSON, and ends with its standard input.
"""

import json
import os
import sys
from pathlib import Path

import xllamacpp

# No compiled copy beside it in the repository.
sys.dont_write_bytecode = True
import models  # noqa: E402


def parameters(model: Path, name: str, key: str) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.api_keys = [key]
    params.n_ctx = 4 * models.CONTEXT
    params.n_parallel = 4
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 8
    params.warmup = False
    return params


def main() -> None:
    directory, key = Path(sys.argv[1]), sys.argv[2]
    language, senses = directory / "language.gguf", directory / "senses.gguf"
    models.language(language)
    models.senses(senses)
    chat = parameters(language, "random-vlm", key)
    chat.mmproj.path = str(senses)
    # What it hears would otherwise never end.
    chat.n_predict = 64
    embed = parameters(language, "random-embedder", key)
    embed.embedding = True
    embed.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    servers = [xllamacpp.Server(params) for params in (chat, embed)]
    print(json.dumps([f"{server.listening_address}/v1" for server in servers]), flush=True)
    sys.stdin.read()
    # Ending the two servers in an orderly way may wait for ever.
    os._exit(0)


if __name__ == "__main__":
    main()
