"""Train the built-in concept space: `python -m engine.training.space --help`.

The objective is SONAR's (arXiv 2308.11466, section 3): translation and denoising autoencoding through one
vector, with an alignment loss between translations. Gaussian noise on the concept makes the space between
sentences decode too. Weights compute in bf16 and are kept in fp32; `torchrun` spreads a run over several GPUs
or cores.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ..errors import TrainingError, WeightsError
from ..evaluation import Pair, evaluate_space, read_pairs, thin
from ..spaces.builtin import LANGUAGES, BuiltinSpace, read_towers
from ..spaces.transformer import Dimensions
from . import checkpoint
from .batches import Batch, Batches, Mixture
from .command import add_recipe, answered, chosen
from .objective import Shortlist, SpaceModel
from .optimizer import Optimizer, Weights
from .schedule import Clock, Schedule
from .tokens import Tokens

NAN_STEPS = 10  # so many in a row stop the run
TOWERS = ("encoder", "decoder")
NOTED = 50  # steps between two lines of the log


@dataclass(frozen=True)
class Recipe(Mixture):
    """Every number of a run."""

    steps: int = 8000
    budget: float | None = None  # minutes: train so long, instead of a number of steps
    warmup: float = 0.02  # share of the run in which the rates rise
    decay: float = 0.5  # share of the run, at its end, in which they fall to zero
    thaw: float = 0.0  # share of the run, at its beginning, in which the encoder stays as it is
    encoder_rate: float = 4e-4  # 0: the encoder, and with it every concept, stays as it is
    decoder_rate: float = 1.5e-3
    reader: float = 2.0  # times the decoder's rate: that of the maps by which it reads the concept
    align: float = 0.5  # weight of the alignment loss
    contrast: float = 0.1  # weight of the contrastive loss
    temperature: float = 0.05  # of the contrastive loss, for cosines
    noise: float = 0.2  # largest standard deviation of the noise on a concept (its own is 1)
    frequent: int = 5000  # pieces that are in every step's softmax
    drawn: int = 1500  # pieces that stand for all others in it
    average: float = 0.999  # what the averaged weights keep of themselves at each step

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.budget, self.warmup, self.decay)


def averaged_model(saved: dict[str, Any]) -> SpaceModel:
    """The averaged weights of a checkpoint, in fp32, on the CPU."""
    model = SpaceModel(*(Dimensions(**saved["sizes"][tower]) for tower in TOWERS))
    for tower in TOWERS:
        module: nn.Module = getattr(model, tower)
        nn.utils.vector_to_parameters(saved[tower]["averaged"].cpu(), module.parameters())
    return model


class Run:
    """One training run: its models, its place in the data, and its folder.

    It starts from the towers in the folder `init` (see `start`), whatever their sizes.
    """

    def __init__(
        self, tokens: Tokens, init: Path, tokenizer: Path, out: Path, recipe: Recipe, valid: list[Pair] | None = None
    ) -> None:
        recipe.schedule.checked()
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if self.processes > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.recipe, self.out, self.tokenizer_file, self.valid = recipe, out, tokenizer, valid or []
        encoder, decoder = read_towers(init)
        out.mkdir(parents=True, exist_ok=True)
        self.model = SpaceModel(encoder.dims, decoder.dims)
        self.model.encoder.load_state_dict(encoder.state_dict())
        self.model.decoder.load_state_dict(decoder.state_dict())
        self.batches = Batches(tokens, recipe, 8 if self.device.type == "cuda" else 1)
        vocabulary = encoder.dims.vocabulary
        counts = self.batches.counts(vocabulary)
        # A GPU's batches want most pieces anyway.
        frequent = vocabulary if self.device.type == "cuda" else recipe.frequent
        self.shortlist = Shortlist(counts, frequent, recipe.drawn)
        self.checkpoint = out / "checkpoint.pt"
        self.model.to(self.device)
        self.model.encoder.requires_grad_(recipe.encoder_rate > 0)
        # The pieces keep the meanings that e5 learnt from far more text, so that rare words stay among their kin.
        self.model.encoder.embed.requires_grad_(False)
        self.parts = {
            "encoder": Weights(self.model.encoder, recipe.encoder_rate),
            "decoder": Weights(self.model.decoder, recipe.decoder_rate, {".concept.": recipe.reader}),
        }
        self.trained = [part for part in self.parts.values() if part.peak]
        self.optimizer = Optimizer(self.trained, self.rank, self.processes)
        self.step = self.seen = 0
        self.tokens, self.clock = 0, Clock()
        self.skipped, self.in_a_row = (torch.zeros((), device=self.device) for _ in range(2))
        if self.checkpoint.exists():
            self.resume()
        self.say(str(tokens))

    def resume(self) -> None:
        saved = checkpoint.read(self.checkpoint, self.device)
        try:
            for name, part in self.parts.items():
                part.restore(saved[name])
            self.optimizer.restore(saved["optimizer"])
            self.step, self.seen, self.tokens, skipped, in_a_row, seconds = saved["numbers"]
        except (ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(f"The checkpoint in {self.out} is of another run; choose another folder.") from error
        self.skipped.fill_(skipped)
        self.in_a_row.fill_(in_a_row)
        self.clock = Clock(seconds)
        self.say(f"resumed at step {self.step}")

    def state(self) -> dict[str, Any]:
        numbers = [self.step, self.seen, self.tokens, float(self.skipped), float(self.in_a_row), self.clock.seconds]
        return {
            **{name: part.state() for name, part in self.parts.items()},
            "sizes": {"encoder": asdict(self.model.encoder.dims), "decoder": asdict(self.model.decoder.dims)},
            "optimizer": self.optimizer.state(),
            "numbers": numbers,
        }

    def save(self) -> None:
        """Write a checkpoint, whole or not at all. Raises TrainingError where the disk does not take it."""
        if self.rank == 0:
            checkpoint.write(self.checkpoint, self.state())

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def note(self, record: dict[str, Any]) -> None:
        """Print a record, and add it to log.jsonl."""
        if self.rank == 0:
            self.say(json.dumps(record))
            with (self.out / "log.jsonl").open("a") as log:
                print(json.dumps(record), file=log)

    @property
    def done(self) -> float:
        """The share of the run that is over; all processes follow the first one's clock."""
        done = self.recipe.schedule.done(self.step, self.clock.seconds)
        if self.processes == 1 or self.recipe.budget is None:
            return done
        told = torch.tensor(done, device=self.device)
        torch.distributed.broadcast(told, 0)
        return float(told)

    def train_on(self, batch: Batch, done: float) -> Tensor:
        """One step on one batch for each process; the losses [3], not finite where the step was skipped.

        A GPU is never waited for: whether the gradient is finite is its own business.
        """
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.seen + self.rank)
        frozen = done < recipe.thaw or not recipe.encoder_rate
        losses = self.model.losses(batch, self.shortlist, recipe.noise, recipe.temperature, generator, frozen)
        tokens, align, against = losses
        (tokens + recipe.align * align + recipe.contrast * against).backward()
        norm = torch.stack([part.take_gradient(self.processes) for part in self.trained]).norm()
        bad = (~torch.isfinite(norm)).float()
        for part in self.trained:
            part.slope.mul_(1 / norm.clamp_min(1.0))  # gradients are clipped to norm 1
        self.optimizer.step(recipe.schedule.rate(done), bad)
        keep = min(recipe.average, (1 + self.step) / (10 + self.step))
        for part in self.trained:
            part.updated(keep)
        self.skipped += bad
        self.in_a_row = (self.in_a_row + bad) * bad
        self.step += 1
        self.seen += self.processes
        self.tokens += batch.cost * self.processes
        return losses.detach()

    def show(self, keep: Callable[[SpaceModel], None] | None) -> None:
        """Give the averaged weights to `keep`, and note their scores on a few held-out pairs."""
        if self.rank or not (self.valid or keep):
            return
        model = averaged_model(self.state())
        if keep:
            keep(model)
        if self.valid:
            space = BuiltinSpace(model.encoder, model.decoder, self.tokenizer_file, "in training")
            report = evaluate_space(space, self.valid, gradients=0)
            scores = {
                name: value["bleu"] if isinstance(value, dict) else value for name, value in report["summary"].items()
            }
            lengths = {size: own["bleu"] for size, own in report["lengths"]["to themselves"].items()}
            self.note({"step": self.step, "valid": scores | lengths})

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes so: all of them must stop and save at the same step."""
        if self.processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def go(self, minutes: float, keep: Callable[[SpaceModel], None] | None = None) -> None:
        """Train to the end, with a checkpoint and a validation every so many minutes and at the end.

        The averaged weights go to `keep` then.

        Ctrl-C or SIGTERM end the run after the step at hand, with a checkpoint. Raises TrainingError when the loss
        stays not finite.
        """
        with interruptible() as asked:
            self.steps(minutes, asked, keep)
        self.save()
        self.show(keep)

    def steps(self, minutes: float, asked: Event, keep: Callable[[SpaceModel], None] | None) -> None:
        saved_at = began = time.monotonic()
        read = self.tokens
        losses: list[Tensor] = []
        told = False
        self.clock.skip()
        # Each process takes its turn at the stream.
        for batch in itertools.islice(self.batches.stream(self.seen + self.rank), 0, None, self.processes):
            done = self.done
            if done >= 1 or self.agreed(asked.is_set()):
                return
            losses.append(self.train_on(batch, done))
            if self.step % NAN_STEPS == 0 and self.in_a_row >= NAN_STEPS:
                raise TrainingError(
                    f"The loss was not finite {NAN_STEPS} times in a row, at step {self.step}; lower the rates."
                )
            seconds = time.monotonic() - began
            if len(losses) == NOTED or (not told and seconds > 20):
                told = True
                means = torch.stack(losses).nanmean(0).tolist()  # the device is waited for here
                seconds = time.monotonic() - began
                record = dict(zip(("tokens", "align", "contrast"), (round(loss, 4) for loss in means), strict=True))
                speed = {
                    "tokens a second": round((self.tokens - read) / seconds),
                    "minutes": round(self.clock.seconds / 60, 2),
                }
                self.note({"step": self.step, **record, **speed, "done": round(done, 4), "skipped": int(self.skipped)})
                losses, began, read = [], time.monotonic(), self.tokens
            self.clock.tick()
            if self.agreed(self.rank == 0 and time.monotonic() - saved_at > minutes * 60):
                self.save()
                self.show(keep)
                self.clock.skip()
                saved_at = began = time.monotonic()
                losses, read = [], self.tokens


@contextlib.contextmanager
def interruptible() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set, in place of ending the process."""
    asked = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def train(arguments: list[str] | None = None, keep: Callable[[SpaceModel], None] | None = None) -> None:
    """Train as options say; the averaged weights go to `keep` at every checkpoint. Raises ConceptscapeError."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.space", description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="the corpus, as engine.training.tokens writes it")
    parser.add_argument("--init", type=Path, required=True, help="folder with the towers to start from, such as assets")
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model")
    parser.add_argument("--valid", type=Path, help="held-out pairs (valid.tsv.gz) to score checkpoints on")
    parser.add_argument("--out", type=Path, default=Path("runs/space"), help="where checkpoints go (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="between checkpoints (%(default)s)")
    add_recipe(parser, Recipe)
    args = parser.parse_args(arguments)
    valid = held_out(args.valid) if args.valid else []
    tokens = Tokens.load(args.tokens)
    run = Run(tokens, args.init, args.tokenizer, args.out, chosen(args, Recipe), valid)
    run.go(args.minutes, keep)


@answered
def main(arguments: list[str] | None = None) -> None:
    train(arguments)


def held_out(path: Path, limit: int = 8) -> list[Pair]:
    """So many held-out pairs of each pair of languages."""
    return thin(read_pairs(path.read_bytes(), path.name, LANGUAGES), limit)


if __name__ == "__main__":
    sys.exit(main())
