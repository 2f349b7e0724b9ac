"""Documents as concepts: what a concept model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tokens import Texts


@dataclass(frozen=True)
class Documents:
    """Encoded documents: rows `starts[i]` to `starts[i + 1]` of `concepts` [total, D] are document i."""

    concepts: np.ndarray  # float16
    starts: np.ndarray  # int64 [documents + 1]
    valid: np.ndarray  # bool [documents]
    whole: np.ndarray  # bool [documents]
    langs: tuple[str, ...]  # as the corpus names them: eng, deu, ...
    end: np.ndarray  # float32 [D], the end-of-document concept
    space: str = ""  # the name of the space, and the fingerprint of its weights
    fingerprint: str = ""
    said: Texts | None = None  # the words of each row, and of the end as the last one

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> np.ndarray:
        """Document `index` with its end, float32 [T, D]."""
        body = np.asarray(self.concepts[self.starts[index] : self.starts[index + 1]], np.float32)
        return np.concatenate([body, self.end[None]]) if self.whole[index] else body

    def length(self, index: int) -> int:
        return int(self.starts[index + 1] - self.starts[index]) + int(self.whole[index])

    def rows(self, indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Which of `said` stands at places [K] of documents [K]: the end's where a document's sentences are over."""
        rows = self.starts[indices] + places
        return np.where(rows < self.starts[indices + 1], rows, self.starts[-1])
