"""A concept space without a model, for a program that starts in a moment: concepts are numbers drawn from the words."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from engine.spaces import Language, Progress, Search
from engine.spaces.languages import LANGUAGES

SLOW = "slowly"  # a sentence with this word takes as long as one takes a large space
SECONDS = 0.02


class HashSpace:
    name = "hash"
    identity = "hash 1"
    dim = 16
    max_tokens = 64
    languages: Mapping[str, Language] = {code: LANGUAGES[code] for code in ("eng_Latn", "deu_Latn", "fra_Latn")}

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for i, text in enumerate(texts):
            if SLOW in text:
                time.sleep(SECONDS)
            seed = hashlib.blake2b(f"{lang} {text}".encode(), digest_size=8).digest()
            vectors[i] = np.random.default_rng(int.from_bytes(seed)).normal(size=self.dim)
            if progress:
                progress(i + 1, len(texts))
        return vectors

    def decode(
        self, vectors: np.ndarray, lang: str, *, search: Search = Search(), progress: Progress | None = None
    ) -> list[str]:
        said = []
        for i, vector in enumerate(vectors):
            said.append(f"In {lang} it says {hashlib.blake2b(vector.tobytes(), digest_size=4).hexdigest()}.")
            if progress:
                progress(i + 1, len(vectors))
        return said

    def alternatives(
        self, vectors: np.ndarray, lang: str, *, search: Search, progress: Progress | None = None
    ) -> list[list[str]]:
        return [[words] for words in self.decode(vectors, lang)]

    def likelihood(self, texts: Sequence[str], vectors: np.ndarray, lang: str) -> np.ndarray:
        return np.zeros(len(texts), np.float32)
