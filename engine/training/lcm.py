"""Train a concept model on the documents of the corpus: `python -m engine.training.lcm --help`.

The recipe of Base-LCM (Large Concept Models, arXiv 2412.08821): every document becomes its concepts, followed by the
concept of "End of text." (section 2.3.1); the model predicts each from those before it, and is trained by the mean
squared error (the loss of section 2.3.1). Two stages, both of which go on where they were stopped:

1. encode: documents to concepts, in the run's folder, `encode_minutes` at most; what is encoded by then is trained on.
2. train: `minutes` by the clock or a number of steps, then calibrate the end of documents and write the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..lcm.base import END_SENTENCE, TINY, BaseLCM, save
from ..lcm.blocks import Dimensions
from ..segmentation import split_long
from ..spaces.builtin import ASSETS, BOS, EOS, BuiltinSpace
from ..spaces.transformer import PAD
from ..text import has_words
from . import corpus

CODES = {
    "eng": "eng_Latn",
    "deu": "deu_Latn",
    "fra": "fra_Latn",
    "spa": "spa_Latn",
    "ita": "ita_Latn",
    "por": "por_Latn",
}


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    minutes: float = 14.0  # of training; the learning rate follows the clock
    steps: int = 0  # if not 0, train so many steps instead, and the learning rate follows them
    encode_minutes: float = 12.0
    batch: int = 1024  # concepts in a batch, about
    rate: float = 1e-3
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    noise: float = 0.1  # standard deviation of the noise on what the model reads (a concept's own is 1)
    average: float = 0.995  # decay of the averaged weights, which are the ones that ship
    seed: int = 0


# ---- documents to concepts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A document before it is encoded."""

    lang: str
    valid: bool
    whole: bool  # its end is in the corpus, and not cut off
    sentences: tuple[str, ...]


class Encoder(Protocol):
    """What encoding needs of a space."""

    name: str
    fingerprint: str

    def fits(self, sentence: str) -> bool: ...
    def encode(self, sentences: Sequence[str]) -> np.ndarray: ...


class FastEncoder:
    """The built-in space's encoder in bfloat16, with large batches: twice as fast, cosine 0.99995 to the exact one."""

    def __init__(self, space: BuiltinSpace, tokens: int = 2048) -> None:
        self.space, self.tokens = space, tokens
        self.name, self.fingerprint = space.name, space.fingerprint
        self.model = copy.deepcopy(space.encoder).bfloat16()

    def fits(self, sentence: str) -> bool:
        return len(sentence) <= self.space.max_tokens // 2 or self.space.count_tokens(sentence) <= self.space.max_tokens

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Concepts [N, D] of sentences; batches hold like lengths and about `tokens` tokens."""
        rows = [[BOS, *self.space.tokens(s), EOS] for s in sentences]
        result = np.zeros((len(rows), self.space.dim), np.float32)
        batch: list[int] = []
        for index in [*sorted(range(len(rows)), key=lambda i: len(rows[i])), -1]:
            if batch and (index < 0 or (len(batch) + 1) * len(rows[index]) > self.tokens):
                width = -(-max(len(rows[i]) for i in batch) // 4) * 4
                ids = torch.tensor([rows[i] + [PAD] * (width - len(rows[i])) for i in batch])
                result[batch] = self.model(ids).float().numpy()
                batch = []
            batch.append(index)
        return result


def texts(folder: Path, encoder: Encoder, seed: int, limit: int = 0) -> list[Text]:
    """The corpus's documents: validation first, then the five smaller languages, then English in a seeded order."""
    stories = corpus.stories(folder)
    records = corpus.lines(folder / "documents.jsonl.gz")
    found = []
    for story, (_, record) in zip(stories, records, strict=True):
        parts = [p.strip() for s in story.sentences for p in split_long(s, encoder.fits)]
        kept = tuple(p for p in parts if has_words(p))
        if len(kept) >= 2:
            whole = not json.loads(record).get("truncated", False)
            found.append(Text(story.lang, story.split == "valid", whole, kept))
    random.Random(seed).shuffle(found)
    found.sort(key=lambda t: (not t.valid, t.lang == "eng"))
    return found[:limit] if limit else found


@dataclass(frozen=True)
class Documents:
    """Encoded documents: rows `starts[i]` to `starts[i + 1]` of `concepts` [total, D] are document i."""

    concepts: np.ndarray  # float16, usually on disk
    starts: np.ndarray
    valid: np.ndarray  # bool [documents]
    whole: np.ndarray  # bool [documents]
    langs: tuple[str, ...]
    end: np.ndarray  # float32 [D], the end-of-document concept

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> np.ndarray:
        """Document `index` with its end, float32 [T, D]."""
        body = np.asarray(self.concepts[self.starts[index] : self.starts[index + 1]], np.float32)
        return np.concatenate([body, self.end[None]]) if self.whole[index] else body

    def length(self, index: int) -> int:
        return int(self.starts[index + 1] - self.starts[index]) + int(self.whole[index])


def encode(found: Sequence[Text], encoder: Encoder, out: Path, minutes: float, chunk: int = 8192) -> Documents:
    """Encode documents into a memory-mapped float16 file in `out`, at most `minutes` long in all its runs together.

    A second call goes on after the last chunk that was written; another space or other documents start anew.
    """
    out.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0] + [len(t.sentences) for t in found])
    end = encoder.encode([END_SENTENCE])[0]
    path, state_path = out / "concepts.f16", out / "encoded.json"
    wanted = {"space": encoder.fingerprint, "documents": len(found), "sentences": int(starts[-1])}
    state: dict[str, Any] = {**wanted, "done": 0, "seconds": 0.0}
    fresh = True
    if state_path.exists() and path.exists():
        stored = json.loads(state_path.read_text())
        if wanted == {name: stored.get(name) for name in wanted}:
            state, fresh = stored, False
    shape = (int(starts[-1]), len(end))
    concepts = np.memmap(path, np.float16, "w+" if fresh else "r+", shape=shape)
    while state["done"] < len(found) and state["seconds"] < minutes * 60:
        began = time.monotonic()
        first = state["done"]
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + chunk, "right")) - 1)
        sentences = [s for t in found[first:last] for s in t.sentences]
        concepts[starts[first] : starts[last]] = encoder.encode(sentences)
        concepts.flush()
        state["done"], state["seconds"] = last, state["seconds"] + time.monotonic() - began
        replace_text(state_path, json.dumps(state))
        rate = starts[last] / state["seconds"]
        print(f"encoded {last} of {len(found)} documents, {starts[last]} sentences, {rate:.0f} a second", flush=True)
    kept = found[: state["done"]]
    return Documents(
        concepts,
        starts[: len(kept) + 1],
        np.array([t.valid for t in kept], bool),
        np.array([t.whole for t in kept], bool),
        tuple(t.lang for t in kept),
        end,
    )


def replace_text(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


# ---- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Windows of documents: `inputs` [N, T, D] predict `targets` [N, T, D] where `real` [N, T]."""

    inputs: Tensor
    targets: Tensor
    real: Tensor
    starts: Tensor  # bool [N]: position 0 is the beginning of the document


def collate(windows: Sequence[tuple[np.ndarray, bool]]) -> Batch:
    """A batch of (concepts [T, D], whether they begin a document)."""
    length = max(len(w) - 1 + begins for w, begins in windows)
    n, d = len(windows), windows[0][0].shape[1]
    inputs, targets = torch.zeros(n, length, d), torch.zeros(n, length, d)
    real = torch.zeros(n, length, dtype=torch.bool)
    for i, (window, begins) in enumerate(windows):
        concepts = torch.from_numpy(window)
        t = len(window) - 1 + begins
        inputs[i, int(begins) : t] = concepts[:-1]
        targets[i, :t] = concepts if begins else concepts[1:]
        real[i, :t] = True
    return Batch(inputs, targets, real, torch.tensor([begins for _, begins in windows]))


def batches(
    documents: Documents, indices: np.ndarray, context: int, size: int, seed: int, start: int
) -> Iterator[Batch]:
    """Endless batches of about `size` concepts, from batch `start` on; the same for the same seed.

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
                yield collate([window(documents[int(indices[i])], context, draw) for i in group])
            count += 1


def window(document: np.ndarray, context: int, rng: random.Random) -> tuple[np.ndarray, bool]:
    """A document that fits the context, with its beginning; or else a random part of it."""
    if len(document) <= context:
        return document, True
    at = rng.randrange(-1, len(document) - context)
    return (document[:context], True) if at < 0 else (document[at : at + context + 1], False)


# ---- scores ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predictions(model: BaseLCM, documents: Documents, indices: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction [T, D], truth [T, D]) of each document's first `context` concepts, one after the other."""
    result = []
    for start in range(0, len(indices), 32):
        group = [documents[int(i)][: model.dims.context] for i in indices[start : start + 32]]
        batch = collate([(document, True) for document in group])
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(batch.inputs, batch.starts)
        result += [(predicted[i, : len(d)].float().numpy(), d) for i, d in enumerate(group)]
    return result


def contrast(guesses: np.ndarray, truths: np.ndarray, owner: np.ndarray) -> float:
    """How often a guess [N, D] is nearer to its truth than to a truth of each other document, on average.

    `owner` [N] is each row's document; 0.5 is chance.
    """
    distance = (truths**2).sum(1)[None] - 2 * guesses @ truths.T  # and |guess| squared, the same along each row
    other = owner[:, None] != owner[None]
    own = np.diag(distance)[:, None]
    return float(((own < distance) & other).sum() / other.sum())


def scores(model: BaseLCM, documents: Documents, indices: np.ndarray, most: int = 4000) -> dict[str, float]:
    """Mean squared error and contrastive accuracy of next concepts, next to the baselines that any model must beat.

    The first concept of a document and its end are left out: the baselines have nothing to say about them.
    """
    guesses, truths, previous, owner = [], [], [], []
    for i, (guess, truth) in zip(indices, predictions(model, documents, indices), strict=True):
        last = len(truth) - int(documents.whole[i] and len(truth) == documents.length(int(i)))
        guesses.append(guess[1:last])
        truths.append(truth[1:last])
        previous.append(truth[: last - 1])
        owner.append(np.full(last - 1, i))
    guess, truth, before, own = (np.concatenate(x)[:most] for x in (guesses, truths, previous, owner))
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    found: dict[str, float] = {}
    for name, values in (("model", guess), ("repeat", before), ("mean", mean)):
        found[f"mse {name}"] = round(float(((values - truth) ** 2).mean()), 4)
        found[f"contrast {name}"] = round(contrast(values, truth, own), 4)
    return found


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The share of pairs in which the positive value is the larger one."""
    ordered = np.sort(negative)
    return float(np.searchsorted(ordered, positive).mean() / len(ordered))


def calibrate(model: BaseLCM, documents: Documents, indices: np.ndarray) -> dict[str, float]:
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
        near = model.nearness(guesses).double()
        # Newton's method: two unknowns, a convex loss.
        features = torch.stack([near, torch.ones_like(near)], 1)
        fit = torch.zeros(2, dtype=torch.float64)
        for _ in range(30):
            p = torch.sigmoid(features @ fit)
            gradient = features.T @ (p - ends.double()) + 1e-3 * fit
            hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * torch.eye(2, dtype=torch.float64)
            fit -= torch.linalg.solve(hessian, gradient)
        model.end_fit.copy_(fit)
        p = model.ending(guesses)
        best, threshold = 0.0, 0.5
        for candidate in np.linspace(0.05, 0.95, 91):
            said = p >= candidate
            f1 = 2 * float((said & ends).sum()) / max(float(said.sum() + ends.sum()), 1.0)
            if f1 > best:
                best, threshold = f1, float(candidate)
        model.end_threshold.fill_(threshold)
        missed = (truths - guesses)[~ends]
        covariance = missed.T @ missed / len(missed)
        # int8 storage and a lower-triangular factor get along: its rows have like lengths.
        model.spread.copy_(torch.linalg.cholesky(covariance + 1e-4 * torch.eye(len(covariance))))
        model.norm.fill_(float(truths[~ends].norm(dim=1).mean()))
    return {
        "end auc": round(auc(near[ends].numpy(), near[~ends].numpy()), 4),
        "end f1": round(best, 4),
        "end threshold": round(threshold, 3),
    }


# ---- training -------------------------------------------------------------------------------------------------------


def rate(step: int, share: float, recipe: Recipe) -> float:
    """The learning rate's share of its peak: warm-up, then a cosine to a fiftieth; `share` of the run is done."""
    return min(1.0, (step + 1) / recipe.warmup) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(share, 1.0))) / 2)


def train(
    documents: Documents, dims: Dimensions, recipe: Recipe, out: Path, save_minutes: float = 10
) -> tuple[BaseLCM, dict]:
    """Train on encoded documents; checkpoints go to `out`, and a run that finds one there goes on from it.

    Returns the averaged model and facts about the run. Raises TrainingError where the loss is not finite ten times
    in a row, or where there is too little to train on.
    """
    learn, check = np.flatnonzero(~documents.valid), np.flatnonzero(documents.valid)
    if not len(learn) or not len(check):
        raise TrainingError("There must be training and validation documents; encode more of the corpus.")
    torch.manual_seed(recipe.seed)
    model = BaseLCM(dims)
    # English is most of the corpus; a sample of all rows is what the normalizer is fitted on.
    rng = np.random.default_rng(recipe.seed)
    total = int(documents.starts[-1])
    rows = np.sort(rng.choice(total, min(total, 50_000), replace=False))
    model.normalizer.fit(np.asarray(documents.concepts[rows], np.float32))
    model.end.copy_(torch.from_numpy(documents.end))
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
    step, seconds, skipped, in_a_row = 0, 0.0, 0, 0
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(stored["model"])
        averaged.load_state_dict(stored["averaged"])
        optimizer.load_state_dict(stored["optimizer"])
        step, seconds, skipped = stored["step"], stored["seconds"], stored["skipped"]
        print(f"resumed at step {step}", flush=True)

    def keep() -> None:
        models = {"model": model.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
        state = {**models, "step": step, "seconds": seconds, "skipped": skipped}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)  # a kill while saving leaves the last one whole

    log = (out / "log.jsonl").open("a")
    losses: list[float] = []
    saved_at = clock = time.monotonic()
    for batch in batches(documents, learn, dims.context, recipe.batch, recipe.seed, step):
        share = step / recipe.steps if recipe.steps else seconds / (recipe.minutes * 60)
        if share >= 1:
            break
        now = recipe.rate * rate(step, share, recipe)
        for group in optimizer.param_groups:
            group["lr"] = now
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout and noise are the same in a resumed run
        model.train()
        noisy = batch.inputs + recipe.noise * torch.randn_like(batch.inputs)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noisy, batch.starts)
        loss = (predicted - batch.targets)[batch.real].square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(loss) and torch.isfinite(norm):
            optimizer.step()
            in_a_row = 0
            decay = min(recipe.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
            losses.append(float(loss.detach()))
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            if in_a_row == 10:
                raise TrainingError(f"The loss was not finite ten times in a row, at step {step}; lower the rate.")
        step += 1
        seconds, clock = seconds + time.monotonic() - clock, time.monotonic()
        if step % 250 == 0:
            record: dict[str, Any] = {"step": step, "loss": round(float(np.mean(losses)), 4), "seconds": round(seconds)}
            record |= {"skipped": skipped} | scores(averaged, documents, check[:150])
            losses = []
            print(json.dumps(record), file=log, flush=True)
            print(json.dumps(record), flush=True)
        if time.monotonic() - saved_at > save_minutes * 60:
            keep()
            saved_at = time.monotonic()
    keep()
    facts = {
        "documents": len(learn),
        "concepts": sum(documents.length(int(i)) for i in learn),
        "recipe": asdict(recipe),
        "steps": step,
        "seconds": round(seconds),
        "skipped": skipped,
        "scores": scores(averaged, documents, check),
    }
    return averaged, facts


def free_running(
    model: BaseLCM, documents: Documents, indices: np.ndarray, temperature: float = 0.0
) -> dict[str, float]:
    """Let the model go on from each document's first three concepts, to twice its length; how do documents end?"""
    from ..lcm.generator import Stop, generate

    ended, ratios = 0, []
    for i in indices:
        told = documents[int(i)][: documents.length(int(i)) - 1]
        if not documents.whole[i] or not 6 <= len(told) <= model.dims.context // 2:
            continue
        most = 2 * len(told) - 3
        made = generate(model, told[:3], most, seed=int(i), temperature=temperature, stop=Stop(repetition=2.0))
        ended += len(made) < most
        ratios.append((3 + len(made)) / len(told))
    if not ratios:
        return {}
    return {"ended by itself": round(ended / len(ratios), 3), "length ratio": round(float(np.mean(ratios)), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.lcm", description=__doc__)
    parser.add_argument("--model", choices=["base"], default="base")
    parser.add_argument("--corpus", type=Path, required=True, help="folder with documents.jsonl.gz")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights and tokenizer")
    parser.add_argument("--out", type=Path, default=Path("runs/lcm"), help="where concepts and checkpoints go")
    parser.add_argument("--weights", type=Path, default=ASSETS / "lcm-base.safetensors", help="the file to write")
    parser.add_argument("--minutes", type=float, default=Recipe.minutes, help="of training, without encoding")
    parser.add_argument("--steps", type=int, default=0, help="train so many steps instead")
    parser.add_argument("--encode-minutes", type=float, default=Recipe.encode_minutes)
    parser.add_argument("--documents", type=int, default=0, help="use only the first so many documents (0: all)")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    parser.add_argument("--noise", type=float, default=Recipe.noise)
    parser.add_argument("--weight-decay", type=float, default=Recipe.weight_decay)
    parser.add_argument("--dropout", type=float, default=TINY.dropout)
    parser.add_argument("--width", type=int, default=TINY.width)
    parser.add_argument("--layers", type=int, default=TINY.layers)
    parser.add_argument("--hidden", type=int, default=TINY.hidden)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    recipe = Recipe(
        minutes=args.minutes,
        steps=args.steps,
        encode_minutes=args.encode_minutes,
        batch=args.batch,
        rate=args.rate,
        noise=args.noise,
        weight_decay=args.weight_decay,
        seed=args.seed,
    )
    encoder = FastEncoder(BuiltinSpace.load(args.space))
    found = texts(args.corpus, encoder, recipe.seed, args.documents)
    documents = encode(found, encoder, args.out, recipe.encode_minutes)
    dims = replace(TINY, width=args.width, layers=args.layers, hidden=args.hidden, dropout=args.dropout)
    model, facts = train(documents, dims, recipe, args.out)
    check = np.flatnonzero(documents.valid)
    facts["ends"] = calibrate(model, documents, check) | free_running(model, documents, check[:200])
    save(args.weights, model, encoder.name, encoder.fingerprint, facts)
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
