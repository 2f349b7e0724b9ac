"""The corpus as an endless stream of batches for the concept space: the same stream for the same seed.

A window of batches is drawn, corrupted and cut as whole arrays: a GPU reads a million tokens a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import TrainingError
from ..spaces.builtin import BOS, EOS, UNK
from ..spaces.transformer import PAD
from .tokens import CODES, LONGEST, Texts, Tokens, joined

ENGLISH = CODES["eng"]
WINDOW = 32  # batches that are made together, so that sentences of like length share one


@dataclass(frozen=True)
class Mixture:
    """What the batches are made of."""

    batch: int = 3600  # padded source and target tokens in a batch
    pair_share: float = 0.45  # of what is drawn; the others are single sentences
    story_share: float = 0.25  # of the single sentences
    literature_share: float = 0.4  # of the single sentences
    english_stories: float = 0.7  # of the story sentences
    join: float = 0.2  # how often a sentence is joined with the next one to a long one
    corrupt: float = 0.15  # how often a single sentence is corrupted before it is encoded
    translate: float = 0.5  # how often a side of a pair is decoded into the other's language, too; English always is
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Sentences to encode, and what their concepts are decoded to; int64 arrays."""

    sources: np.ndarray  # [S, T] token ids with begin and end, padded
    inputs: np.ndarray  # [N, U] token ids that the decoder reads, padded
    wanted: np.ndarray  # [M] the tokens that it must say, ends included
    places: np.ndarray  # [M] where in [N, U + 1], flattened, it must say them
    rows: np.ndarray  # [N] which source each target is decoded from
    langs: np.ndarray  # [N] its language
    pairs: np.ndarray  # [P] sources whose translation is the source after them

    @property
    def cost(self) -> int:
        """Tokens, padding included."""
        return self.sources.size + self.inputs.size + len(self.inputs)


class Pool:
    """Rows of some texts, grouped; a group is drawn by its weight first, then one of its rows."""

    def __init__(self, texts: Texts, groups: list[np.ndarray], weights: np.ndarray) -> None:
        self.texts, self.shares = texts, weights / weights.sum()
        self.rows, self.sizes = np.concatenate(groups), np.array([len(group) for group in groups])
        self.starts = np.cumsum(self.sizes) - self.sizes

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        which = rng.choice(len(self.sizes), count, p=self.shares)
        return self.rows[self.starts[which] + (rng.random(count) * self.sizes[which]).astype(np.int64)]


def pool(texts: Texts, rows: np.ndarray, english: float | None = None) -> Pool | None:
    """The rows of `texts` by language, each language alike or English with a share of its own; None without rows."""
    langs = texts.langs[rows]
    groups = [rows[langs == code] for code in np.unique(langs)]
    weights = np.ones(len(groups))
    if english is not None and len(groups) > 1 and ENGLISH in langs:
        weights[:] = (1 - english) / (len(groups) - 1)
        weights[np.unique(langs).tolist().index(ENGLISH)] = english
    return Pool(texts, groups, weights) if groups else None


class Batches:
    """Makes batches of a tokenized corpus."""

    def __init__(self, tokens: Tokens, mixture: Mixture = Mixture(), multiple: int = 1) -> None:
        """Rows are padded to a multiple of `multiple` tokens: a GPU wants 8."""
        self.tokens, self.mixture, self.multiple = tokens, mixture, multiple
        left, right = tokens.left, tokens.right
        if not len(left):
            raise TrainingError("The corpus has no pairs to train on, or all of them are held out.")
        self.kinds = left.langs.astype(int) * len(CODES) + right.langs  # of pairs of languages
        groups = [np.flatnonzero(self.kinds == kind) for kind in np.unique(self.kinds)]
        # Small ones are drawn more than they are large, those with English twice.
        weights = np.array(
            [len(g) ** 0.3 * (2 if ENGLISH in (left.langs[g[0]], right.langs[g[0]]) else 1) for g in groups]
        )
        self.pairs = Pool(left, groups, weights)
        learnt = np.repeat(~tokens.valid, np.diff(tokens.starts))
        sides = joined([left, right])  # good single sentences, too, and the most there are of some languages
        stories = pool(
            tokens.told,
            np.flatnonzero(learnt & ~np.repeat(tokens.novel, np.diff(tokens.starts))),
            mixture.english_stories,
        )
        novels = pool(tokens.literature, np.arange(len(tokens.literature)))
        rest = 1 - mixture.story_share - mixture.literature_share
        sources = [
            (stories, mixture.story_share),
            (novels, mixture.literature_share),
            (pool(tokens.singles, np.arange(len(tokens.singles))), rest / 2),
            (pool(sides, np.arange(len(sides))), rest / 2),
        ]
        self.singles = [(own, share) for own, share in sources if own is not None]
        mean = self.window(0, 400)[1].sum() / 400
        self.units = round(WINDOW * mixture.batch / mean)  # in a window

    def counts(self, vocabulary: int) -> np.ndarray:
        """How often each piece stands in the text, [vocabulary]."""
        tokens = self.tokens
        texts = (tokens.left, tokens.right, tokens.singles, tokens.literature, tokens.told)
        return np.sum([np.bincount(own.flat, minlength=vocabulary) for own in texts], axis=0)

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Batches from number `start` on. What is of like length shares a batch, so that little is padding."""
        window, skip = divmod(start, WINDOW)
        while True:
            drawn, costs = self.window(window + 1, self.units)
            ends = np.searchsorted(np.cumsum(costs), costs.sum() * np.arange(1, WINDOW) / WINDOW)
            parts = np.split(np.arange(len(costs)), ends)
            order = np.random.default_rng([self.mixture.seed, window, 1]).permutation(WINDOW)
            for number in order[skip:]:
                yield drawn.batch(parts[number], self.multiple)
            window, skip = window + 1, 0

    def window(self, number: int, count: int) -> tuple[Drawn, np.ndarray]:
        """`count` units, shortest first, and the tokens that each costs [count].

        A unit is a sentence, or the two sides of a pair, with what their concepts are decoded to.
        """
        rng = np.random.default_rng([self.mixture.seed, number])
        paired = int(rng.binomial(count, self.mixture.pair_share))
        left, right = self.draw_pairs(rng, paired)
        said = [left, right, *self.draw_singles(rng, count - paired)]
        texts = joined(said)
        unit = np.concatenate([np.arange(paired), np.arange(paired), paired + np.arange(count - paired)])
        order = np.argsort(unit, kind="stable")  # the sides of a pair side by side
        texts, unit = texts.rows(order), unit[order]
        firsts = np.searchsorted(unit, np.arange(count))
        heard = self.corrupted(texts, np.flatnonzero(unit >= paired), rng)
        # Each source is decoded into its own words; one of a pair often into the other's.
        pairs = firsts[:paired]
        crossed = []
        for source, other in ((pairs, pairs + 1), (pairs + 1, pairs)):
            kept = (texts.langs[other] == ENGLISH) | (rng.random(paired) < self.mixture.translate)
            crossed.append(np.stack([source[kept], other[kept]], 1))
        own = np.repeat(np.arange(len(texts))[:, None], 2, 1)
        targets = np.concatenate([own, *crossed])
        targets = targets[np.argsort(unit[targets[:, 0]], kind="stable")]
        drawn = Drawn(texts, heard, unit, targets)
        costs = np.bincount(unit, heard.lengths + 2, count) + np.bincount(
            unit[targets[:, 0]], texts.lengths[targets[:, 1]] + 1, count
        )
        longest = np.zeros(count, int)
        np.maximum.at(longest, unit, np.maximum(texts.lengths, heard.lengths))
        shortest = np.argsort(longest, kind="stable")
        return drawn.ordered(shortest), costs[shortest]

    def draw_pairs(self, rng: np.random.Generator, count: int) -> tuple[Texts, Texts]:
        """Translations of each other, some of them two sentences long."""
        left, right = self.tokens.left, self.tokens.right
        rows = self.pairs.draw(rng, count)
        more = self.pairs.draw(rng, count)
        fits = np.maximum(left.lengths[rows] + left.lengths[more], right.lengths[rows] + right.lengths[more]) <= LONGEST
        more = np.where(
            (rng.random(count) < self.mixture.join) & fits & (self.kinds[rows] == self.kinds[more]), more, -1
        )
        return extended(left, rows, more), extended(right, rows, more)

    def draw_singles(self, rng: np.random.Generator, count: int) -> list[Texts]:
        """Single sentences from all sources, some of them joined with the one that follows."""
        shares = np.array([share for _, share in self.singles])
        found = []
        for (own, _), number in zip(self.singles, rng.multinomial(count, shares / shares.sum()), strict=True):
            rows, texts = own.draw(rng, number), own.texts
            more = np.minimum(rows + 1, len(texts) - 1)
            same = (texts.langs[more] == texts.langs[rows]) & (texts.lengths[rows] + texts.lengths[more] <= LONGEST)
            found.append(extended(texts, rows, np.where((rng.random(number) < self.mixture.join) & same, more, -1)))
        return found

    def corrupted(self, texts: Texts, rows: np.ndarray, rng: np.random.Generator) -> Texts:
        """The texts with some of `rows` corrupted: tokens dropped, blanked, shuffled (denoising autoencoding)."""
        chosen = rows[rng.random(len(rows)) < self.mixture.corrupt]
        part = texts.rows(chosen)
        owner = np.repeat(np.arange(len(part)), part.lengths)
        place = np.arange(len(part.flat)) - np.repeat(part.starts[:-1], part.lengths)
        order = np.lexsort([place + rng.uniform(0, 2.0, len(place)), owner])
        flat = np.where(rng.random(len(order)) < 0.05, UNK, part.flat[order]).astype(np.uint16)
        kept = rng.random(len(flat)) > 0.08
        kept[part.starts[:-1][part.lengths > 0]] = True  # something stays
        lengths = np.bincount(owner[kept], minlength=len(part))
        changed = Texts(flat[kept], np.concatenate([[0], np.cumsum(lengths)]), part.langs)
        both = joined([texts, changed])
        which = np.arange(len(texts))
        which[chosen] = len(texts) + np.arange(len(chosen))
        return both.rows(which)


def extended(texts: Texts, rows: np.ndarray, more: np.ndarray) -> Texts:
    """Sentences `rows`, each followed by that of `more` where it is not -1."""
    both = np.stack([rows, more], 1)
    parts = texts.rows(both[both >= 0])
    ends = np.cumsum((both >= 0).sum(1))
    return Texts(parts.flat, parts.starts[np.concatenate([[0], ends])], texts.langs[rows])


@dataclass(frozen=True)
class Drawn:
    """What a window is made of: sentences as they are said and as they are heard, by unit, and who says what."""

    texts: Texts
    heard: Texts
    unit: np.ndarray  # [S] of each sentence, ascending
    targets: np.ndarray  # [N, 2]: a source, and the sentence that it is decoded to; by unit, ascending

    def ordered(self, units: np.ndarray) -> Drawn:
        """These units only, in this order."""
        sentences = ranges(self.unit, units)
        targets = self.targets[ranges(self.unit[self.targets[:, 0]], units)]
        place = np.full(len(self.unit), -1)
        place[sentences] = np.arange(len(sentences))
        position = np.full(self.unit.max(initial=0) + 1, -1)
        position[units] = np.arange(len(units))
        return Drawn(
            self.texts.rows(sentences), self.heard.rows(sentences), position[self.unit[sentences]], place[targets]
        )

    def batch(self, units: np.ndarray, multiple: int) -> Batch:
        part = self.ordered(units)
        said = part.texts.rows(part.targets[:, 1])
        wanted = said.padded(after=[EOS], multiple=multiple)
        inputs = np.where(wanted[:, :-1] == EOS, PAD, wanted[:, :-1])
        places = np.flatnonzero(wanted != PAD)
        twice = np.flatnonzero(np.diff(part.unit, append=-1) == 0)
        return Batch(
            part.heard.padded([BOS], [EOS], multiple),
            inputs,
            wanted.ravel()[places],
            places,
            part.targets[:, 0],
            said.langs.astype(np.int64),
            twice,
        )


def ranges(sorted_keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` stands in ascending keys, all its places, in the order of `wanted`."""
    starts = np.searchsorted(sorted_keys, wanted)
    counts = np.searchsorted(sorted_keys, wanted, side="right") - starts
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
