"""What every document is, wherever it comes from: a file, the store, or an edit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from . import values
from .document import ConceptNode, Document, Kind, Provenance
from .errors import DocumentError
from .text import has_words

SENTENCES = 50_000  # a few times what the largest text has; their vectors take 100 MB in the built-in space
CHARACTERS = 4_000_000  # of a document with its spacing: a text has a quarter at most, and edits add to it
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of a node or document, which is also a name in HTML
TITLE = 1_000  # characters
CODE = 64  # characters of a language's code
SPACE = 200  # characters of a space's identity
OPERATION = 64  # characters
DIMENSIONS = 16_384
# Norms of concepts: 22 in the built-in space, 0.2 and more in SONAR. Far beyond, sums in float32 overflow or vanish.
SHORTEST, LONGEST = 1e-3, 1e4
DEPTH, VALUES = 8, 100_000  # of the parameters of one sentence's origin

KINDS = get_args(Kind)
EDITS = ("import", "insert", "rewrite", "split", "merge", "alternative", "duplicate", "translate")
MADE = ("interpolate", "blend", "arithmetic", "vary", "place", "regenerate", "continue", "infill")
OPERATIONS = frozenset(EDITS + MADE)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


# A parameter means the same in every operation, since a duplicate keeps those of what it is a copy of.
PARAMETERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "from": (is_text, "text"),
    "lang": (is_text, "text"),
    "model": (is_text, "text"),
    "t": (values.is_number, "a number"),
    "amount": (values.is_number, "a number"),
    "x": (values.is_number, "a number"),
    "y": (values.is_number, "a number"),
    "weights": (lambda value: isinstance(value, list) and all(map(values.is_number, value)), "a list of numbers"),
    "position": (lambda value: values.is_whole(value, -(2**53), 2**53), "a whole number"),
}


def check(document: Document, known: Document | None = None) -> None:
    """Raise DocumentError, in one sentence, where a document is not one that can be shown, stored and edited.

    It is sound where its strings are ones that UTF-8 holds, ids are names and no two alike, sentences have words and
    the spacing between them has none, vectors have one length and are no zeros, and origins say what their operation
    says. What only a space knows (its languages, its dimension) is checked by `Engine.check`.

    Of an edited document only what is new is looked at closely: nodes that `known`, a sound document, has as well, the
    very same objects, are taken as sound.
    """
    _check_name(document.id, "The document's id")
    _check_text(document.title, "The title", TITLE)
    _check_text(document.lang, "The document's language", CODE)
    _check_text(document.space, "The name of the document's space", SPACE)
    if not document.space.split():
        raise DocumentError("The document does not say which space its vectors belong to.")
    _check_spacing(document.before, "The spacing before the first sentence")
    check_count(len(document.nodes))
    sound = {id(node) for node in known.nodes} if known else set()
    new = [(number, node) for number, node in enumerate(document.nodes, 1) if id(node) not in sound]
    for number, node in new:
        _check_node(node, f"sentence {number}")
    _check_vectors(document, new)
    if len({node.id for node in document.nodes}) < len(document.nodes):
        _raise_for_twins(document)
    characters = len(document.before) + sum(len(node.text) + len(node.after) for node in document.nodes)
    if characters > CHARACTERS:
        raise DocumentError(
            f"The document would have {characters:,} characters and at most {CHARACTERS:,} fit one; split it."
        )


def check_count(sentences: int) -> None:
    """Raise DocumentError where so many sentences are more than one document holds."""
    if sentences > SENTENCES:
        raise DocumentError(
            f"The document would have {sentences:,} sentences and at most {SENTENCES:,} fit one; split it into parts."
        )


def _check_node(node: ConceptNode, where: str) -> None:
    _check_name(node.id, f"The id of {where}")
    _check_text(node.text, f"The text of {where}", CHARACTERS)
    if not has_words(node.text):
        raise DocumentError(f"There are no words in {where}; a concept needs at least one.")
    _check_text(node.lang, f"The language of {where}", CODE)
    _check_spacing(node.after, f"The spacing after {where}")
    _check_provenance(node.provenance, where)


def _check_vectors(document: Document, new: list[tuple[int, ConceptNode]]) -> None:
    """Raise DocumentError where the vectors of `new` nodes (with their numbers) don't fit the document's first one."""
    if not new:
        return
    dim = len(document.nodes[0].vector)
    if not 1 <= dim <= DIMENSIONS:
        raise DocumentError(f"The vector of sentence 1 has {dim:,} numbers; it takes 1 to {DIMENSIONS:,}.")
    for number, node in new:
        if len(node.vector) != dim:
            raise DocumentError(
                f"The vector of sentence {number} has {len(node.vector):,} numbers and that of sentence 1 has {dim:,}; "
                "all of a document have as many."
            )
    vectors = np.stack([node.vector for _, node in new])
    with np.errstate(over="ignore"):  # too large for a norm is too long
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    wrong = (~((norms >= SHORTEST) & (norms <= LONGEST))).nonzero()[0]
    if len(wrong):
        raise DocumentError(
            f"The vector of sentence {new[wrong[0]][0]} is no concept: its length is {norms[wrong[0]]:.3g}, and a "
            f"concept's is {SHORTEST:g} to {LONGEST:g}."
        )


def _check_provenance(origin: Provenance, where: str) -> None:
    where = f"the origin of {where}"
    if origin.kind not in KINDS:
        raise DocumentError(f"The kind in {where} is none of {', '.join(KINDS)}.")
    _check_text(origin.operation, f"The operation in {where}", OPERATION)
    if not (origin.operation and origin.operation.isprintable()):
        raise DocumentError(f"The operation in {where} is no name.")
    if not isinstance(origin.parents, tuple) or len(origin.parents) > SENTENCES:
        raise DocumentError(f"The parents in {where} are no list of ids.")
    for parent in origin.parents:
        _check_name(parent, f"A parent in {where}")
    if origin.seed is not None and not values.is_whole(origin.seed, 0, 2**63 - 1):
        raise DocumentError(f"The seed in {where} is no whole number from 0 to 2^63 - 1.")
    if not isinstance(origin.parameters, Mapping):
        raise DocumentError(f"The parameters in {where} are no values by name.")
    if not origin.parameters:
        return
    _check_values(dict(origin.parameters), f"the parameters in {where}")
    if origin.operation not in OPERATIONS:  # of a version to come
        return
    for name, (fits, what) in PARAMETERS.items():
        if name in origin.parameters and not fits(origin.parameters[name]):
            raise DocumentError(f"The parameter {name} in {where} is not {what}.")
    weights = origin.parameters.get("weights", ())
    if origin.operation == "blend" and weights and len(weights) != len(origin.parents):
        raise DocumentError(f"There are {len(weights)} weights for {len(origin.parents)} parents in {where}.")


def _check_values(value: Any, where: str) -> None:
    """Raise DocumentError where a value is not one that JSON has, or a very large one."""
    left, rest = VALUES, [(value, 0)]
    while rest:
        one, depth = rest.pop()
        if isinstance(one, dict):
            for name in one:
                _check_text(name, f"A name in {where}", CHARACTERS)
        if isinstance(one, dict | list):
            left -= len(one)
            if left < 0 or depth == DEPTH:
                raise DocumentError(
                    f"There are more than {VALUES:,} values in {where}, or some nested more than {DEPTH} deep."
                )
            rest += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]
        elif isinstance(one, str):
            _check_text(one, f"A text in {where}", CHARACTERS)
        elif isinstance(one, float):
            if not math.isfinite(one):
                raise DocumentError(f"There is {one} in {where}, which is no number.")
        elif not (one is None or isinstance(one, bool) or values.is_whole(one, -(2**63), 2**63 - 1)):
            raise DocumentError(f"There is a value in {where} that JSON has not.")


def _check_name(name: Any, what: str) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise DocumentError(f"{what} is not made of 1 to 64 letters A to Z, digits, “-” and “_”.")


def _check_spacing(value: Any, what: str) -> None:
    _check_text(value, what, CHARACTERS)
    if has_words(value):
        raise DocumentError(f"{what} holds a letter or digit, which would belong to no sentence.")


def _check_text(value: Any, what: str, longest: int) -> None:
    if not isinstance(value, str):
        raise DocumentError(f"{what} is not text.")
    if len(value) > longest:
        raise DocumentError(f"{what} has {len(value):,} characters and at most {longest:,} will do; shorten it.")
    if "\0" in value:
        raise DocumentError(f"{what} holds a NUL character; take it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DocumentError(
            f"{what} holds half of a character (a lone surrogate); copy it again from where it came."
        ) from None


def _raise_for_twins(document: Document) -> None:
    first: dict[str, int] = {}
    for number, node in enumerate(document.nodes, 1):
        if node.id in first:
            raise DocumentError(
                f"Sentences {first[node.id]} and {number} have the same id, {node.id!r}; give each its own."
            )
        first[node.id] = number
