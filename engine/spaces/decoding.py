"""Concepts to sentences: greedy, beam and sampled decoding with a KV cache."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..concepts import seeded
from . import Search
from .transformer import Cache, TextDecoder

REPEAT = 4  # no run of this many tokens comes twice in a sentence: it is how a weak decoder loops

Hypotheses = list[list[int]]  # the different token sequences of one concept, best first


class Decoding:
    """Decodes batches with one decoder. `end` is the token that closes a sentence."""

    def __init__(self, decoder: TextDecoder, end: int, banned: tuple[int, ...]) -> None:
        self.decoder, self.end = decoder, end
        self.banned = torch.tensor(banned)

    def __call__(self, concepts: Tensor, language: int, search: Search, first: int = 0) -> list[Hypotheses]:
        """Decode concepts [N, concept]. `first` is the position of row 0 in the whole job: it seeds the sampling."""
        length = min(search.max_tokens, self.decoder.dims.positions - 1)
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

    def start(self, concepts: Tensor, language: int, length: int) -> tuple[Tensor, list[Tensor], Cache]:
        """Logits [N, V] for the first token, what each layer adds, and the cache."""
        conditions = self.decoder.condition(concepts)
        cache = Cache(self.decoder.dims, len(concepts), length + 1, concepts)
        languages = torch.full((len(concepts),), language)
        nothing = torch.zeros(len(concepts), 0, dtype=torch.long)
        return self.next(nothing, conditions, cache, languages), conditions, cache

    def next(
        self,
        tokens: Tensor,
        conditions: list[Tensor],
        cache: Cache,
        languages: Tensor | None = None,
    ) -> Tensor:
        logits = self.decoder.logits(self.decoder.states(tokens, conditions, languages, cache)[:, -1])
        logits[:, self.banned] = -math.inf
        return logits

    def walk(
        self, concepts: Tensor, language: int, search: Search, length: int, first: int
    ) -> list[tuple[list[int], float]]:
        """One path per row, greedy or sampled, with its mean log-probability."""
        n = len(concepts)
        tokens = torch.zeros(n, length, dtype=torch.long)
        lengths = torch.full((n,), length)
        score = torch.zeros(n)
        # Each row has random numbers of its own, so that a batch's size does not change what is drawn.
        draws = [seeded(search.seed, first + i).random(length) for i in range(n)]
        random = torch.from_numpy(np.stack(draws)).float()
        alive = torch.arange(n)
        logits, conditions, cache = self.start(concepts, language, length)
        for step in range(length):
            if search.kind == "sample":
                chosen, logp = sample(logits, random[alive, step], search.temperature, search.top_p)
            else:
                chosen = logits.argmax(-1)
                logp = torch.zeros(len(chosen))  # nothing to rank: there is one greedy path
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
            logits = self.next(chosen[:, None], conditions, cache)
            forbid_repeats(logits, tokens[alive, : step + 1])
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
        """Beam search; hypotheses are ranked by mean log-probability a token."""
        n = len(concepts)
        logits, conditions, cache = self.start(concepts, language, length)
        top = logits.log_softmax(-1).topk(2 * beams)
        # Expand every row to its beams: the first step's best tokens start them.
        rows = torch.arange(n).repeat_interleave(beams)
        cache.select(rows)
        conditions = [c[rows] for c in conditions]
        finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
        sequences = torch.zeros(n, beams, 0, dtype=torch.long)
        scores, candidates, parents = (
            top.values,
            top.indices,
            torch.zeros_like(top.indices),
        )
        for step in range(length):
            ended = candidates == self.end
            for i, j in ended.nonzero().tolist():
                if j < beams or not finished[i]:
                    tokens = sequences[i, parents[i, j]].tolist()
                    finished[i].append((float(scores[i, j]) / (step + 1), tokens))
            scores = scores.masked_fill(ended, -math.inf)
            kept = scores.topk(beams)
            scores, pick = kept.values, kept.indices
            parent, chosen = parents.gather(1, pick), candidates.gather(1, pick)
            sequences = torch.cat(
                [
                    sequences.gather(1, parent[..., None].expand(-1, -1, step)),
                    chosen[..., None],
                ],
                dim=-1,
            )
            # A row is done once it has enough endings and no open beam can still beat the worst of them.
            if all(self.closed(finished[i], float(scores[i, 0]) / (step + 2), beams) for i in range(n)):
                break
            if step == length - 1:
                break
            cache.select((torch.arange(n)[:, None] * beams + parent).flatten())
            step_logits = self.next(chosen.reshape(-1, 1), conditions, cache).log_softmax(-1).view(n, beams, -1)
            step_top = step_logits.topk(2 * beams)
            total = (scores[..., None] + step_top.values).flatten(1)
            best = total.topk(2 * beams)
            scores = best.values
            parents = best.indices // (2 * beams)
            candidates = step_top.indices.flatten(1).gather(1, best.indices)
        for i in range(n):  # a sentence that never ended counts as it stands
            if not finished[i]:
                finished[i].append((float(scores[i, 0]) / length, sequences[i, 0].tolist()))
        return [[tokens for _, tokens in sorted(f, key=lambda p: -p[0])[:alternatives]] for f in finished]

    @staticmethod
    def closed(finished: list[tuple[float, list[int]]], best_open: float, beams: int) -> bool:
        ranked = sorted((score for score, _ in finished), reverse=True)
        return len(ranked) >= beams and ranked[beams - 1] >= best_open


def forbid_repeats(logits: Tensor, tokens: Tensor) -> None:
    """Rule out, in logits [N, V], what would repeat a run of REPEAT tokens of tokens [N, T]."""
    if tokens.shape[1] < REPEAT:
        return
    windows = tokens.unfold(1, REPEAT, 1)  # [N, T - REPEAT + 1, REPEAT]
    seen = (windows[..., :-1] == tokens[:, None, 1 - REPEAT :]).all(-1)
    rows, places = seen.nonzero(as_tuple=True)
    logits[rows, windows[rows, places, -1]] = -math.inf


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
