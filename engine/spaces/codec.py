"""An encoder and a decoder at work on any number of sentences, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..errors import TextError, VectorError
from . import Progress, Search
from .decoding import Decoding
from .transformer import PAD, TextDecoder, TextEncoder

SENTENCES = 32  # encoded or decoded at once
TOKENS = 8192  # encoded at once, at most: what long sentences take in memory grows with them


class Codec:
    """Token ids to concepts and concepts to token ids: what every space with such towers does alike.

    `longest` is how many tokens a decoded sentence has at most, unless a search says otherwise.
    """

    def __init__(self, encoder: TextEncoder, decoder: TextDecoder, decoding: Decoding, longest: int) -> None:
        self.encoder, self.decoder = encoder.eval(), decoder.eval()
        self.decoding, self.longest = decoding, longest

    @torch.inference_mode()
    def encode(self, rows: Sequence[list[int]], progress: Progress | None = None) -> np.ndarray:
        """Token ids, one list a sentence, to concepts, float32 [N, concept]."""
        limit, device = self.encoder.dims.positions, self.encoder.embed.weight.device
        for row in rows:
            if len(row) > limit:
                raise TextError(
                    f"A sentence of {len(row)} tokens is too long for one concept, which holds {limit}; split it."
                )
        result = np.zeros((len(rows), self.encoder.dims.concept), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # like lengths together: little padding
        done = 0
        while done < len(order):
            batch = order[done : done + SENTENCES]
            while len(batch) > 1 and len(batch) * len(rows[batch[-1]]) > TOKENS:
                batch.pop()
            width = len(rows[batch[-1]])
            padded = torch.tensor([rows[i] + [PAD] * (width - len(rows[i])) for i in batch], device=device)
            result[batch] = self.encoder(padded).float().cpu().numpy()
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return result

    @torch.inference_mode()
    def decode(
        self,
        vectors: np.ndarray,
        language: int,
        search: Search,
        spell: Callable[[list[int]], str],
        progress: Progress | None = None,
    ) -> list[list[str]]:
        """Concepts [N, concept] to up to `search.alternatives` different sentences each, best first.

        `language` is what `Decoding` knows it by, `spell` turns token ids into text. Raises VectorError.
        """
        concepts = self._concepts(vectors)
        result: list[list[str]] = []
        for start in range(0, len(concepts), SENTENCES):
            batch = concepts[start : start + SENTENCES]
            for hypotheses in self.decoding(batch, language, search, search.max_tokens or self.longest, start):
                texts = [spell(tokens) for tokens in hypotheses]
                result.append(list(dict.fromkeys(texts)))  # two token sequences can spell one sentence
            if progress:
                progress(len(result), len(concepts))
        return result

    @torch.inference_mode()
    def likelihood(self, rows: Sequence[list[int]], vectors: np.ndarray, language: int) -> np.ndarray:
        """Mean log-probability of each row's token ids, the end included, given its concept of [N, concept]; [N]."""
        concepts = self._concepts(vectors)
        found = [
            self.decoding.likelihood(concepts[start : start + SENTENCES], language, rows[start : start + SENTENCES])
            for start in range(0, len(concepts), SENTENCES)
        ]
        return torch.cat(found).cpu().numpy() if found else np.zeros(0, np.float32)

    def _concepts(self, vectors: np.ndarray) -> torch.Tensor:
        """Vectors [N, concept] as the decoder takes them. Raises VectorError."""
        weight = self.decoder.embed.weight
        return torch.from_numpy(checked(vectors, self.decoder.dims.concept)).to(weight.device, weight.dtype)


def checked(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Vectors as float32 [N, dim]; raises VectorError where they are not that, or not finite."""
    try:
        array = np.array(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError("The vectors are not an array of numbers.") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(f"The vectors have the shape {array.shape}; this space needs [N, {dim}].")
    if not np.isfinite(array).all():
        raise VectorError("The vectors hold values that are not finite numbers.")
    return array
