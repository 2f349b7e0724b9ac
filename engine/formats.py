"""Documents as files: plain text, Markdown, and JSON with vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from .document import ConceptNode, Document, Provenance
from .errors import TextError, VectorError

FORMAT = "conceptscape-document"
VERSION = 1


def to_text(document: Document, sentences: Sequence[str] | None = None) -> str:
    """The document's text; with `sentences` (one a node), the same spacing around those instead."""
    if sentences is None:
        return document.text
    pairs = zip(sentences, document.nodes, strict=True)
    return document.before + "".join(sentence + node.after for sentence, node in pairs)


def to_markdown(document: Document, sentences: Sequence[str] | None = None) -> str:
    """A title and paragraphs, with Markdown's own signs escaped in the text."""
    escaped = str.maketrans({c: "\\" + c for c in "\\`*_[]<>#|~"})
    body = to_text(
        document,
        [s.translate(escaped) for s in sentences or [n.text for n in document.nodes]],
    )
    paragraphs = [" ".join(p.split()) for p in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    title = document.title.translate(escaped)
    return "\n\n".join([f"# {title}", *filter(None, paragraphs)]) + "\n"


def to_json(document: Document) -> str:
    """Everything there is: texts, spacing, languages, provenance and vectors."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "title": document.title,
        "lang": document.lang,
        "space": document.space,
        "before": document.before,
        "nodes": [
            {
                "id": node.id,
                "text": node.text,
                "lang": node.lang,
                "after": node.after,
                "provenance": {
                    "kind": node.provenance.kind,
                    "operation": node.provenance.operation,
                    "parents": list(node.provenance.parents),
                    "parameters": dict(node.provenance.parameters),
                    "seed": node.provenance.seed,
                },
                "vector": [float(np.float32(x)) for x in node.vector],
            }
            for node in document.nodes
        ],
    }
    return json.dumps(record, ensure_ascii=False, indent=1)


def from_json(data: str) -> Document:
    """A document exported by `to_json`, as a new document. Raises TextError for anything else."""
    try:
        record: dict[str, Any] = json.loads(data)
        if record["format"] != FORMAT or record["version"] != VERSION:
            raise ValueError(f"format {record['format']}, version {record['version']}")
        nodes = tuple(
            ConceptNode(
                str(n["text"]),
                str(n["lang"]),
                np.asarray(n["vector"], np.float32),
                Provenance(
                    n["provenance"]["kind"],
                    str(n["provenance"]["operation"]),
                    tuple(map(str, n["provenance"]["parents"])),
                    dict(n["provenance"]["parameters"]),
                    n["provenance"]["seed"],
                ),
                str(n["after"]),
                str(n["id"]),
            )
            for n in record["nodes"]
        )
        if len({len(node.vector) for node in nodes}) > 1:
            raise ValueError("vectors of different lengths")
        if len({node.id for node in nodes}) < len(nodes):
            raise ValueError("two nodes with one id")
        return Document(
            str(record["title"]),
            str(record["lang"]),
            str(record["space"]),
            nodes,
            str(record["before"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, VectorError) as error:
        raise TextError(f"This is not a document that Conceptscape exported as JSON ({error}).") from None
