"""Train the built-in concept space: `python -m engine.training.space --help`.

The objective is SONAR's (arXiv 2308.11466, section 3): translation and denoising autoencoding through one
vector, with an alignment loss between translations. Gaussian noise on the concept makes the space between
sentences decode too. Weights compute in bf16 and are kept in fp32; `torchrun` spreads a run over several GPUs
or cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Event
from typing import Any

import numpy as np
import sentencepiece
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConceptscapeError, TrainingError, WeightsError
from ..evaluation import Pair, evaluate_space, read_pairs, thin
from ..spaces.builtin import BOS, EOS, BuiltinSpace, fingerprint
from ..spaces.transformer import BUILTIN_DECODER, BUILTIN_ENCODER, PAD, TextDecoder, TextEncoder
from ..weights import load_weights, save_weights
from . import corpus, e5
from .batches import Batches, Mixture, Unit
from .optimizer import Optimizer, Weights

NAN_STEPS = 10  # so many in a row stop the run
TOWERS = ("encoder", "decoder")
TEMPERATURE = 0.05  # of the contrastive loss, for cosines
LOSS = 0.5  # BLEU that packing as int8 may cost


@dataclass(frozen=True)
class Recipe(Mixture):
    """Every number of a run."""

    steps: int = 8000
    warmup: int = 150  # steps in which the rates rise
    decay: int = 1500  # steps at the end in which they fall to zero
    encoder_rate: float = 2e-4  # 0: the encoder, and with it every concept, stays as it is
    decoder_rate: float = 1.2e-3
    align: float = 0.5  # weight of the alignment loss
    contrast: float = 0.1  # weight of the contrastive loss
    noise: float = 0.25  # largest standard deviation of the noise on a concept (its own is 1)
    frequent: int = 5000  # pieces that are in every step's softmax
    drawn: int = 1500  # pieces that stand for all others in it
    average: float = 0.999  # what the averaged weights keep of themselves at each step
    fresh_layers: bool = False  # whether the decoder starts from nothing, whatever --init says

    def rate(self, step: int) -> float:
        """The learning rates' share of their peaks: up, constant, then linear to zero."""
        return min(1.0, (step + 1) / self.warmup, max(0.0, (self.steps - step) / self.decay))


class TokenLoss(torch.autograd.Function):
    """Mean cross-entropy of states [N, width] @ weight.T + shift against targets [N], keeping only bf16 probabilities.

    The fp32 log-softmax over the vocabulary would be a fifth of a step on a CPU. Rows go through it in chunks
    that a core's cache holds.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, shift: Tensor, targets: Tensor) -> Tensor:
        states, weight = states.bfloat16(), weight.bfloat16()
        probabilities = torch.addmm(shift.bfloat16(), states, weight.T)
        loss = states.new_zeros((), dtype=torch.float32)
        for logits, wanted in zip(probabilities.split(128), targets.split(128), strict=True):
            top = logits.amax(1, keepdim=True)
            chosen = logits.gather(1, wanted[:, None]).float()
            total = logits.sub_(top).exp_().sum(1, keepdim=True, dtype=torch.float32)
            logits.mul_(total.reciprocal().to(logits.dtype))
            loss += (total.log() + top.float() - chosen).sum()
        probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1
        ctx.save_for_backward(states, weight, probabilities)
        return loss / len(targets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, weight, difference = ctx.saved_tensors
        scale = (grads[0] / len(states)).to(states.dtype)
        return (difference @ weight) * scale, (difference.T @ states) * scale, None, None


class Shortlist:
    """The pieces that a step's softmax runs over, a quarter of the vocabulary: the frequent ones, those that the
    batch wants, and a draw of the others, each of which stands for many (sampled softmax; Jean et al. 2015,
    arXiv 1412.2007, section 3).
    """

    def __init__(self, counts: np.ndarray, frequent: int, drawn: int) -> None:
        self.frequent = torch.zeros(len(counts), dtype=torch.bool)
        self.frequent[torch.from_numpy(counts.argsort(kind="stable")[::-1][:frequent].copy())] = True
        self.drawn = drawn

    def draw(self, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pieces [K], what is added to the logit of each [K], and where among them the targets [N] stand [N]."""
        kept = self.frequent.clone()
        kept[targets] = True
        rest = (~kept).nonzero()[:, 0]
        some = rest[torch.randperm(len(rest), generator=generator)[: self.drawn]]
        pieces = torch.cat([kept.nonzero()[:, 0], some])
        shift = torch.zeros(len(pieces))
        shift[len(pieces) - len(some) :] = math.log(max(1, len(rest)) / max(1, len(some)))
        place = torch.zeros(len(kept), dtype=torch.long)
        place[pieces] = torch.arange(len(pieces))
        return pieces, shift, place[targets]


def padded(rows: list[list[int]], width: int) -> Tensor:
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


class SpaceModel(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TextEncoder(BUILTIN_ENCODER)
        self.decoder = TextDecoder(BUILTIN_DECODER)

    def losses(
        self, batch: list[Unit], shortlist: Shortlist, noise: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token cross-entropy (nats), alignment (mean squared difference between translations), and contrast (nats).

        Contrast is how hard it is to tell a sentence's translation from those of the batch's other sentences.
        """
        device = self.decoder.embed.weight.device
        sources = [ids for unit in batch for ids in unit.sources]
        said = [target for unit in batch for target in unit.targets]
        firsts = list(itertools.accumulate((len(unit.sources) for unit in batch), initial=0))
        rows = [first + t.source for first, unit in zip(firsts, batch, strict=False) for t in unit.targets]
        width = max(len(target.ids) for target in said)
        inputs = padded([target.ids for target in said], width).to(device)
        targets = padded([[*target.ids, EOS] for target in said], width + 1)
        real = targets != PAD
        # Drawn on the CPU, so that every device trains on the same draw.
        pieces, shift, wanted = shortlist.draw(targets[real], generator)
        scale = noise * torch.rand(len(said), 1, generator=generator)
        drift = scale * torch.randn(len(said), self.encoder.dims.concept, generator=generator)
        z = self.encoder(padded([[BOS, *ids, EOS] for ids in sources], max(map(len, sources)) + 2).to(device))
        noisy = (z[torch.tensor(rows, device=device)] + drift.to(device)).to(self.decoder.embed.weight.dtype)
        langs = torch.tensor([target.lang for target in said], device=device)
        states = self.decoder.states(inputs, self.decoder.condition(noisy), langs)[real.to(device)]
        weight = functional.embedding(pieces.to(device), self.decoder.embed.weight)
        tokens = TokenLoss.apply(states, weight, shift.to(device), wanted.to(device))
        pairs = [first for first, unit in zip(firsts, batch, strict=False) if len(unit.sources) == 2]
        if not pairs:
            return tokens, tokens.new_zeros(()), tokens.new_zeros(())
        a = torch.tensor(pairs, device=device)
        left, right = z[a].float(), z[a + 1].float()
        return tokens, (left - right).square().mean(), contrast(left, right)


def contrast(left: Tensor, right: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) of translations [N, D] and [N, D], both ways."""
    likeness = functional.normalize(left, dim=1) @ functional.normalize(right, dim=1).T / TEMPERATURE
    own = torch.arange(len(left), device=left.device)
    return (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2


def averaged_model(saved: dict[str, Any]) -> SpaceModel:
    """The averaged weights of a checkpoint, in fp32."""
    model = SpaceModel()
    for tower in ("encoder", "decoder"):
        module: nn.Module = getattr(model, tower)
        nn.utils.vector_to_parameters(saved[tower]["averaged"].cpu(), module.parameters())
    return model


def initialize(model: SpaceModel, init: Path, tokenizer: sentencepiece.SentencePieceProcessor, fresh: bool) -> None:
    """Start from a checkpoint (a safetensors file), from packed weights (a folder such as `assets`), or from
    multilingual-e5-small (a Hugging Face folder).

    Where the decoder gets nothing, it starts from small random weights, its embedding from the encoder's.
    Raises WeightsError where the shapes are another model's.
    """
    shipped = (init / "encoder.safetensors").exists()
    if shipped:
        state = {
            f"{tower}.{name}": t for tower in TOWERS for name, t in load_weights(init / f"{tower}.safetensors").items()
        }
    else:
        state = e5.encoder_state(init, tokenizer) if init.is_dir() else load_weights(init)
    if "encoder.positions.weight" in state:
        state["encoder.positions"] = state.pop("encoder.positions.weight")
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    if fresh or not any(name.startswith("decoder.") for name in state):
        state = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
        embedding = state.get("encoder.embed.weight", model.encoder.embed.weight.detach())
        state["decoder.embed.weight"] = embedding * (embedding.shape[1] ** -0.5 / embedding.std())
    own = model.state_dict()
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            raise WeightsError(f"{init.name} holds another model: {name} is {list(tensor.shape)}.")
    if (shipped or not init.is_dir()) and not fresh and (missing := own.keys() - state.keys()):
        raise WeightsError(f"{init.name} holds another model: {min(missing)} is missing.")
    model.load_state_dict(state, strict=False)


class Run:
    """One training run: its models, its place in the data, and its folder."""

    def __init__(self, folder: Path, init: Path, tokenizer: Path, out: Path, recipe: Recipe) -> None:
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if self.processes > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.recipe, self.out, self.tokenizer_file = recipe, out, tokenizer
        out.mkdir(parents=True, exist_ok=True)
        pieces = sentencepiece.SentencePieceProcessor(str(tokenizer))
        torch.manual_seed(recipe.seed)
        self.model = SpaceModel()
        self.batches = Batches(folder, pieces, recipe)
        self.shortlist = Shortlist(self.batches.counts(), recipe.frequent, recipe.drawn)
        self.checkpoint = out / "checkpoint.pt"
        if not self.checkpoint.exists():
            initialize(self.model, init, pieces, recipe.fresh_layers)
        self.model.to(self.device)
        self.model.encoder.requires_grad_(recipe.encoder_rate > 0)
        # The pieces keep the meanings that e5 learnt from far more text, so that rare words stay among their kin.
        self.model.encoder.embed.requires_grad_(False)
        self.parts = {
            "encoder": Weights(self.model.encoder, recipe.encoder_rate),
            "decoder": Weights(self.model.decoder, recipe.decoder_rate),
        }
        self.trained = [part for part in self.parts.values() if part.peak]
        self.optimizer = Optimizer(self.trained, self.rank, self.processes)
        self.step = self.seen = self.skipped = self.in_a_row = 0
        self.valid: list[Pair] = []
        if (folder / corpus.VALID).exists():
            data = (folder / corpus.VALID).read_bytes()
            self.valid = thin(read_pairs(data, corpus.VALID, BuiltinSpace.languages), 8)
        if self.checkpoint.exists():
            self.resume()
        self.say(str(self.batches))

    def resume(self) -> None:
        try:
            saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:  # reading damaged bytes can fail in any way
            raise WeightsError(f"The checkpoint in {self.out} is damaged; delete it and start again.") from error
        try:
            for name, part in self.parts.items():
                part.restore(saved[name])
            self.optimizer.restore(saved["optimizer"])
        except (ValueError, KeyError) as error:
            raise WeightsError(f"The checkpoint in {self.out} is of another run; choose another folder.") from error
        self.step, self.seen, self.skipped = saved["step"], saved["seen"], saved["skipped"]
        self.say(f"resumed at step {self.step}")

    def state(self) -> dict[str, Any]:
        return {
            **{name: part.state() for name, part in self.parts.items()},
            "optimizer": self.optimizer.state(),
            "step": self.step,
            "seen": self.seen,
            "skipped": self.skipped,
        }

    def save(self) -> None:
        if self.rank == 0:
            torch.save(self.state(), self.checkpoint.with_suffix(".new"))
            self.checkpoint.with_suffix(".new").replace(self.checkpoint)  # a kill while saving leaves the last whole

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def note(self, record: dict[str, Any]) -> None:
        """Print a record, and add it to log.jsonl."""
        if self.rank == 0:
            self.say(json.dumps(record))
            with (self.out / "log.jsonl").open("a") as log:
                print(json.dumps(record), file=log)

    def train_on(self, batch: list[Unit]) -> tuple[float, float, float]:
        """One step on one batch for each process; the losses, nan where the step was skipped."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.seen + self.rank)
        tokens, align, against = self.model.losses(batch, self.shortlist, recipe.noise, generator)
        (tokens + recipe.align * align + recipe.contrast * against).backward()
        norm = torch.stack([part.take_gradient(self.processes) for part in self.trained]).norm()
        if torch.isfinite(norm):
            for part in self.trained:
                part.slope.mul_((1 / norm.clamp_min(1.0)).item())  # gradients are clipped to norm 1
            self.optimizer.step(recipe.rate(self.step))
            keep = min(recipe.average, (1 + self.step) / (10 + self.step))
            for part in self.trained:
                part.updated(keep)
            self.in_a_row = 0
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        self.step += 1
        self.seen += self.processes
        return tokens.item(), align.item(), against.item()

    def validate(self) -> None:
        """Note the averaged weights' scores on a few held-out pairs."""
        if self.rank == 0 and self.valid:
            model = averaged_model({name: part.state() for name, part in self.parts.items()})
            space = BuiltinSpace(model.encoder, model.decoder, self.tokenizer_file, "in training")
            report = evaluate_space(space, self.valid, gradients=12)
            scores = {
                name: value["bleu"] if isinstance(value, dict) else value for name, value in report["summary"].items()
            }
            self.note({"step": self.step, "valid": scores | {"nearer": report["walk"]["equal_steps"]["nearer"]}})

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes so: all of them must stop and save at the same step."""
        if self.processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def go(self, minutes: float) -> None:
        """Train to the last step, with a checkpoint and a validation every so many minutes and at the end.

        Ctrl-C or SIGTERM end the run after the step at hand, with a checkpoint. Raises TrainingError when the loss
        stays not finite.
        """
        with interruptible() as asked:
            self.steps(minutes, asked)
        self.save()
        self.validate()

    def steps(self, minutes: float, asked: Event) -> None:
        saved_at = began = time.monotonic()
        losses: list[tuple[float, float, float]] = []
        # Each process takes its turn at the stream.
        for batch in itertools.islice(self.batches.stream(self.seen + self.rank), 0, None, self.processes):
            if self.step >= self.recipe.steps or self.agreed(asked.is_set()):
                return
            losses.append(self.train_on(batch))
            if self.in_a_row == NAN_STEPS:
                raise TrainingError(
                    f"The loss was not finite {NAN_STEPS} times in a row, at step {self.step}; lower the rates."
                )
            if len(losses) == 50:
                means = torch.tensor(losses).nanmean(0).tolist()
                seconds = (time.monotonic() - began) / len(losses)
                record = dict(zip(("tokens", "align", "contrast"), (round(loss, 4) for loss in means), strict=True))
                self.note({"step": self.step, **record, "seconds": round(seconds, 3), "skipped": self.skipped})
                losses, began = [], time.monotonic()
            if self.agreed(self.rank == 0 and time.monotonic() - saved_at > minutes * 60):
                self.save()
                self.validate()
                saved_at = time.monotonic()


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


def package(out: Path, tokenizer: Path, assets: Path, folder: Path | None = None) -> None:
    """Write the averaged weights of a run, matrices as int8, and the tokenizer into `assets`.

    With a corpus, both are scored on its held-out pairs, and the scores are written into the file. Raises
    TrainingError where int8 loses more than LOSS.
    """
    try:
        saved = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no checkpoint in {out}; train first.") from error
    model = averaged_model(saved)
    metadata = {"steps": str(saved["step"]), "languages": " ".join(corpus.LANGUAGES)}
    if folder:
        pairs = thin(read_pairs((folder / corpus.VALID).read_bytes(), corpus.VALID, BuiltinSpace.languages), 20)
        with tempfile.TemporaryDirectory() as name:
            shutil.copyfile(tokenizer, Path(name, "tokenizer.model"))
            pack(model, Path(name), metadata)
            packed = BuiltinSpace.load(Path(name))
        exact = BuiltinSpace(model.encoder, model.decoder, tokenizer, "exact")
        scores = {kind: bleu(space, pairs) for kind, space in (("fp32", exact), ("int8", packed))}
        lost = mean(scores["fp32"].values()) - mean(scores["int8"].values())
        if lost > LOSS:
            raise TrainingError(f"Packed as int8 the space loses {lost:.2f} BLEU; nothing was written.")
        metadata["bleu"] = json.dumps(scores)
        print(json.dumps(scores))
    pack(model, assets, metadata)
    if tokenizer.resolve() != (assets / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer, assets / "tokenizer.model")


def pack(model: SpaceModel, folder: Path, metadata: dict[str, str]) -> None:
    """Write both towers. An encoder that has not changed keeps its file, and so what was encoded stays valid."""
    path = folder / "encoder.safetensors"
    own = model.encoder.state_dict()
    there = load_weights(path) if path.exists() else {}
    if own.keys() != there.keys() or not all(torch.allclose(own[name], there[name], rtol=1e-5) for name in own):
        save_weights(path, own, {"languages": metadata["languages"]})
    save_weights(folder / "decoder.safetensors", model.decoder.state_dict(), metadata | {"encoder": fingerprint(path)})


def bleu(space: BuiltinSpace, pairs: list[Pair]) -> dict[str, float]:
    """The mean BLEU of each group of directions that the pairs have."""
    summary = evaluate_space(space, pairs, gradients=0)["summary"]
    return {name: own["bleu"] for name, own in summary.items() if isinstance(own, dict) and own["bleu"] is not None}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.space", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="folder with pairs, sentences and documents")
    parser.add_argument(
        "--init",
        type=Path,
        help="a checkpoint (safetensors), or a folder: packed weights such as assets, or multilingual-e5-small",
    )
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model (default: made from --init's, in --out)")
    parser.add_argument("--out", type=Path, default=Path("runs/space"), help="where checkpoints go")
    parser.add_argument("--minutes", type=float, default=10, help="between checkpoints")
    parser.add_argument("--package", type=Path, metavar="ASSETS", help="only write the weights of --out there")
    for field in dataclasses.fields(Recipe):
        kind = type(field.default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=f"{field.default}"
        )
    options = vars(parser.parse_args(arguments))
    recipe = Recipe(**{field.name: options[field.name] for field in dataclasses.fields(Recipe)})
    out, tokenizer = options["out"], options["tokenizer"]
    try:
        if tokenizer is None:
            tokenizer = out / "tokenizer.model"
        if options["package"]:
            package(out, tokenizer, options["package"], options["corpus"])
            return 0
        for name in ("corpus", "init"):
            if options[name] is None:
                parser.error(f"--{name} is needed to train")
        if not tokenizer.exists():
            out.mkdir(parents=True, exist_ok=True)
            tokenizer.write_bytes(e5.pruned_tokenizer(options["init"], options["corpus"], BUILTIN_ENCODER.vocabulary))
        Run(options["corpus"], options["init"], tokenizer, out, recipe).go(options["minutes"])
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
