"""Trained towers as the weights that ship: `python -m engine.training.packaging --help`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import mean

import torch

from ..errors import TrainingError
from ..evaluation import Pair, evaluate_space
from ..spaces.builtin import BuiltinSpace, fingerprint, sizes
from ..spaces.transformer import TextDecoder, TextEncoder
from ..weights import load_weights, save_weights
from . import corpus
from .command import answered
from .space import averaged_model, held_out

LOST = 0.5  # BLEU that packing as int8 may cost


def package(out: Path, tokenizer: Path, assets: Path, pairs: list[Pair] | None = None) -> None:
    """Write the averaged weights of a run, matrices as int8, and the tokenizer into `assets`.

    With held-out pairs, both are scored, and the scores are written into the file. Raises TrainingError where int8
    loses more than LOST.
    """
    try:
        saved = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no checkpoint in {out}; train first.") from error
    model = averaged_model(saved)
    metadata = {"steps": str(saved["numbers"][0])}
    if pairs:
        with tempfile.TemporaryDirectory() as name:
            shutil.copyfile(tokenizer, Path(name, "tokenizer.model"))
            write_towers(model.encoder, model.decoder, Path(name), metadata)
            packed = BuiltinSpace.load(Path(name))
        exact = BuiltinSpace(model.encoder, model.decoder, tokenizer, "exact")
        scores = {kind: bleu(space, pairs) for kind, space in (("fp32", exact), ("int8", packed))}
        lost = mean(scores["fp32"].values()) - mean(scores["int8"].values())
        if lost > LOST:
            raise TrainingError(f"Packed as int8 the space loses {lost:.2f} BLEU; nothing was written.")
        metadata["bleu"] = json.dumps(scores)
        print(json.dumps(scores))
    write_towers(model.encoder, model.decoder, assets, metadata)
    if tokenizer.resolve() != (assets / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer, assets / "tokenizer.model")


def write_towers(
    encoder: TextEncoder, decoder: TextDecoder, folder: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write both towers. An encoder that has not changed keeps its file, and so what was encoded stays valid."""
    path = folder / "encoder.safetensors"
    own = encoder.state_dict()
    there = load_weights(path) if path.exists() else {}
    languages = {"languages": " ".join(corpus.LANGUAGES)}
    same = own.keys() == there.keys() and all(own[name].shape == there[name].shape for name in own)
    if not same or not all(torch.allclose(own[name].cpu(), there[name], rtol=1e-5) for name in own):
        save_weights(path, own, languages | sizes(encoder))
    about = languages | sizes(decoder) | {"encoder": fingerprint(path)} | (metadata or {})
    save_weights(folder / "decoder.safetensors", decoder.state_dict(), about)


def bleu(space: BuiltinSpace, pairs: list[Pair]) -> dict[str, float]:
    """The mean BLEU of each group of directions that the pairs have."""
    summary = evaluate_space(space, pairs, gradients=0)["summary"]
    return {name: own["bleu"] for name, own in summary.items() if isinstance(own, dict) and own["bleu"] is not None}


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.packaging", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model")
    parser.add_argument("--assets", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--valid", type=Path, help="held-out pairs (valid.tsv.gz) on which int8 is held against fp32")
    args = parser.parse_args(arguments)
    package(args.run, args.tokenizer, args.assets, held_out(args.valid, 20) if args.valid else None)


if __name__ == "__main__":
    sys.exit(main())
