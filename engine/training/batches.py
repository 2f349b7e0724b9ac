"""The corpus as an endless stream of batches for the concept space: the same stream for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from ..spaces.builtin import UNK
from . import corpus

CODES = {lang: i for i, lang in enumerate(corpus.LANGUAGES)}
ALL = range(len(CODES))
WINDOW = 100  # batches that are made together, so that sentences of like length share one


@dataclass(frozen=True)
class Mixture:
    """What the batches are made of."""

    tokens: int = 3600  # padded source and target tokens in a batch
    pair_share: float = 0.5  # of the batches' units; the others are single sentences
    story_share: float = 0.35  # of the single sentences
    english_stories: float = 0.8  # of the story sentences
    join: float = 0.15  # how often two sentences are joined to a long one
    corrupt: float = 0.15  # how often a single sentence is corrupted before it is encoded
    translate: float = 0.5  # how often a side of a pair is decoded into the other's language, too; English always is
    longest: int = 64  # tokens, with begin and end
    seed: int = 0


class Texts:
    """Token ids of many sentences in one flat array, with their languages."""

    def __init__(self, tokenizer: sentencepiece.SentencePieceProcessor, texts: list[str], langs: list[str]) -> None:
        ids = tokenizer.encode(texts)
        self.starts = np.cumsum([0] + [len(i) for i in ids])
        self.flat = np.fromiter((t for i in ids for t in i), np.uint16, self.starts[-1])
        self.langs = np.array([CODES[lang] for lang in langs], np.uint8)

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> list[int]:
        return self.flat[self.starts[index] : self.starts[index + 1]].tolist()


@dataclass(frozen=True)
class Target:
    """What a concept is decoded to."""

    source: int  # which of the unit's sources
    ids: list[int]
    lang: int


@dataclass(frozen=True)
class Unit:
    """What is encoded together: one sentence, or the two sides of a pair; and what their concepts are decoded to."""

    sources: tuple[list[int], ...]
    targets: tuple[Target, ...]

    @property
    def longest(self) -> int:
        return max(map(len, (*self.sources, *(target.ids for target in self.targets))))

    @property
    def cost(self) -> int:
        """Tokens, with begin and end of each source and the language in front of each target."""
        return sum(len(ids) + 2 for ids in self.sources) + sum(len(target.ids) + 1 for target in self.targets)


class Batches:
    """Reads the corpus and makes batches of it."""

    def __init__(
        self, folder: Path, tokenizer: sentencepiece.SentencePieceProcessor, mixture: Mixture = Mixture()
    ) -> None:
        self.mixture, self.vocabulary = mixture, tokenizer.vocab_size()
        pairs = list(corpus.distinct_pairs(folder))
        self.left = Texts(tokenizer, [p[2] for p in pairs], [p[0] for p in pairs])
        self.right = Texts(tokenizer, [p[3] for p in pairs], [p[1] for p in pairs])
        singles = list(corpus.distinct_sentences(folder))
        self.singles = Texts(tokenizer, [text for _, text in singles], [lang for lang, _ in singles])
        told = [
            (story.lang, sentence)
            for story in corpus.stories(folder)
            if story.split == "train"
            for sentence in story.sentences
            if 4 <= len(sentence) <= 400
        ]
        self.told = Texts(tokenizer, [text for _, text in told], [lang for lang, _ in told])
        kinds = self.left.langs.astype(int) * len(CODES) + self.right.langs
        self.pair_pools = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        self.pair_weights = [self.weight(pool) for pool in self.pair_pools]
        self.single_pools = pools(self.singles.langs)
        self.side_pools = pools(np.concatenate([self.left.langs, self.right.langs]))
        self.told_pools = pools(self.told.langs)

    def __str__(self) -> str:
        return f"{len(self.left)} pairs, {len(self.singles)} sentences, {len(self.told)} story sentences"

    def weight(self, pool: np.ndarray) -> float:
        """How often a pair of languages is drawn: small ones more than they are large, those with English twice."""
        english = CODES["eng"] in (self.left.langs[pool[0]], self.right.langs[pool[0]])
        return len(pool) ** 0.3 * (2 if english else 1)

    def counts(self) -> np.ndarray:
        """How often each piece stands in the text, [vocabulary]."""
        flat = np.concatenate([texts.flat for texts in (self.left, self.right, self.singles, self.told)])
        return np.bincount(flat, minlength=self.vocabulary)

    def pair(self, rng: random.Random) -> Unit:
        """Each side of a pair, decoded into its own language and, often, the other's: what is encoded serves twice."""
        pool = rng.choices(self.pair_pools, self.pair_weights)[0]
        i = int(rng.choice(pool))
        a, b = self.left[i], self.right[i]
        if rng.random() < self.mixture.join:
            j = int(rng.choice(pool))
            a, b = a + self.left[j], b + self.right[j]
        la, lb = int(self.left.langs[i]), int(self.right.langs[i])
        targets = [Target(0, a, la), Target(1, b, lb)]
        for lang, said in ((la, Target(0, b, lb)), (lb, Target(1, a, la))):
            if lang == CODES["eng"] or rng.random() < self.mixture.translate:
                targets.append(said)
        return Unit((a, b), tuple(targets))

    def single(self, rng: random.Random) -> Unit:
        if rng.random() < self.mixture.story_share:
            english = rng.random() < self.mixture.english_stories
            texts, i = self.told, pick(self.told_pools, rng, range(1) if english else ALL[1:])
        elif rng.random() < 0.5:  # sides of pairs are good single sentences, and the most there are of some languages
            i = pick(self.side_pools, rng)
            texts, i = (self.left, i) if i < len(self.left) else (self.right, i - len(self.left))
        else:
            texts, i = self.singles, pick(self.single_pools, rng)
        target, lang = texts[i], int(texts.langs[i])
        # In a story the next sentence is what follows; elsewhere it is any other.
        if rng.random() < self.mixture.join and i + 1 < len(texts) and texts.langs[i + 1] == lang:
            target = target + texts[i + 1]
        source = corrupted(target, rng) if rng.random() < self.mixture.corrupt else target
        return Unit((source,), (Target(0, target, lang),))

    def units(self, rng: random.Random, tokens: int) -> list[Unit]:
        """Random units of about so many tokens in all."""
        found: list[Unit] = []
        while tokens > 0:
            unit = self.pair(rng) if rng.random() < self.mixture.pair_share else self.single(rng)
            if unit.longest + 2 <= self.mixture.longest:
                found.append(unit)
                tokens -= unit.cost
        return found

    def stream(self, start: int = 0) -> Iterator[list[Unit]]:
        """Batches from number `start` on. Units of like length share a batch, so that little is padding."""
        window, skip = divmod(start, WINDOW)
        while True:
            rng = random.Random(f"{self.mixture.seed}/{window}")
            units = self.units(rng, WINDOW * self.mixture.tokens)
            units.sort(key=lambda unit: unit.longest)
            costs = np.cumsum([unit.cost for unit in units])
            ends = np.searchsorted(costs, costs[-1] * np.arange(1, WINDOW) / WINDOW).tolist()
            made = [units[a:b] for a, b in zip([0, *ends], [*ends, len(units)], strict=True)]
            rng.shuffle(made)
            yield from made[skip:]
            window, skip = window + 1, 0


def pools(langs: np.ndarray) -> list[np.ndarray]:
    """For each language, the rows that are in it."""
    return [np.flatnonzero(langs == code) for code in CODES.values()]


def pick(pools: list[np.ndarray], rng: random.Random, among: range = ALL) -> int:
    """A row of any language among those, each language alike; one without text gives way to the others."""
    full = [lang for lang in among if len(pools[lang])] or [lang for lang, pool in enumerate(pools) if len(pool)]
    return int(rng.choice(pools[rng.choice(full)]))


def corrupted(ids: list[int], rng: random.Random) -> list[int]:
    """Drop, blank and locally shuffle tokens (denoising autoencoding)."""
    kept = [UNK if rng.random() < 0.05 else t for t in ids if rng.random() > 0.08]
    order = sorted(range(len(kept)), key=lambda j: j + rng.uniform(0, 2.0))
    return [kept[j] for j in order] or ids
