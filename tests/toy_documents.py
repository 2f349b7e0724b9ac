"""Small documents whose vectors are random numbers: the store does not care."""

from __future__ import annotations

import numpy as np

from engine.document import ConceptNode, Document

DIM = 16


def node(text: str, seed: int = 0, **fields) -> ConceptNode:
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return ConceptNode(text, "eng_Latn", vector, **fields)


def story(*texts: str, **fields) -> Document:
    return Document("Story", "eng_Latn", "builtin", tuple(node(t, i) for i, t in enumerate(texts)), **fields)
