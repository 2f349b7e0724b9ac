"""SONAR at its real size, with random weights: loading, encoding, decoding, and what bf16 changes.

python -m benchmarks.sonar FOLDER

Writes the three files (6.6 GB) to FOLDER unless they are there. Each measurement has a process of its own. Where
SONAR_PYTHON names an interpreter with sonar-space, its pipelines are measured on the same files and sentences.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from engine import Search
from engine.spaces.checkpoint import official_shapes
from engine.spaces.sonar import SonarSpace
from engine.spaces.sonar_files import DECODER, ENCODER, TOKENIZER
from engine.spaces.transformer import SONAR_DECODER, SONAR_ENCODER

WORDS = 26  # with the language and the end, 28 tokens
SENTENCES, VECTORS, LENGTH, BEAMS = 64, 20, 24, 5


def sentences() -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(f"w{word}" for word in random.integers(0, 250_000, WORDS)) for _ in range(SENTENCES)]


def make(folder: Path) -> None:
    """Random weights of a usual spread, and a tokenizer of 256,000 words that is SONAR's but for the words."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for file, dims, decoder in ((ENCODER, SONAR_ENCODER, False), (DECODER, SONAR_DECODER, True)):
        if (folder / file.name).exists():
            continue
        state = {}
        for name, shape in official_shapes(dims, decoder).items():
            if "norm" in name:
                state[name] = torch.full(shape, float(name.endswith("weight")))
            else:
                state[name] = torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) == 2 else 0.02)
        torch.save({"model": state}, folder / file.name)
    model = pb.ModelProto()
    for index, piece in enumerate(["<unk>", "<s>", "</s>", *(f"▁w{i}" for i in range(255_997))]):
        model.pieces.add(piece=piece, score=-1.0, type=(2, 3, 3)[index] if index < 3 else 1)
    model.normalizer_spec.name = "identity"
    model.trainer_spec.model_type = 1
    (folder / TOKENIZER.name).write_bytes(model.SerializeToString())


def peak() -> float:
    """The most memory this process has had, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def measure(folder: Path, name: str) -> None:
    dtype = getattr(torch, name)
    before, start = peak(), time.perf_counter()
    space = SonarSpace.load(folder, "cpu", dtype=dtype)
    parameters = [p for tower in (space.codec.encoder, space.codec.decoder) for p in tower.parameters()]
    for parameter in parameters:
        parameter.max()  # what is mapped counts once it is read
    took, files = time.perf_counter() - start, 1.632993280 * dtype.itemsize
    print(
        f"{name}: loaded in {took:.0f} s, peak {peak() - before:.2f} GB = {(peak() - before) / files:.2f} x the weights"
    )
    texts = sentences()
    space.encode(texts, "eng_Latn")  # what is mapped is read now, not while the clock runs
    start = time.perf_counter()
    vectors = space.encode(texts, "eng_Latn")
    print(f"{name}: encodes {SENTENCES / (time.perf_counter() - start):.1f} sentences of {WORDS + 2} tokens a second")
    np.save(folder / f"{name}.npy", vectors)
    start = time.perf_counter()
    space.decode(vectors[:VECTORS], "fra_Latn", search=Search("beam", beams=BEAMS, max_tokens=LENGTH))
    rate = VECTORS / (time.perf_counter() - start)
    print(f"{name}: decodes {rate:.2f} sentences of {LENGTH} tokens a second, beam {BEAMS}")


def main() -> None:
    if len(sys.argv) == 3:
        return measure(Path(sys.argv[1]), sys.argv[2])
    folder = Path(sys.argv[1])
    make(folder)
    for name in ("float32", "bfloat16"):
        subprocess.run([sys.executable, "-m", "benchmarks.sonar", folder, name], check=True)
    a, b = (np.load(folder / f"{name}.npy") for name in ("float32", "bfloat16"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    print(f"bfloat16 against float32: cosine {cosine.min():.5f} at least, {cosine.mean():.5f} on average")
    if "SONAR_PYTHON" in os.environ:
        script = Path(__file__).with_name("official_sonar.py")
        # -P: this folder has a `sonar`, too.
        subprocess.run([os.environ["SONAR_PYTHON"], "-P", script, folder], check=True)


if __name__ == "__main__":
    main()
