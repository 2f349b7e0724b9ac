"""Spread a space's concepts over all their components: `python -m engine.training.whitening --help`.

An encoder that came from a sentence embedder leaves most of a concept unused: of 512 directions some 130 vary, and
four fifths of every vector are the mean of all. Noise then drowns what little the other directions say. Here the
encoder's last linear map is rewritten so that the directions that vary do so alike (whitening), and those that do not
are given to what the pooled states say beyond them. The decoder's maps of the concept are rewritten to read the same
from the new vectors; training on does the rest.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ConceptscapeError
from ..spaces.builtin import BOS, EOS
from ..spaces.transformer import TextDecoder, TextEncoder
from . import corpus
from .space import SpaceModel, initialize, padded

KEPT = 140  # directions of the old concepts that are kept; of the shipped ones the next varies 100 times less
SENTENCES = 12_000  # that the statistics are taken from
FRESH = 0.5  # standard deviation of the new directions, where the kept ones have 1


@torch.inference_mode()
def pooled_states(encoder: TextEncoder, rows: list[list[int]], tokens: int = 4096) -> Tensor:
    """What the encoder's last linear map reads, [N, 2 * width], for rows of token ids (without begin and end)."""
    found: list[Tensor] = []
    hook = encoder.project.register_forward_hook(lambda _, inputs, __: found.append(inputs[0].float()))
    rows = sorted(rows, key=len)
    while rows:
        count = max(1, tokens // (len(rows[min(len(rows), tokens // (len(rows[0]) + 2)) - 1]) + 2))
        batch, rows = rows[:count], rows[count:]
        encoder(padded([[BOS, *ids, EOS] for ids in batch], max(map(len, batch)) + 2))
    hook.remove()
    return torch.cat(found)


def components(values: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [D] of centred values [N, D] along their principal directions [D, D] (columns), largest first."""
    variances, directions = torch.linalg.eigh(values.T @ values / len(values))
    return variances.flip(0).clamp_min(1e-9), directions.flip(1)


@torch.no_grad()
def whiten(encoder: TextEncoder, decoder: TextDecoder, states: Tensor, kept: int) -> None:
    """Rewrite both towers, in place, for concepts that vary in all directions; `states` [N, 2 * width] are samples."""
    project = encoder.project
    outer = project(states)
    spread = (outer - outer.mean(1, keepdim=True)).std(1, correction=0).mean()  # what the final LayerNorm divides by
    centring = torch.eye(outer.shape[1]) - 1 / outer.shape[1]
    old, shift = centring @ project.weight / spread, centring @ project.bias / spread  # concept = old @ state + shift
    concepts = states @ old.T + shift
    mean, middle = concepts.mean(0), states.mean(0)
    variances, directions = components(concepts - mean)
    variances, directions = variances[:kept], directions[:, :kept]
    whitener = (directions / variances.sqrt()).T  # [kept, D]
    known = (concepts - mean) @ whitener.T
    told = known.T @ (states - middle) / len(states)  # regression of states on the kept directions (known is white)
    rest_variances, rest = components(states - middle - known @ told)
    fresh = outer.shape[1] - kept
    reader = FRESH * (rest[:, :fresh] / rest_variances[:fresh].sqrt()).T  # [fresh, 2 * width]
    upper = whitener @ old
    lower = reader @ (torch.eye(states.shape[1]) - told.T @ upper)
    project.weight.copy_(torch.cat([upper, lower]))
    project.bias.copy_(-project.weight @ middle)
    scale = ((kept + fresh * FRESH**2) / outer.shape[1]) ** 0.5  # what the final LayerNorm divides by now
    back = directions * variances.sqrt() * scale  # concept = mean + back @ (kept part of the new one)
    for layer in decoder.layers:
        layer.concept.bias.add_(layer.concept.weight @ mean)
        read = layer.concept.weight @ back
        layer.concept.weight.copy_(torch.cat([read, torch.zeros(len(read), fresh)], dim=1))


def sample(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Sentences of every kind the corpus has: sides of pairs, single ones, and of training stories."""
    paired = [side for pair in corpus.distinct_pairs(folder) for side in pair[2:]]
    single = [text for _, text in corpus.distinct_sentences(folder)]
    told = [s for story in corpus.stories(folder) if story.split == "train" for s in story.sentences]
    rng = random.Random(seed)
    return [text for kind in (paired, single, told) for text in rng.sample(kind, min(len(kind), count // 3))]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.whitening", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with pairs, sentences and documents")
    parser.add_argument("--init", type=Path, required=True, help="a checkpoint (safetensors), or packed weights")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its SentencePiece model")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, in fp32")
    args = parser.parse_args(arguments)
    try:
        tokenizer = sentencepiece.SentencePieceProcessor(str(args.tokenizer))
        model = SpaceModel().eval()
        initialize(model, args.init, tokenizer, fresh=False)
        rows = [ids for ids in tokenizer.encode(sample(args.corpus, SENTENCES)) if 0 < len(ids) <= 62]
        whiten(model.encoder, model.decoder, pooled_states(model.encoder, rows), KEPT)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, args.out)
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
