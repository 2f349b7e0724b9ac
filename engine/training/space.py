"""Train the built-in concept space: `python -m engine.training.space --help`.

The objective is SONAR's (arXiv 2308.11466, section 3): translation and denoising autoencoding through one
vector, with an alignment loss between translations. Gaussian noise on the concept makes the space between
sentences decode too.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn

from ..errors import TrainingError, WeightsError
from ..spaces.transformer import (
    BUILTIN_DECODER,
    BUILTIN_ENCODER,
    PAD,
    TextDecoder,
    TextEncoder,
)
from ..weights import load_weights, save_weights
from . import corpus

UNK, BOS, EOS = 1, 2, 3
CODES = {lang: i for i, lang in enumerate(corpus.LANGUAGES)}


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    steps: int = 6000  # the learning rate is constant and falls to zero over the last `decay` of them
    decay: float = 0.4
    warmup: int = 150
    tokens: int = 3600  # padded source and target tokens in a batch
    decoder_rate: float = 1.2e-3
    encoder_rate: float = 2e-4
    align: float = 0.5  # weight of the alignment loss
    noise: float = 0.35  # largest standard deviation of the noise on a concept (its own is 1)
    pair_share: float = 0.4  # of the batches' units; the others are single sentences
    story_share: float = 0.3  # of the single sentences
    same_language: float = 0.35  # how often a side of a pair is decoded into its own language
    corrupt: float = 0.25  # how often a single sentence is corrupted before it is encoded
    longest: int = 64  # tokens
    seed: int = 0


class Texts:
    """Token ids of many sentences in one flat array, with their languages."""

    def __init__(
        self,
        tokenizer: sentencepiece.SentencePieceProcessor,
        texts: list[str],
        langs: list[str],
    ) -> None:
        ids = tokenizer.encode(texts)
        self.starts = np.cumsum([0] + [len(i) for i in ids])
        self.flat = np.fromiter((t for i in ids for t in i), np.uint16, self.starts[-1])
        self.langs = np.array([CODES[lang] for lang in langs], np.uint8)

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> list[int]:
        return self.flat[self.starts[index] : self.starts[index + 1]].tolist()

    def length(self, index: int) -> int:
        return int(self.starts[index + 1] - self.starts[index])


@dataclass(frozen=True)
class Example:
    source: list[int]
    target: list[int]
    lang: int


Unit = list[Example]  # one sentence to itself, or the two sides of a pair


class Data:
    """The corpus as a stream of batches, the same stream for the same seed."""

    def __init__(
        self,
        folder: Path,
        tokenizer: sentencepiece.SentencePieceProcessor,
        recipe: Recipe,
    ) -> None:
        self.recipe = recipe
        left, right = [], []
        for a, b, x, y in corpus.pairs(folder):
            left.append((a, x))
            right.append((b, y))
        self.left = Texts(tokenizer, [t for _, t in left], [lang for lang, _ in left])
        self.right = Texts(tokenizer, [t for _, t in right], [lang for lang, _ in right])
        seen: set[str] = set()
        singles = []
        for lang, text in corpus.sentences(folder):
            same = lang + corpus.key(text)
            if same not in seen:
                seen.add(same)
                singles.append((lang, text))
        told = [
            (story.lang, s)
            for story in corpus.stories(folder)
            if story.split == "train"
            for s in story.sentences
            if 4 <= len(s) <= 400
        ]
        self.singles = Texts(tokenizer, [t for _, t in singles], [lang for lang, _ in singles])
        self.told = Texts(tokenizer, [t for _, t in told], [lang for lang, _ in told])
        # Pairs: square-root sampling over the 15 language pairs; singles: every language alike.
        kinds = self.left.langs.astype(int) * 6 + self.right.langs
        self.pair_pools = {k: np.flatnonzero(kinds == k) for k in np.unique(kinds)}
        self.single_pools = [np.flatnonzero(self.singles.langs == i) for i in range(6)]
        sides = np.concatenate([self.left.langs, self.right.langs])
        self.side_pools = [np.flatnonzero(sides == i) for i in range(6)]
        self.told_pools = [np.flatnonzero(self.told.langs == i) for i in range(6)]

    def pair(self, rng: random.Random) -> Unit:
        pools = list(self.pair_pools.values())
        i = int(rng.choice(rng.choices(pools, [math.sqrt(len(p)) for p in pools])[0]))
        a, b = self.left[i], self.right[i]
        la, lb = int(self.left.langs[i]), int(self.right.langs[i])
        own = self.recipe.same_language
        return [
            Example(a, a, la) if rng.random() < own else Example(a, b, lb),
            Example(b, b, lb) if rng.random() < own else Example(b, a, la),
        ]

    def single(self, rng: random.Random) -> Unit:
        if rng.random() < self.recipe.story_share:
            lang = rng.choices(range(6), [0.8, 0.04, 0.04, 0.04, 0.04, 0.04])[0]
            target = self.told[int(rng.choice(self.told_pools[lang]))]
        elif rng.random() < 0.5:  # sides of pairs are good single sentences, and the most there are of some languages
            lang = rng.randrange(6)
            i = int(rng.choice(self.side_pools[lang]))
            target = self.left[i] if i < len(self.left) else self.right[i - len(self.left)]
        else:
            lang = rng.randrange(6)
            target = self.singles[int(rng.choice(self.single_pools[lang]))]
        source = self.corrupted(target, rng) if rng.random() < self.recipe.corrupt else target
        return [Example(source, target, lang)]

    def corrupted(self, ids: list[int], rng: random.Random) -> list[int]:
        """Drop, blank and locally shuffle tokens (denoising autoencoding)."""
        kept = [UNK if rng.random() < 0.05 else t for t in ids if rng.random() > 0.08]
        order = sorted(range(len(kept)), key=lambda j: j + rng.uniform(0, 2.0))
        return [kept[j] for j in order] or ids

    def batches(self, start: int = 0) -> Iterator[list[Unit]]:
        """Batches from step `start` on. Units of like length share a batch, so that little is padding."""
        window = start // 100
        skip = start % 100
        while True:
            rng = random.Random(f"{self.recipe.seed}/{window}")
            made: list[list[Unit]] = []
            units: list[Unit] = []
            total = 0
            while total < 100 * self.recipe.tokens:
                unit = self.pair(rng) if rng.random() < self.recipe.pair_share else self.single(rng)
                if max(max(len(e.source), len(e.target)) for e in unit) + 2 <= self.recipe.longest:
                    units.append(unit)
                    total += sum(len(e.source) + len(e.target) + 3 for e in unit)
            units.sort(key=lambda u: max(max(len(e.source), len(e.target)) for e in u))
            size = sum(sum(len(e.source) + len(e.target) + 3 for e in u) for u in units) / 100
            batch: list[Unit] = []
            spent = 0.0
            for unit in units:
                batch.append(unit)
                spent += sum(len(e.source) + len(e.target) + 3 for e in unit)
                if spent >= size and len(made) < 99:
                    made.append(batch)
                    batch, spent = [], spent - size
            made.append(batch)
            rng.shuffle(made)
            yield from made[skip:]
            window, skip = window + 1, 0


def padded(rows: list[list[int]]) -> Tensor:
    width = -(-max(map(len, rows)) // 4) * 4
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


class TokenLoss(torch.autograd.Function):
    """Mean cross-entropy of states @ embedding.T against targets, keeping only bf16 probabilities.

    The fp32 log-softmax over the vocabulary would be a fifth of a step on a CPU.
    """

    @staticmethod
    def forward(ctx, states: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        states, weight = states.bfloat16(), embedding.bfloat16()
        logits = states @ weight.T
        top = logits.amax(1, keepdim=True)
        chosen = logits.gather(1, targets[:, None]).float()
        probabilities = logits.sub_(top).exp_()
        total = probabilities.sum(1, keepdim=True, dtype=torch.float32)
        probabilities.div_(total.to(torch.bfloat16))
        ctx.save_for_backward(states, weight, probabilities, targets)
        return (total.log() + top.float() - chosen).mean()

    @staticmethod
    def backward(ctx, grad: Tensor):
        states, weight, probabilities, targets = ctx.saved_tensors
        probabilities = probabilities.clone()
        rows = torch.arange(len(targets), device=targets.device)
        probabilities[rows, targets] -= 1
        scale = grad / len(targets)
        return (
            (probabilities @ weight).float() * scale,
            (probabilities.T @ states).float() * scale,
            None,
        )


class SpaceModel(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TextEncoder(BUILTIN_ENCODER)
        self.decoder = TextDecoder(BUILTIN_DECODER)

    def losses(self, batch: list[Unit], recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Token cross-entropy (nats) and alignment (mean squared difference between translations)."""
        device = self.encoder.embed.weight.device
        examples = [e for unit in batch for e in unit]
        sources = padded([[BOS, *e.source, EOS] for e in examples]).to(device)
        inputs = padded([e.target for e in examples]).to(device)
        targets = padded([[*e.target, EOS] for e in examples])[:, : inputs.shape[1] + 1]
        if targets.shape[1] < inputs.shape[1] + 1:
            targets = nn.functional.pad(targets, (0, inputs.shape[1] + 1 - targets.shape[1]))
        targets = targets.to(device)
        langs = torch.tensor([e.lang for e in examples], device=device)
        with torch.autocast(device.type, torch.bfloat16):
            z = self.encoder(sources)
            scale = torch.rand(len(examples), 1, generator=generator).to(device) * recipe.noise
            noisy = z + scale * torch.randn(z.shape, generator=generator).to(device)
            states = self.decoder.states(inputs, self.decoder.condition(noisy), langs)
        real = targets != PAD
        loss = TokenLoss.apply(states[real], self.decoder.embed.weight, targets[real])
        index = 0
        first = []
        for unit in batch:
            if len(unit) == 2:
                first.append(index)
            index += len(unit)
        if not first:
            return loss, loss.new_zeros(())
        a = torch.tensor(first, device=device)
        return loss, (z[a] - z[a + 1]).square().mean()


def load(path: Path, model: SpaceModel) -> None:
    """Load a checkpoint; raises WeightsError where its shapes are another model's."""
    state = load_weights(path)
    if "encoder.positions.weight" in state:
        state["encoder.positions"] = state.pop("encoder.positions.weight")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path.name} holds another model: {str(error).splitlines()[1].strip()}") from error


def rate(step: int, recipe: Recipe) -> float:
    """The learning rate's share of its peak: warm-up, constant, then linear to zero."""
    falling = recipe.steps * recipe.decay
    return min(1.0, (step + 1) / recipe.warmup, max(0.0, (recipe.steps - step) / falling))


def train(
    folder: Path,
    init: Path,
    tokenizer_file: Path,
    out: Path,
    recipe: Recipe,
    minutes: float = 10,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = sentencepiece.SentencePieceProcessor(str(tokenizer_file))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SpaceModel().to(device)
    load(init, model)
    averaged = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.encoder.parameters()), "peak": recipe.encoder_rate},
            {"params": list(model.decoder.parameters()), "peak": recipe.decoder_rate},
        ],
        lr=0.0,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    step = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        averaged = saved["averaged"]
        step = saved["step"]
        print(f"resumed at step {step}", flush=True)
    data = Data(folder, tokenizer, recipe)
    print(
        f"{len(data.left)} pairs, {len(data.singles)} sentences, {len(data.told)} story sentences",
        flush=True,
    )

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "averaged": averaged,
            "step": step,
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)  # a kill while saving leaves the last one whole

    log = (out / "log.jsonl").open("a")
    saved_at = time.monotonic()
    sums = np.zeros(2)
    since, began = 0, time.monotonic()
    skipped = in_a_row = 0
    for batch in data.batches(step):
        if step >= recipe.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, recipe)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        tokens, align = model.losses(batch, recipe, generator)
        optimizer.zero_grad(set_to_none=True)
        (tokens + recipe.align * align).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm) and torch.isfinite(tokens):
            optimizer.step()
            in_a_row = 0
            with torch.no_grad():
                keep = min(0.999, (1 + step) / (10 + step))
                torch._foreach_lerp_(averaged, list(model.parameters()), 1 - keep)
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            if in_a_row == 10:
                save()
                raise TrainingError(f"The loss was not finite ten times in a row, at step {step}; lower the rates.")
        step += 1
        sums += (float(tokens.detach()), float(align.detach()))
        since += 1
        if since == 50:
            seconds = (time.monotonic() - began) / since
            mean = (sums / since).round(4).tolist()
            record = {
                "step": step,
                "tokens": mean[0],
                "align": mean[1],
                "seconds": round(seconds, 3),
                "skipped": skipped,
            }
            print(json.dumps(record), file=log, flush=True)
            print(json.dumps(record), flush=True)
            sums[:] = 0
            since, began = 0, time.monotonic()
        if time.monotonic() - saved_at > minutes * 60:
            save()
            saved_at = time.monotonic()
    save()


def package(out: Path, tokenizer: Path, assets: Path) -> None:
    """Write the averaged weights of a run, matrices as int8, and the tokenizer into `assets`."""
    try:
        saved = torch.load(out / "checkpoint.pt", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no checkpoint in {out}; train first.") from error
    model = SpaceModel()
    for parameter, value in zip(model.parameters(), saved["averaged"], strict=True):
        parameter.data.copy_(value)
    metadata = {"steps": str(saved["step"]), "languages": " ".join(corpus.LANGUAGES)}
    save_weights(assets / "space.safetensors", model.state_dict(), metadata)
    if tokenizer.resolve() != (assets / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer, assets / "tokenizer.model")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.space", description=__doc__)
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        help="folder with pairs, sentences and documents",
    )
    parser.add_argument("--init", type=Path, required=True, help="safetensors checkpoint to start from")
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model")
    parser.add_argument("--out", type=Path, default=Path("runs/space"), help="where checkpoints go")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--package", type=Path, metavar="ASSETS", help="only write the weights of --out there")
    args = parser.parse_args(arguments)
    if args.package:
        package(args.out, args.tokenizer, args.package)
        return
    train(args.corpus, args.init, args.tokenizer, args.out, Recipe(steps=args.steps))


if __name__ == "__main__":
    main()
