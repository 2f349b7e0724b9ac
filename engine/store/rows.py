"""Nodes as rows of the database, and back."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..document import ConceptNode, Document, Provenance
from ..errors import VectorError

FLOAT = np.dtype("<f4")  # little-endian on every machine, so that a file can be carried between them


def to_row(document: Document, node: ConceptNode) -> dict[str, Any]:
    """The row of a sound document's node, and the spacing `after` it, which belongs to the place and not to the node
    version."""
    provenance = json.dumps(vars(node.provenance) | {"parameters": dict(node.provenance.parameters)}, sort_keys=True)
    vector = node.vector.astype(FLOAT).tobytes()
    digest = hashlib.blake2b(vector, digest_size=16)
    digest.update(json.dumps([node.id, node.text, node.lang, provenance]).encode())
    return {
        "document": document.id,
        "digest": digest.hexdigest(),
        "node": node.id,
        "text": node.text,
        "lang": node.lang,
        "provenance": provenance,
        "vector": vector,
        "after": node.after,
    }


def to_node(row: dict[str, Any], after: str, dim: int) -> ConceptNode:
    """A node from its row. Raises KeyError, ValueError, TypeError or VectorError where the row is damaged."""
    "".join((row["text"], row["lang"], row["node"], row["provenance"], after)).encode()  # see Database on its texts
    vector = np.frombuffer(row["vector"], dtype=FLOAT)
    if vector.shape != (dim,):
        raise VectorError(f"{vector.shape[0]} numbers where {dim} are needed.")
    provenance = json.loads(row["provenance"])
    return ConceptNode(
        row["text"],
        row["lang"],
        vector,
        Provenance(**{**provenance, "parents": tuple(provenance["parents"])}),
        after,
        row["node"],
    )


def to_path(text: str) -> list[tuple[int, str]]:
    """The node version of each sentence of a revision and the spacing after it. Raises ValueError or TypeError where
    the list is damaged."""
    return [(int(version), str(after)) for version, after in json.loads(text)]


def to_moment(text: Any) -> datetime:
    """A time as it is stored; the beginning of time where it is damaged."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return datetime.fromtimestamp(0, UTC)


def cleaned(text: Any) -> str:
    """A text to be shown, also a damaged one: what is no UTF-8 becomes a replacement character."""
    return str(text).encode(errors="surrogateescape").decode(errors="replace")
