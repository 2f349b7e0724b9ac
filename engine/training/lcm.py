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
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..device import best_dtype
from ..errors import TrainingError, WeightsError
from ..evaluation.lcm import scores
from ..lcm.blocks import Block, Dimensions
from ..lcm.model import Batch, ConceptModel
from ..lcm.sonar_llm import SonarLLM
from ..lcm.two_tower import DenoiserBlock
from ..lcm.weights import KINDS, SIZES, dimensions, load, save
from ..spaces.builtin import ASSETS, BuiltinSpace
from . import checkpoint
from .calibration import calibrate, fit_means, free_running
from .command import add_recipe, answered, chosen
from .concepts import read
from .documents import Documents
from .schedule import Clock, Schedule
from .tokens import CODES, Tokens
from .windows import Window, batches, collate
from .words import Words

NAN_STEPS = 10  # so many in a row stop the run


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    steps: int = 1500
    budget: float | None = None  # minutes: train so long, instead of a number of steps
    batch: int = 1024  # concepts in a batch, about, over all processes
    rate: float = 1e-3
    warmup: float = 0.04  # share of the run in which the rate rises
    decay: float = 0.9  # share of the run, at its end, in which it falls to zero
    weight_decay: float = 0.05
    noise: float = 0.1  # standard deviation of the noise on what the model reads (a component's own is about 1)
    average: float = 0.995  # decay of the averaged weights, which are the ones that ship
    check: int = 100  # steps between validations
    seed: int = 0

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.budget, self.warmup, self.decay)


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
        recipe.schedule.checked()
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
        if words:
            words.to(self.device)
        # All concepts, the end's last: where they are needed.
        end = documents.end[None].astype(np.float16)
        self.concepts = torch.from_numpy(np.concatenate([documents.concepts, end])).to(self.device)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        if self.processes > 1:
            self.shard()
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim != 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
        self.step, self.best, self.clock = 0, math.inf, Clock()
        self.skipped, self.in_a_row = (torch.zeros((), device=self.device) for _ in range(2))
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
            "numbers": [self.step, float(self.skipped), self.clock.seconds, self.best],
        }

    def save(self) -> None:
        """Write a checkpoint, whole or not at all. Raises TrainingError where the disk does not take it."""
        state = self.state()  # all processes take part in putting a sharded model together
        if self.rank == 0:
            checkpoint.write(self.checkpoint, state)

    def resume(self) -> None:
        saved = checkpoint.read(self.checkpoint)
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
            self.step, skipped, seconds, self.best = saved["numbers"]
            self.skipped.fill_(skipped)
            self.clock = Clock(seconds)
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise WeightsError(
                f"The checkpoint in {self.out.name} is of another run; choose another folder."
            ) from error
        self.say(f"resumed at step {self.step}")

    # Steps

    def normalized(self, rows: np.ndarray) -> Tensor:
        """Rows of the concepts [N, T], those of padding zero, as the model takes them, [N, T, D]."""
        index = torch.from_numpy(rows).to(self.device)
        concepts = self.model.normalizer.normalize(self.concepts[index.clamp_min(0)].float())
        return concepts * (index >= 0)[..., None]

    def train_on(self, windows: list[Window], done: float) -> Tensor:
        """One step, `done` of the run being over; its loss [], not finite where it was skipped.

        A GPU is never waited for: whether the gradient is finite is its own business.
        """
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.schedule.rate(done) * recipe.rate
        rows, real = collate(self.documents, windows)
        total = int(real.sum())
        # Noise is drawn for the whole batch, so that it does not depend on how many processes share it.
        seed = recipe.seed * 1_000_003 + self.step
        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (*rows.shape, self.concepts.shape[1])
        noise = recipe.noise * torch.randn(shape, generator=generator, device=self.device)
        # A process without a window of its own takes the first, so that all keep in step, and gives it no weight.
        empty = self.rank >= len(windows)
        own = slice(0, 1) if empty else slice(self.rank, None, self.processes)
        rows, real = rows[own], real[own]
        concepts = self.normalized(rows)
        batch, heard = Batch(concepts, torch.from_numpy(real).to(self.device)), concepts + noise[own]
        # What a model draws by itself (dropout, timesteps) is the same in a resumed run.
        torch.manual_seed(recipe.seed * 1_000_003 + self.step * self.processes + self.rank)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = (
                self.words.loss(self.model, batch, rows, real, heard) if self.words else self.model.loss(batch, heard)
            )
        weight = 0.0 if empty else float(real.sum()) * self.processes / total
        self.optimizer.zero_grad(set_to_none=True)
        (loss * weight).backward()
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)).detach().float()
        value = loss.detach().float() * weight / self.processes
        if self.processes > 1:
            torch.distributed.all_reduce(value)
        bad = (~torch.isfinite(value + norm)).float()
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]  # as a gradient scaler says it
        self.optimizer.step()
        decay = min(recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(local(self.averaged.parameters()), local(self.model.parameters()), 1 - decay)
        self.skipped += bad
        self.in_a_row = (self.in_a_row + bad) * bad
        self.step += 1
        return value

    @torch.no_grad()
    def validate(self) -> float:
        """The averaged model's loss on validation documents, with the same draws every time."""
        total, count = 0.0, 0
        torch.manual_seed(self.recipe.seed)
        for number, windows in enumerate(batches(self.documents, self.check, self.model.dims.context, 1024, 0, 0)):
            if number == 8:
                break
            rows, real = collate(self.documents, windows)
            concepts = self.normalized(rows)
            batch = Batch(concepts, torch.from_numpy(real).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = (
                    self.words.loss(self.averaged, batch, rows, real, concepts)
                    if self.words
                    else self.averaged.loss(batch, concepts)
                )
            weight = int(real.sum())
            total, count = total + float(loss) * weight, count + weight
        return total / count

    def go(self) -> ConceptModel:
        """Train to the end; the averaged model that was best on the validation documents.

        Raises TrainingError where the loss is not finite ten times in a row, or a checkpoint can't be written.
        """
        recipe, context = self.recipe, self.model.dims.context
        losses: list[Tensor] = []
        saved_at = time.monotonic()
        self.clock.skip()
        for windows in batches(self.documents, self.learn, context, recipe.batch, recipe.seed, self.step):
            done = recipe.schedule.done(self.step, self.clock.seconds)
            if self.agreed(done >= 1):
                break
            losses.append(self.train_on(windows, done))
            if self.step % NAN_STEPS == 0 and self.in_a_row >= NAN_STEPS:
                raise TrainingError(
                    f"The loss was not finite {NAN_STEPS} times in a row, at step {self.step}; lower the rate."
                )
            self.clock.tick()
            if self.step % recipe.check == 0:
                self.note(losses, recipe.schedule.rate(done))
                losses = []
                self.clock.skip()
            if self.agreed(time.monotonic() - saved_at > self.save_seconds):
                self.save()
                self.clock.skip()
                saved_at = time.monotonic()
        if self.step % recipe.check:
            self.note(losses, 0.0)
        self.save()
        best = KINDS[self.model.kind](self.model.dims)
        best.load_state_dict(self.kept)
        return best.eval()

    def note(self, losses: Sequence[Tensor], rate: float) -> None:
        """Validate, keep the best, and add a row to log.csv."""
        valid = self.validate()
        if valid < self.best:
            self.best, self.kept = valid, state_of(self.averaged)
        loss = float(torch.stack(list(losses)).nanmean()) if losses else math.nan
        row = {
            "step": self.step,
            "loss": round(loss, 5),
            "valid": round(valid, 5),
            "rate": round(rate * self.recipe.rate, 7),
            "seconds": round(self.clock.seconds),
            "skipped": int(self.skipped),
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


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.lcm", description=__doc__)
    parser.add_argument("--model", choices=list(KINDS), default="base", help="which kind (%(default)s)")
    parser.add_argument("--size", choices=list(SIZES), default="tiny", help="of the published ones (%(default)s)")
    parser.add_argument("--tokens", type=Path, default=Path("runs/tokens.npz"), help="the corpus (%(default)s)")
    parser.add_argument("--concepts", type=Path, default=Path("runs/concepts"), help="its concepts (%(default)s)")
    parser.add_argument("--langs", nargs="*", default=[], choices=list(CODES), help="languages to train on (all)")
    parser.add_argument(
        "--init", type=Path, help="weights to start from: of this kind, or base for sonar-llm (random ones)"
    )
    parser.add_argument("--out", type=Path, help="where checkpoints and the log go (runs/lcm-MODEL)")
    parser.add_argument("--weights", type=Path, help="the file to write (assets/lcm/MODEL.safetensors)")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights, for sonar-llm")
    parser.add_argument("--sentences", type=int, default=64, help="of a batch whose words are asked for, for sonar-llm")
    parser.add_argument("--dropout", type=float, default=0.1)
    add_recipe(parser, Recipe)
    args = parser.parse_args(arguments)
    recipe = chosen(args, Recipe)
    documents = read(args.concepts, Tokens.load(args.tokens), args.langs)
    words = Words(BuiltinSpace.load(args.space), documents, args.sentences) if KINDS[args.model].words else None
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
            "seconds": round(run.clock.seconds),
            "skipped": int(run.skipped),
            "valid": round(run.best, 5),
            "ends": calibrate(model, documents, run.check) | free_running(model, documents, run.check[:60]),
            "scores": scores(model, documents, run.check),
        }
        path = args.weights or ASSETS / "lcm" / f"{args.model}.safetensors"
        save(path, model, documents.space, documents.fingerprint, facts)
        print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    sys.exit(main())
