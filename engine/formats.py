"""Documents as files: plain text, Markdown, and JSON with vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from . import soundness, values
from .document import ConceptNode, Document, Provenance
from .errors import TextError

T = TypeVar("T")

FORMAT = "conceptscape-document"
VERSION = 1
SORTS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}


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
    """A document exported by `to_json`, as a new document.

    Raises TextError for anything else, and DocumentError where what it says makes no document (see `soundness`).
    """
    try:
        record = values.parse(data)
        version = _part(record, "format", str, "it"), record.get("version")
        if version != (FORMAT, VERSION):
            raise ValueError("format {!r}, version {!r}".format(*version))
        written = _part(record, "nodes", list, "it")
        soundness.check_count(len(written))
        title, lang, space, before = (_part(record, name, str, "it") for name in ("title", "lang", "space", "before"))
        nodes = tuple(_node(one, f"sentence {number}") for number, one in enumerate(written, 1))
    except ValueError as error:
        raise TextError(f"This is not a document that Conceptscape exported as JSON ({error}).") from None
    document = Document(title, lang, space, nodes, before)
    soundness.check(document)
    return document


def _node(record: Any, where: str) -> ConceptNode:
    """A node from its record. Raises ValueError in a few words."""
    origin = _part(record, "provenance", dict, where)
    return ConceptNode(
        _part(record, "text", str, where),
        _part(record, "lang", str, where),
        _vector(_part(record, "vector", list, where), where),
        Provenance(
            _part(origin, "kind", str, where),  # type: ignore[arg-type]  # checked with the document
            _part(origin, "operation", str, where),
            tuple(_part(origin, "parents", list, where)),
            _part(origin, "parameters", dict, where),
            _part(origin, "seed", object, where),  # type: ignore[arg-type]
        ),
        _part(record, "after", str, where),
        _part(record, "id", str, where),
    )


def _vector(numbers: list[Any], where: str) -> np.ndarray:
    """Numbers as float32 [D]. Raises ValueError where they are not that, or too large."""
    if not set(map(type, numbers)) <= {float, int}:  # numpy would read text and true as numbers
        raise ValueError(f"the vector of {where} is no list of numbers")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite
        vector = np.array(numbers, np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError(f"the vector of {where} holds a number that is too large")
    return vector


def _part(record: Any, name: str, kind: type[T], where: str) -> T:
    """What a record has under a name. Raises ValueError where it has nothing there, or something of another kind."""
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f"there is no {name!r} in {where}")
    if not isinstance(record[name], kind):
        raise ValueError(f"the {name!r} in {where} is not {SORTS[kind]}")
    return record[name]
