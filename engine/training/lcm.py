"""Train a concept model on encoded documents: `python -m engine.training.lcm --help`.

The recipe of the Large Concept Models (arXiv 2412.08821): every document is its concepts, followed by the concept of
"End of text." (section 2.3.1), and each concept is predicted from those before it. `torchrun` spreads a run over
several processes, whose model and optimizer are then sharded (FSDP2). SONAR-LLM (arXiv 2508.05305) is trained on the
words of the next sentence, through the space's frozen decoder.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..device import best_dtype
from ..errors import ConceptscapeError, TrainingError, WeightsError
from ..evaluation.lcm import auc, predictions, scores
from ..lcm.base import BaseLCM
from ..lcm.blocks import Block, Dimensions
from ..lcm.generator import Stop, generate_all
from ..lcm.model import END_SENTENCE, Batch, ConceptModel
from ..lcm.sonar_llm import SonarLLM
from ..lcm.two_tower import DenoiserBlock
from ..lcm.weights import KINDS, SIZES, dimensions, load, save
from ..spaces.builtin import ASSETS, EOS, BuiltinSpace
from ..spaces.transformer import PAD
from .corpus import LANGUAGES
from .documents import Documents, read_shards

NAN_STEPS = 10  # so many in a row stop the run


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    steps: int = 1500
    minutes: float = 0.0  # if not 0, train so long instead, and the learning rate follows the clock
    batch: int = 1024  # concepts in a batch, about, over all processes
    rate: float = 1e-3
    warmup: int = 60  # steps
    weight_decay: float = 0.05
    noise: float = 0.1  # standard deviation of the noise on what the model reads (a component's own is about 1)
    average: float = 0.995  # decay of the averaged weights, which are the ones that ship
    check: int = 100  # steps between validations
    patience: int = 6  # validations without progress that end the run
    seed: int = 0


# ---- batches --------------------------------------------------------------------------------------------------------


def batches(
    documents: Documents, indices: np.ndarray, context: int, size: int, seed: int, start: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Endless batches of windows (document, first, last) of about `size` concepts; the same for the same seed.

    A document that is longer than the context gives a random window of it.
    """
    lengths = np.array([min(documents.length(i), context) for i in indices])
    count = 0
    for epoch in range(1_000_000):
        rng = random.Random(f"{seed}/{epoch}")
        order = sorted(range(len(indices)), key=lambda i: (lengths[i], rng.random()))
        groups: list[list[int]] = [[]]
        for i in order:  # like lengths share a batch, so that little is padding
            if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > size:
                groups.append([])
            groups[-1].append(i)
        rng.shuffle(groups)
        for group in groups:
            if count >= start:
                # Windows are drawn from the batch's own number, so that a resumed run draws the same.
                draw = random.Random(f"{seed}/window/{count}")
                yield [window(int(indices[i]), documents.length(int(indices[i])), context, draw) for i in group]
            count += 1


def window(index: int, length: int, context: int, rng: random.Random) -> tuple[int, int, int]:
    """The whole of a document that fits the context, or else a random part of it."""
    first = rng.randint(0, max(0, length - context))
    return index, first, min(length, first + context)


def collate(documents: Documents, windows: Sequence[tuple[int, int, int]]) -> Batch:
    """A batch of windows. What stands first in a window inside a document is not predicted: it has no beginning."""
    length = max(last - first for _, first, last in windows)
    concepts = torch.zeros(len(windows), length, documents.concepts.shape[1])
    real = torch.zeros(len(windows), length, dtype=torch.bool)
    for i, (index, first, last) in enumerate(windows):
        concepts[i, : last - first] = torch.from_numpy(documents[index][first:last])
        real[i, int(first > 0) : last - first] = True
    return Batch(concepts, real)


class Words:
    """SONAR-LLM's loss (arXiv 2508.05305, section 3): cross-entropy of the next sentence's tokens, decoded from the
    predicted concept by the space's frozen decoder. It is asked for `sentences` of a batch, drawn anew each time: a
    decoder costs far more than a concept model.
    """

    def __init__(self, space: BuiltinSpace, documents: Documents, sentences: int = 64) -> None:
        self.space, self.documents, self.sentences = space, documents, sentences
        space.decoder.requires_grad_(False)

    def loss(self, model: ConceptModel, batch: Batch, windows: Sequence[tuple[int, int, int]], read: Tensor) -> Tensor:
        assert isinstance(model, SonarLLM)
        predicted = model.normalizer.denormalize(model.predictions(replace(batch, concepts=read)))
        places = batch.real.nonzero()
        places = places[torch.randperm(len(places))[: self.sentences].to(places.device)]
        said, langs = [], []
        for row, place in places.tolist():
            index, first, last = windows[row]
            said.append(self.space.tokens(self.documents.said(index, END_SENTENCE)[first:last][place]))
            langs.append(LANGUAGES.index(self.documents.langs[index]))
        concepts = predicted[places[:, 0], places[:, 1]]
        concepts = concepts * (float(model.norm) / concepts.norm(dim=-1, keepdim=True).clamp_min(1e-6))
        width = max(map(len, said))
        inputs = torch.tensor([ids + [PAD] * (width - len(ids)) for ids in said])
        targets = torch.tensor([[*ids, EOS] + [PAD] * (width - len(ids)) for ids in said])
        inputs, targets, languages = (x.to(read.device) for x in (inputs, targets, torch.tensor(langs)))
        decoder = self.space.decoder.to(read.device)
        states = decoder.states(inputs, decoder.condition(concepts), languages)
        real_tokens = targets != PAD
        return nn.functional.cross_entropy(decoder.logits(states[real_tokens]).float(), targets[real_tokens])


# ---- a run ----------------------------------------------------------------------------------------------------------


def share(step: int, done: float, recipe: Recipe) -> float:
    """The learning rate's share of its peak: warm-up, then a cosine to a fiftieth; `done` of the run is over."""
    return min(1.0, (step + 1) / recipe.warmup) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or all of one that is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensors: Any) -> list[Tensor]:
    """The parts of tensors that this process has."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


class Run:
    """One training run: model, averaged model, optimizer, its place in the data, and its folder.

    It begins with the weights of `start`, if there is one, and otherwise with random ones.

    Raises TrainingError where there is too little to train on, WeightsError for a checkpoint of another run.
    """

    def __init__(
        self,
        kind: str,
        dims: Dimensions,
        documents: Documents,
        recipe: Recipe,
        out: Path,
        words: Words | None = None,
        start: ConceptModel | None = None,
        save_minutes: float = 10,
    ) -> None:
        self.documents, self.recipe, self.out, self.words = documents, recipe, out, words
        self.save_seconds = save_minutes * 60
        self.rank, self.processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        self.bf16 = best_dtype(self.device) == torch.bfloat16
        self.learn = np.flatnonzero(~documents.valid)
        self.check = np.flatnonzero(documents.valid & (np.array(documents.langs) == english_or_all(documents)))
        if not len(self.learn) or not len(self.check):
            raise TrainingError("There must be training and validation documents; encode more of the corpus.")
        torch.manual_seed(recipe.seed)
        self.model = KINDS[kind](dims)
        if start is None:
            self.prepare()
        else:
            # What the kind that it starts from does not have stays as it is.
            self.model.load_state_dict(self.model.state_dict() | start.state_dict())
        self.model.to(self.device)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        if self.processes > 1:
            self.shard()
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim != 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
        self.step = self.skipped = self.in_a_row = self.stale = 0
        self.seconds, self.best = 0.0, math.inf
        self.kept = state_of(self.averaged)  # the averaged weights that were best on the validation documents
        out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = out / "checkpoint.pt"
        if self.checkpoint.exists():
            self.resume()

    def prepare(self) -> None:
        """Fit the normalizer, and what else a kind needs, on a sample of the training documents."""
        documents = self.documents
        starts, ends = documents.starts[:-1][self.learn], documents.starts[1:][self.learn]
        rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
        rng = np.random.default_rng(self.recipe.seed)
        sample = np.asarray(documents.concepts[np.sort(rng.permutation(rows)[:40_000])], np.float32)
        self.model.normalizer.fit(sample)
        self.model.end.copy_(torch.from_numpy(documents.end))
        self.model.norm.fill_(float(np.linalg.norm(sample, axis=1).mean()))
        if not (self.out / "checkpoint.pt").exists():  # a checkpoint holds what was prepared
            self.model.prepare(self.model.normalizer.normalize(torch.from_numpy(sample)), self.recipe.seed)

    def shard(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        mesh = init_device_mesh(self.device.type, (self.processes,))
        for model in (self.model, self.averaged):
            for module in model.modules():
                if isinstance(module, Block | DenoiserBlock):
                    fully_shard(module, mesh=mesh)
            fully_shard(model, mesh=mesh)
            for method in ("loss", "expectations", "predictions"):  # the ways in, next to `forward`
                if hasattr(model, method):
                    register_fsdp_forward_method(model, method)

    # Checkpoints

    def state(self) -> dict[str, Any]:
        return {
            "model": state_of(self.model),
            "averaged": state_of(self.averaged),
            "best": self.kept,
            "optimizer": {
                index: {name: whole(value) for name, value in self.optimizer.state[p].items()}
                for index, p in enumerate(p for group in self.optimizer.param_groups for p in group["params"])
                if p in self.optimizer.state
            },
            "numbers": [self.step, self.skipped, self.stale, self.seconds, self.best],
        }

    def save(self) -> None:
        """Write a checkpoint, whole or not at all. Raises TrainingError where the disk does not take it."""
        state = self.state()  # all processes take part in putting a sharded model together
        if self.rank == 0:
            new = self.checkpoint.with_suffix(".new")
            try:
                torch.save(state, new)
                new.replace(self.checkpoint)
            except (OSError, RuntimeError) as error:
                new.unlink(missing_ok=True)
                raise TrainingError(
                    f"The checkpoint can't be written to {self.out.name} ({error}); make room and start again: "
                    "the last one is whole."
                ) from error

    def resume(self) -> None:
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # reading damaged bytes can fail in any way
            raise WeightsError(f"The checkpoint in {self.out.name} is damaged; delete it and start again.") from error
        try:
            restore(self.model, saved["model"])
            restore(self.averaged, saved["averaged"])
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            for index, values in saved["optimizer"].items():
                self.optimizer.state[parameters[index]] = {
                    name: sharded_like(value.to(self.device), parameters[index]) if value.ndim else value
                    for name, value in values.items()
                }
            self.kept = saved["best"]
            self.step, self.skipped, self.stale, self.seconds, self.best = saved["numbers"]
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise WeightsError(
                f"The checkpoint in {self.out.name} is of another run; choose another folder."
            ) from error
        self.say(f"resumed at step {self.step}")

    # Steps

    def part(self, windows: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int, int]], slice]:
        """What this process takes of a batch; at least one window, so that all processes keep in step."""
        rows = range(self.rank, len(windows), self.processes)
        return [windows[row] for row in rows] or windows[:1], slice(self.rank, None, self.processes)

    def train_on(self, windows: list[tuple[int, int, int]], rate: float) -> float:
        """One step; its loss, nan where it was skipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.recipe.rate
        own, rows = self.part(windows)
        empty = self.rank >= len(windows)
        batch = collate(self.documents, windows)
        total = int(batch.real.sum())
        # Noise is drawn for the whole batch, so that it does not depend on how many processes share it.
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        noise = self.recipe.noise * torch.randn(batch.concepts.shape, generator=generator)
        rows = slice(0, 1) if empty else rows
        real = batch.real[rows].to(self.device)
        concepts = self.model.normalizer.normalize(batch.concepts[rows].to(self.device))
        batch, read = Batch(concepts, real), concepts + noise[rows].to(self.device)
        # What a model draws by itself (dropout, timesteps) is the same in a resumed run.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step * self.processes + self.rank)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.words.loss(self.model, batch, own, read) if self.words else self.model.loss(batch, read)
        weight = 0.0 if empty else float(real.sum()) * self.processes / total
        self.optimizer.zero_grad(set_to_none=True)
        (loss * weight).backward()
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        value = torch.stack([loss.detach().float() * weight / self.processes, norm.detach().float()])
        if self.processes > 1:
            torch.distributed.all_reduce(value[:1])
        if torch.isfinite(value).all():
            self.optimizer.step()
            self.in_a_row = 0
            decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(local(self.averaged.parameters()), local(self.model.parameters()), 1 - decay)
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        self.step += 1
        return float(value[0])

    @torch.no_grad()
    def validate(self) -> float:
        """The averaged model's loss on validation documents, with the same draws every time."""
        total, count = 0.0, 0
        torch.manual_seed(self.recipe.seed)
        for number, windows in enumerate(batches(self.documents, self.check, self.model.dims.context, 1024, 0, 0)):
            if number == 8:
                break
            batch = collate(self.documents, windows)
            concepts = self.model.normalizer.normalize(batch.concepts.to(self.device))
            batch = Batch(concepts, batch.real.to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = (
                    self.words.loss(self.averaged, batch, windows, concepts)
                    if self.words
                    else self.averaged.loss(batch, concepts)
                )
            weight = int(batch.real.sum())
            total, count = total + float(loss) * weight, count + weight
        return total / count

    def go(self) -> ConceptModel:
        """Train to the last step, or until the validation loss has not fallen for long; the best averaged model.

        Raises TrainingError where the loss is not finite ten times in a row, or a checkpoint can't be written.
        """
        recipe, context = self.recipe, self.model.dims.context
        losses: list[float] = []
        saved_at = clock = time.monotonic()
        for windows in batches(self.documents, self.learn, context, recipe.batch, recipe.seed, self.step):
            done = self.seconds / (recipe.minutes * 60) if recipe.minutes else self.step / recipe.steps
            if self.agreed(done >= 1) or self.stale >= recipe.patience:
                break
            losses.append(self.train_on(windows, share(self.step, done, recipe)))
            if self.in_a_row == NAN_STEPS:
                raise TrainingError(
                    f"The loss was not finite {NAN_STEPS} times in a row, at step {self.step}; lower the rate."
                )
            self.seconds, clock = self.seconds + time.monotonic() - clock, time.monotonic()
            if self.step % recipe.check == 0:
                self.note(float(np.nanmean(losses)), share(self.step, done, recipe))
                losses = []
            if self.agreed(time.monotonic() - saved_at > self.save_seconds):
                self.save()
                saved_at = time.monotonic()
        if self.step % recipe.check:
            self.note(float(np.nanmean(losses)) if losses else math.nan, 0.0)
        self.save()
        best = KINDS[self.model.kind](self.model.dims)
        best.load_state_dict(self.kept)
        return best.eval()

    def note(self, loss: float, rate: float) -> None:
        """Validate, keep the best, and add a row to log.csv."""
        valid = self.validate()
        self.stale += 1
        if valid < self.best:
            self.best, self.stale, self.kept = valid, 0, state_of(self.averaged)
        row = {
            "step": self.step,
            "loss": round(loss, 5),
            "valid": round(valid, 5),
            "rate": round(rate * self.recipe.rate, 7),
            "seconds": round(self.seconds),
            "skipped": self.skipped,
        }
        self.say(json.dumps(row))
        if self.rank == 0:
            path = self.out / "log.csv"
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if fresh:
                    writer.writeheader()
                writer.writerow(row)

    def agreed(self, wish: bool) -> bool:
        """Whether the first process wishes so: the clocks of the others may differ."""
        if self.processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        torch.distributed.broadcast(flag, 0)
        return flag.item() > 0

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)


def english_or_all(documents: Documents) -> Any:
    """English, where the model learns from nothing else; else whatever language a document has."""
    langs = np.array(documents.langs)
    learnt = set(langs[~documents.valid])
    return "eng" if learnt == {"eng"} else langs


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights on the CPU, put together where they are sharded."""
    return {name: whole(tensor).detach().cpu().clone() for name, tensor in model.state_dict().items()}


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `state_of` gave. Raises KeyError or ValueError for another model's."""
    own = model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        raise ValueError("a model of another shape")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(sharded_like(state[name].to(whole(tensor).device), tensor))


# ---- after training -------------------------------------------------------------------------------------------------


def fit_means(model: SonarLLM, documents: Documents, indices: np.ndarray) -> None:
    """Let SONAR-LLM learn how means follow from its predictions, on 1,500 training documents."""
    model.slope.copy_(torch.eye(len(model.slope)))
    model.offset.zero_()
    pairs = predictions(model, documents, indices[:1500])
    parts = (np.concatenate(part) for part in zip(*pairs, strict=True))
    model.fit_means(*(model.normalizer.normalize(torch.from_numpy(part)) for part in parts))


def calibrate(model: ConceptModel, documents: Documents, indices: np.ndarray) -> dict[str, float]:
    """Set what a trained model knows about endings and about its own errors, from validation documents.

    Nearness to the end becomes a probability by logistic regression; the threshold is the one of best F1.
    """
    pairs = [
        (guess, truth)
        for i, (guess, truth) in zip(indices, predictions(model, documents, indices), strict=True)
        if documents.whole[i] and len(truth) == documents.length(int(i))
    ]
    guesses = torch.from_numpy(np.concatenate([guess for guess, _ in pairs]))
    truths = torch.from_numpy(np.concatenate([truth for _, truth in pairs]))
    ends = torch.cat([torch.arange(len(truth)) == len(truth) - 1 for _, truth in pairs])
    with torch.no_grad():
        expected = model.normalizer.normalize(guesses)
        near = model.nearness(expected).double()
        # Newton's method: two unknowns, a convex loss.
        features = torch.stack([near, torch.ones_like(near)], 1)
        fit = torch.zeros(2, dtype=torch.float64)
        for _ in range(30):
            p = torch.sigmoid(features @ fit)
            gradient = features.T @ (p - ends.double()) + 1e-3 * fit
            hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * torch.eye(2, dtype=torch.float64)
            fit -= torch.linalg.solve(hessian, gradient)
        model.end_fit.copy_(fit)
        p = model.ending(expected)
        best, threshold = 0.0, 0.5
        for candidate in np.linspace(0.05, 0.95, 91):
            said = p >= candidate
            f1 = 2 * float((said & ends).sum()) / max(float(said.sum() + ends.sum()), 1.0)
            if f1 > best:
                best, threshold = f1, float(candidate)
        model.end_threshold.fill_(threshold)
        if isinstance(model, BaseLCM):
            missed = (model.normalizer.normalize(truths) - expected)[~ends]
            covariance = missed.T @ missed / len(missed)
            # int8 storage and a lower-triangular factor get along: its rows have like lengths.
            model.spread.copy_(torch.linalg.cholesky(covariance + 1e-4 * torch.eye(len(covariance))))
    return {
        "end auc": round(auc(near[ends].numpy(), near[~ends].numpy()), 4),
        "end f1": round(best, 4),
        "end threshold": round(threshold, 3),
    }


def free_running(model: ConceptModel, documents: Documents, indices: np.ndarray) -> dict[str, float]:
    """Let the model go on from each document's first three concepts, to twice its length; how do documents end?"""
    told = [documents[int(i)][: documents.length(int(i)) - 1] for i in indices if documents.whole[i]]
    told = [own for own in told if 6 <= len(own) <= model.dims.context // 2]
    if not told:
        return {}
    most = 2 * max(map(len, told)) - 3
    made = generate_all(model, [own[:3] for own in told], most, seeds=range(len(told)), stop=Stop(repetition=2.0))
    ended = [len(new) < 2 * len(own) - 3 for own, new in zip(told, made, strict=True)]
    ratios = [min(3 + len(new), 2 * len(own)) / len(own) for own, new in zip(told, made, strict=True)]
    return {"ended by itself": round(float(np.mean(ended)), 3), "length ratio": round(float(np.mean(ratios)), 3)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.lcm", description=__doc__)
    parser.add_argument("--model", choices=list(KINDS), default="base", help="which kind (%(default)s)")
    parser.add_argument("--size", choices=list(SIZES), default="tiny", help="of the published ones (%(default)s)")
    parser.add_argument("--concepts", type=Path, default=Path("runs/concepts"), help="shards of encode_corpus")
    parser.add_argument("--langs", nargs="*", default=["eng"], help="languages to train on (%(default)s)")
    parser.add_argument(
        "--init", type=Path, help="weights to start from: of this kind, or base for sonar-llm (random ones)"
    )
    parser.add_argument("--out", type=Path, help="where checkpoints and the log go (runs/lcm-MODEL)")
    parser.add_argument("--weights", type=Path, help="the file to write (assets/lcm/MODEL.safetensors)")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights, for sonar-llm")
    parser.add_argument("--dropout", type=float, default=0.1)
    for field in dataclasses.fields(Recipe):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default, help=f"{field.default}")
    args = parser.parse_args(arguments)
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    try:
        documents = read_shards(args.concepts, args.langs)
        words = Words(BuiltinSpace.load(args.space), documents) if KINDS[args.model].words else None
        start = load(args.init, documents.space, None, documents.fingerprint) if args.init else None
        if start and not issubclass(KINDS[args.model], type(start)):
            raise TrainingError(f"{args.init.name} holds a {start.kind} model, from which {args.model} can't start.")
        dims = start.dims if start else replace(dimensions(args.model, args.size), concept=documents.concepts.shape[1])
        dims = replace(dims, dropout=args.dropout)
        run = Run(args.model, dims, documents, recipe, args.out or Path(f"runs/lcm-{args.model}"), words, start)
        model = run.go()
        if run.rank == 0:
            if isinstance(model, SonarLLM):
                fit_means(model, documents, run.learn)
            facts = {
                "documents": len(run.learn),
                "concepts": sum(documents.length(int(i)) for i in run.learn),
                "recipe": asdict(recipe),
                "steps": run.step,
                "seconds": round(run.seconds),
                "skipped": run.skipped,
                "valid": round(run.best, 5),
                "ends": calibrate(model, documents, run.check) | free_running(model, documents, run.check[:60]),
                "scores": scores(model, documents, run.check),
            }
            path = args.weights or ASSETS / "lcm" / f"{args.model}.safetensors"
            save(path, model, documents.space, documents.fingerprint, facts)
            print(json.dumps(facts, indent=1))
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
