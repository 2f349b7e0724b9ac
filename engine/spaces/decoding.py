"""Concepts to sentences: greedy, beam and sampled decoding with a KV cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..concepts import seeded
from . import Search
from .transformer import Cache, TextDecoder

REPEAT = 4  # no run of this many tokens comes twice in a sentence: it is how a weak decoder loops
# Nor do up to PERIOD tokens come three times in a row. Of 195,404 sentences of the corpus 57 do so, most with dots,
# dashes, numerals or laughter: those may come three times, and not four.
PERIOD = 3

Hypotheses = list[list[int]]  # the different token sequences of one concept, best first


@dataclass
class Started:
    """A batch whose prompt is read and whose first tokens are to be chosen."""

    states: Tensor  # [N, width], of which the first tokens' logits are made
    conditions: list[Tensor]
    cache: Cache
    score: Tensor  # float32 [N]: log-probability of the prompt


@dataclass(frozen=True)
class Limits:
    """What a weak decoder is kept from: saying the same over and over, and words of other languages."""

    sounds: Tensor  # bool [V]: tokens that may come three times in a row
    foreign: Tensor | None = None  # bool [languages, V]: tokens that never come in a language


class Decoding:
    """Decodes batches with one decoder.

    `end` is the token that closes a sentence, `banned` those that never come; `limits` are for a decoder so weak that
    it needs some, and hold for every kind of search.
    """

    def __init__(self, decoder: TextDecoder, end: int, banned: tuple[int, ...], limits: Limits | None = None) -> None:
        self.decoder, self.end, self.limits = decoder, end, limits
        self.banned = list(banned)
        # The prompt is the language's learned vector, or NLLB's: the end token, then the language's.
        self.prompt = 1 if decoder.dims.languages else 2

    def __call__(
        self, concepts: Tensor, language: int, search: Search, length: int, first: int = 0
    ) -> list[Hypotheses]:
        """Decode concepts [N, concept] into at most `length` tokens, the end counted.

        `language` is the index of a learned vector or, for a decoder without those, a token. `first` is the position
        of row 0 in the whole job: it seeds the sampling.
        """
        length = min(length, self.decoder.dims.positions - self.prompt)
        if search.kind == "beam":
            return self.beam(
                concepts,
                language,
                max(search.beams, search.alternatives),
                length,
                search.alternatives,
            )
        # Sampling repeats itself, so ask for more than wanted and keep what differs.
        copies = 1 if search.kind == "greedy" else (1 if search.alternatives == 1 else 2 * search.alternatives)
        found = self.walk(
            concepts.repeat_interleave(copies, 0),
            language,
            search,
            length,
            first * copies,
        )
        result = []
        for row in range(len(concepts)):
            ranked = sorted(found[row * copies : (row + 1) * copies], key=lambda pair: -pair[1])
            distinct: Hypotheses = []
            for tokens, _ in ranked:
                if tokens not in distinct:
                    distinct.append(tokens)
            result.append(distinct[: search.alternatives])
        return result

    def start(self, concepts: Tensor, language: int, slots: int) -> Started:
        """Read the prompt; `slots` is how many tokens the cache must hold after it."""
        n, device = len(concepts), concepts.device
        conditions = self.decoder.condition(concepts)
        cache = Cache(self.decoder.dims, n, self.prompt + slots, concepts)
        if self.decoder.dims.languages:
            nothing = torch.zeros(n, 0, dtype=torch.long, device=device)
            languages = torch.full((n,), language, device=device)
            states = self.decoder.states(nothing, conditions, languages, cache)
            return Started(states[:, -1], conditions, cache, torch.zeros(n, device=device))
        tokens = torch.tensor([[self.end, language]], device=device).expand(n, 2)
        states = self.decoder.states(tokens, conditions, cache=cache)
        # How likely the language was is part of every score, as in fairseq2.
        before = self.decoder.logits(states[:, 0]).float()
        return Started(states[:, 1], conditions, cache, before[:, language] - before.logsumexp(-1))

    def likelihood(self, concepts: Tensor, language: int, rows: Sequence[list[int]]) -> Tensor:
        """Mean log-probability [N] of the tokens `rows`, the end included, given concepts [N, concept]."""
        width, device = max(map(len, rows)), concepts.device
        tokens = torch.tensor([row + [self.end] * (width + 1 - len(row)) for row in rows], device=device)
        started = self.start(concepts, language, width)
        after = self.decoder.states(tokens[:, :-1], started.conditions, cache=started.cache)
        states = torch.cat([started.states[:, None], after], dim=1)
        found = []
        for row, own, said in zip(rows, states, tokens, strict=True):  # one at a time: a vocabulary is wide
            count = len(row) + 1
            logits = self.decoder.logits(own[:count]).float()
            found.append((logits.gather(1, said[:count, None])[:, 0] - logits.logsumexp(-1)).mean())
        return torch.stack(found)

    def forbid(self, logits: Tensor, tokens: Tensor, language: int) -> None:
        """Rule out, in logits [N, V], what may not follow tokens [N, T] in a sentence of a language."""
        logits[:, self.banned] = -math.inf
        if self.limits is None:
            return
        forbid_repeats(logits, tokens)
        forbid_loops(logits, tokens, self.limits.sounds)
        if self.limits.foreign is not None:
            logits.masked_fill_(self.limits.foreign[language], -math.inf)

    def best(self, logits: Tensor, states: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best of logits [..., V] and their tokens, best first.

        In bf16 a logit has eight bits, which leaves many words equal; the best ones are worked out again in fp32.
        """
        if logits.dtype == torch.float32:
            values, tokens = logits.topk(k)
            return values, tokens
        rough, tokens = logits.topk(min(4 * k, logits.shape[-1]))
        exact = (self.decoder.embed.weight[tokens].float() @ states[..., None].float())[..., 0]
        values, places = exact.masked_fill(rough == -math.inf, -math.inf).topk(k)
        return values, tokens.gather(-1, places)

    def walk(
        self, concepts: Tensor, language: int, search: Search, length: int, first: int
    ) -> list[tuple[list[int], float]]:
        """One path per row, greedy or sampled, with its mean log-probability."""
        n, device = len(concepts), concepts.device
        tokens = torch.zeros(n, length, dtype=torch.long, device=device)
        lengths = torch.full((n,), length, device=device)
        score = torch.zeros(n, device=device)
        # Each row has random numbers of its own, so that a batch's size does not change what is drawn.
        draws = [seeded(search.seed, first + i).random(length) for i in range(n)]
        random = torch.from_numpy(np.stack(draws)).float().to(device)
        alive = torch.arange(n, device=device)
        started = self.start(concepts, language, length)
        states, conditions, cache = started.states, started.conditions, started.cache
        for step in range(length):
            logits = self.decoder.logits(states)
            self.forbid(logits, tokens[alive, :step], language)
            if search.kind == "sample":
                chosen, logp = sample(logits.float(), random[alive, step], search.temperature, search.top_p)
            else:
                chosen = self.best(logits, states, 1)[1][:, 0]
                logp = torch.zeros(len(chosen), device=device)  # nothing to rank: there is one greedy path
            score[alive] += logp
            tokens[alive, step] = chosen
            done = chosen == self.end
            lengths[alive[done]] = step
            if done.all() or step == length - 1:
                break
            if done.any():  # finished rows leave the batch
                rows = (~done).nonzero()[:, 0]
                alive, chosen = alive[rows], chosen[rows]
                cache.select(rows)
                conditions = [c[rows] for c in conditions]
            states = self.decoder.states(chosen[:, None], conditions, cache=cache)[:, -1]
        return [
            (tokens[i, : lengths[i]].tolist(), float(score[i]) / (int(lengths[i]) + 1))
            for i in range(n)
        ]  # fmt: skip

    def beam(
        self,
        concepts: Tensor,
        language: int,
        beams: int,
        length: int,
        alternatives: int,
    ) -> list[Hypotheses]:
        """Beam search by fairseq's rule, as in fairseq2's `BeamSearchSeq2SeqGenerator`.

        Of the 2 x beams best continuations, those that end and are among the best `beams` are finished, and the
        best `beams` of the others go on; a concept is done with its `beams`-th finished sentence. The last
        token is the end, whatever its probability. Sentences are ranked by their log-probability, the prompt's
        included, divided by their length.
        """
        n, device = len(concepts), concepts.device
        started = self.start(concepts, language, beams * length)
        conditions, cache = started.conditions, started.cache
        states = started.states[:, None]  # [rows, beams, width], with one beam in the first step
        scores = started.score[:, None]
        ancestors = torch.ones(n, 1, self.prompt, dtype=torch.bool, device=device)
        own = torch.eye(beams, dtype=torch.bool, device=device)
        sequences = torch.zeros(n, 1, 0, dtype=torch.long, device=device)
        finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
        rows = list(range(n))  # the concepts that are not done
        for step in range(length):
            logits = self.decoder.logits(states)
            # The best of a log-softmax over the vocabulary are the best of the logits: it need not be written out. Its
            # denominators are worked out row by row, since a row of 256,206 words stays in a processor's cache.
            total = torch.stack([row.float().logsumexp(-1) for row in logits.flatten(0, 1)]).view(logits.shape[:2])
            if step == length - 1:
                values = logits[..., self.end, None].float()
                tokens = torch.full_like(values, self.end, dtype=torch.long)
            else:
                self.forbid(logits.view(-1, logits.shape[-1]), sequences.flatten(0, 1), language)
                values, tokens = self.best(logits, states, 2 * beams)
            found = (scores + -total)[..., None] + values
            best = found.flatten(1).topk(min(2 * beams, found[0].numel()))
            parents = best.indices // found.shape[-1]
            candidates = tokens.flatten(1).gather(1, best.indices)
            ended = candidates == self.end
            for i, j in ended[:, :beams].nonzero().tolist():
                ends = finished[rows[i]]
                if len(ends) < beams:
                    score = float(best.values[i, j]) / (self.prompt + step)
                    ends.append((score, sequences[i, parents[i, j]].tolist()))
            open_rows = [i for i, row in enumerate(rows) if len(finished[row]) < beams]
            if not open_rows or step == length - 1:
                break
            going = ended.to(torch.uint8).argsort(dim=-1, stable=True)[:, :beams]  # the best that do not end, in order
            scores, parents, chosen = (x.gather(1, going) for x in (best.values, parents, candidates))
            sequences = sequences.gather(1, parents[..., None].expand(-1, -1, step))
            sequences = torch.cat([sequences, chosen[..., None]], -1)
            ancestors = ancestors.gather(1, parents[..., None].expand(-1, -1, ancestors.shape[-1]))
            if len(open_rows) < len(rows):  # what is done leaves the batch
                rows = [rows[i] for i in open_rows]
                keep = torch.tensor(open_rows, device=device)
                scores, chosen, sequences, ancestors = (x[keep] for x in (scores, chosen, sequences, ancestors))
                cache.select(keep)
                conditions = [c[keep] for c in conditions]
            ancestors = torch.cat([ancestors, own.expand(len(rows), -1, -1)], -1)
            states = self.decoder.states(chosen, conditions, cache=cache, ancestors=ancestors)
        return [[tokens for _, tokens in sorted(f, key=lambda p: -p[0])[:alternatives]] for f in finished]


def forbid_repeats(logits: Tensor, tokens: Tensor) -> None:
    """Rule out, in logits [N, V], what would repeat a run of REPEAT tokens of tokens [N, T]."""
    if tokens.shape[1] < REPEAT:
        return
    windows = tokens.unfold(1, REPEAT, 1)  # [N, T - REPEAT + 1, REPEAT]
    seen = (windows[..., :-1] == tokens[:, None, 1 - REPEAT :]).all(-1)
    rows, places = seen.nonzero(as_tuple=True)
    logits[rows, windows[rows, places, -1]] = -math.inf


def forbid_loops(logits: Tensor, tokens: Tensor, sounds: Tensor) -> None:
    """Rule out, in logits [N, V], what would make up to PERIOD tokens of tokens [N, T] come three times in a row.

    Tokens that are sounds (bool [V]) may come three times, and not four.
    """
    for period in range(1, PERIOD + 1):
        for times in (3, 4):
            known = times * period - 1  # tokens of the stretch that are there; one more would close it
            if tokens.shape[1] < known:
                break
            last = tokens[:, -known:]
            closes = (last[:, period:] == last[:, :-period]).all(-1)
            if times == 3:
                closes &= ~sounds[last[:, -period:]].all(-1)
            rows = closes.nonzero()[:, 0]
            logits[rows, last[rows, -period]] = -math.inf


def sample(logits: Tensor, random: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Nucleus sampling (Holtzman et al. 2020) from logits [N, V] with uniform numbers [N]; tokens and log-probs."""
    logp = (logits / max(temperature, 1e-3)).log_softmax(-1)
    values, order = logp.exp().sort(descending=True)
    before = values.cumsum(-1) - values
    values = values.masked_fill(before >= top_p, 0.0)
    cumulative = values.cumsum(-1)
    target = random[:, None] * cumulative[:, -1:]
    pick = (cumulative < target).sum(-1, keepdim=True).clamp_max(values.shape[1] - 1)
    chosen = order.gather(1, pick)
    return chosen[:, 0], logp.gather(1, chosen)[:, 0]
