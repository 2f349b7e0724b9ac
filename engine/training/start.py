"""Make the towers that a concept space is trained on from: `python -m engine.training.start --help`.

The encoder is that of an earlier space, or multilingual-e5-small; the decoder that of an earlier space, or a language
model such as Whisper's text decoder, which has everything but the maps by which it reads a concept.

An encoder that came from a sentence embedder leaves most of a concept unused: of 512 directions some 20 to 140 vary.
Noise then drowns what little the others say. So its pooling gets more heads, and its last linear map is rewritten: the
directions that vary do so alike (whitening), and the others are given to what the pooled states say beyond them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..spaces.builtin import BOS, EOS, read_towers
from ..spaces.transformer import FIRST_DECODER, FIRST_ENCODER, PAD, WHISPER_DECODER, TextDecoder, TextEncoder
from ..weights import load_weights
from . import e5
from .command import answered
from .packaging import write_towers
from .tokens import Tokens

SENTENCES = 12_000  # that the statistics are taken from
FRESH = 0.5  # standard deviation of the new directions, where the kept ones have 1
FAINTEST = 0.02  # the standard deviation below which a direction of the pooled states is not made louder


@torch.inference_mode()
def pooled_states(encoder: TextEncoder, rows: Sequence[list[int]], tokens: int = 4096) -> Tensor:
    """What the encoder's last linear map reads, [N, width + pool width], for token ids without begin and end."""
    found: list[Tensor] = []
    hook = encoder.project.register_forward_hook(lambda _, inputs, __: found.append(inputs[0].float()))
    rows = sorted(rows, key=len)
    while rows:
        count = max(1, tokens // (len(rows[min(len(rows), tokens // (len(rows[0]) + 2)) - 1]) + 2))
        batch, rows = rows[:count], rows[count:]
        width = max(map(len, batch))
        encoder(torch.tensor([[BOS, *ids, EOS] + [PAD] * (width - len(ids)) for ids in batch]))
    hook.remove()
    return torch.cat(found)


def components(values: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [D] of centred values [N, D] along their principal directions [D, D] (columns), largest first."""
    variances, directions = torch.linalg.eigh(values.T @ values / len(values))
    return variances.flip(0).clamp_min(1e-9), directions.flip(1)


@torch.no_grad()
def widened(encoder: TextEncoder, concept: int, heads: int) -> TextEncoder:
    """The encoder with more pooling heads, which look at random, and a last map for concepts of another size.

    That map reads of the new heads nothing, and says nothing in the new components, until it is rewritten.
    """
    dims = encoder.dims
    each = dims.pool_width // dims.pool_heads
    wide = TextEncoder(replace(dims, concept=concept, pool_heads=heads, pool_width=heads * each))
    state = encoder.state_dict()
    for name in ("pool_score", "pool_value", "project"):
        layer = getattr(wide, name)
        nn.init.normal_(layer.weight, std=dims.width**-0.5)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(wide.project.weight)
    for name, own in wide.state_dict().items():
        old = state[name]
        own[tuple(slice(0, min(a, b)) for a, b in zip(own.shape, old.shape, strict=True))].copy_(
            old[tuple(slice(0, min(a, b)) for a, b in zip(own.shape, old.shape, strict=True))]
        )
    return wide


@torch.no_grad()
def whiten(encoder: TextEncoder, states: Tensor, kept: int, decoder: TextDecoder | None = None) -> None:
    """Rewrite the encoder's last map, in place, so that all directions of a concept vary; `states` [N, width + pool
    width] are samples of what it reads.

    `kept` directions of the concepts that it makes now are kept. A `decoder` is rewritten to read the same from them.
    """
    project = encoder.project
    size = encoder.dims.concept
    outer = project(states)
    spread = (outer - outer.mean(1, keepdim=True)).std(1, correction=0).mean()  # what the final LayerNorm divides by
    centring = torch.eye(size) - 1 / size
    old, shift = centring @ project.weight / spread, centring @ project.bias / spread  # concept = old @ state + shift
    concepts = states @ old.T + shift
    mean, middle = concepts.mean(0), states.mean(0)
    variances, directions = components(concepts - mean)
    variances, directions = variances[:kept], directions[:, :kept]
    whitener = (directions / variances.sqrt()).T  # [kept, D]
    known = (concepts - mean) @ whitener.T
    told = known.T @ (states - middle) / len(states)  # regression of states on the kept directions (known is white)
    rest_variances, rest = components(states - middle - known @ told)
    fresh = size - kept
    if fresh > rest.shape[1] - kept:
        raise WeightsError(f"A concept of {size} components asks for more pooling heads.")
    reader = FRESH * (rest[:, :fresh] / rest_variances[:fresh].sqrt().clamp_min(FAINTEST)).T  # [fresh, states]
    upper = whitener @ old
    lower = reader @ (torch.eye(states.shape[1]) - told.T @ upper)
    project.weight.copy_(torch.cat([upper, lower]))
    project.bias.copy_(-project.weight @ middle)
    if decoder is None:
        return
    scale = ((kept + fresh * FRESH**2) / size) ** 0.5  # what the final LayerNorm divides by now
    back = directions * variances.sqrt() * scale  # concept = mean + back @ (kept part of the new one)
    for layer in decoder.layers:
        layer.concept.bias.add_(layer.concept.weight @ mean)
        read = layer.concept.weight @ back
        layer.concept.weight.copy_(torch.cat([read, torch.zeros(len(read), fresh)], dim=1))


def sample(tokens: Tokens, count: int, seed: int = 0) -> list[list[int]]:
    """Token ids of sentences of every kind that the corpus has."""
    rng = random.Random(seed)
    kinds = [
        texts for texts in (tokens.left, tokens.right, tokens.singles, tokens.literature, tokens.told) if len(texts)
    ]
    each = count // len(kinds)
    found = [texts[i] for texts in kinds for i in rng.sample(range(len(texts)), min(len(texts), each))]
    return [ids for ids in found if ids]


def read_encoder(folder: Path, tokenizer: Path) -> tuple[TextEncoder, TextDecoder | None]:
    """An earlier space's towers, or e5 as an encoder whose pooling is random. Raises WeightsError."""
    if (folder / "encoder.safetensors").exists():
        return read_towers(folder)
    state = e5.encoder_state(folder, sentencepiece.SentencePieceProcessor(str(tokenizer)))
    encoder = TextEncoder(replace(FIRST_ENCODER, vocabulary=len(state["encoder.embed.weight"])))
    for weight in (encoder.pool_score.weight, encoder.pool_value.weight, encoder.project.weight):
        nn.init.normal_(weight, std=0.02)
    encoder.load_state_dict({name.removeprefix("encoder."): own for name, own in state.items()}, strict=False)
    return encoder, None


def language_model(path: Path, concept: int) -> TextDecoder:
    """A text decoder that lacks only the maps by which it reads a concept; these start small.

    Raises WeightsError where the file holds something else.
    """
    decoder = TextDecoder(replace(WHISPER_DECODER, concept=concept))
    state = load_weights(path)
    own = decoder.state_dict()
    maps = {name for name in own if ".concept." in name}
    if own.keys() - maps != state.keys() or any(own[name].shape != tensor.shape for name, tensor in state.items()):
        raise WeightsError(f"{path.name} holds no text decoder of Whisper's sizes under this project's names.")
    decoder.load_state_dict(state, strict=False)
    fresh_maps(decoder)
    return decoder


def fresh_decoder(encoder: TextEncoder) -> TextDecoder:
    """A decoder that starts from small random weights, its embedding from the encoder's."""
    decoder = TextDecoder(replace(FIRST_DECODER, vocabulary=encoder.dims.vocabulary, concept=encoder.dims.concept))
    for parameter in decoder.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    embedding = encoder.embed.weight.detach()
    decoder.embed.weight.data.copy_(embedding * (embedding.shape[1] ** -0.5 / embedding.std()))
    return decoder


def fresh_maps(decoder: TextDecoder) -> None:
    for layer in decoder.layers:
        nn.init.normal_(layer.concept.weight, std=0.02)
        nn.init.zeros_(layer.concept.bias)


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.start", description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="the corpus, as engine.training.tokens writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model")
    parser.add_argument(
        "--encoder", type=Path, required=True, help="folder of a space's towers, or multilingual-e5-small"
    )
    parser.add_argument("--decoder", type=Path, help="a language model (default: the space's own, or a random one)")
    parser.add_argument("--concept", type=int, default=1024, help="components (%(default)s)")
    parser.add_argument("--heads", type=int, default=12, help="of pooling (%(default)s)")
    parser.add_argument(
        "--kept", type=int, default=140, help="directions of the encoder's concepts to keep (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what starts at random")
    parser.add_argument("--out", type=Path, default=Path("runs/start"), help="the folder to write (%(default)s)")
    args = parser.parse_args(arguments)
    torch.manual_seed(args.seed)
    tokens = Tokens.load(args.tokens)
    old, own = read_encoder(args.encoder, args.tokenizer)
    encoder = widened(old, args.concept, args.heads).eval()
    if args.decoder:
        decoder = language_model(args.decoder, args.concept)
    elif own is not None and own.dims.concept == args.concept:
        decoder = own
    else:
        decoder = fresh_decoder(encoder)
    keeps = own is not None and decoder is own
    whiten(encoder, pooled_states(encoder, sample(tokens, SENTENCES)), args.kept, decoder if keeps else None)
    args.out.mkdir(parents=True, exist_ok=True)
    write_towers(encoder, decoder, args.out)


if __name__ == "__main__":
    sys.exit(main())
