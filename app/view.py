"""What the page shows of a session: plain JSON values, one function for each part of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from engine import ConceptNode, Document, Engine
from engine.lcm import KINDS
from engine.projection import FEWEST, SCALES, Landscape
from engine.spaces.builtin import ASSETS
from engine.spaces.languages import LANGUAGES
from engine.store import Summary

from .session import Session

Json = dict[str, Any]

ABILITIES = ASSETS / "abilities.json"
FAINT_POINTS = 1500  # references drawn on a map whose references have no text


def parts(session: Session) -> tuple[Json, list[Exception]]:
    """What each part of the page shows, and what was raised by those that can't show it."""
    shown: Json = {}
    wrong: list[Exception] = []
    for name, draw in (("bar", bar), ("list", concept_list), ("map", concept_map)):
        try:
            shown[name] = draw(session)
        except Exception as error:  # the other parts are shown all the same
            wrong.append(error)
    return shown, wrong


def bar(session: Session) -> Json:
    editor = session.editor
    return {
        "document": session.document.id,
        "title": session.document.title,
        "revision": session.revision,
        "stored": session.stored,
        "saved": session.saved,
        "unsaved": session.unsaved,
        "moved": session.moved,
        "undo": editor.undo_label,
        "redo": editor.redo_label,
        "reading": session.reading,
        "languages": languages(session.engine),
        "written": session.document.lang,
        "no_model": session.engine.lacks_model,
        "model": session.model,
        "conflict": session.conflict,
    }


def abilities(engine: Engine) -> Json:
    """What the space and its models get right, as counted by reading: `assets/abilities.json`."""
    if engine.space.name != "builtin":
        return {
            "about": f"Nothing has been counted yet of what the {engine.space.name} space and its models get right."
        }
    return json.loads(ABILITIES.read_text(encoding="utf-8"))


def languages(engine: Engine) -> list[tuple[str, str, str]]:
    """Each language's code, its name in itself, and in English."""
    return [(code, language.own, language.english) for code, language in engine.space.languages.items()]


def concept_list(session: Session) -> Json:
    """The document as the list shows it."""
    document, shown = session.document, session.sentences()
    places = {node.id: i + 1 for i, node in enumerate(document.nodes)}
    nodes: list[Json] = []
    for node, words in zip(document.nodes, shown, strict=True):
        decoded = session.reading is not None and node.lang != session.reading
        tongue = session.engine.language(node.lang).english if node.lang != document.lang else ""
        mark, origin = provenance(node, places)
        nodes.append(
            {
                "id": node.id,
                "text": words,
                "own": node.text,
                "html_lang": web_language(session.reading if decoded and session.reading else node.lang),
                "decoded": decoded,
                "tag": f"from {tongue}" if decoded and tongue else tongue,
                "kind": node.provenance.kind,
                "mark": mark,
                "origin": origin,
                "parents": [p for p in node.provenance.parents if p in places and p != node.id],
                "paragraph": "\n" in node.after,
            }
        )
    reading = None
    if session.reading:
        name = session.engine.language(session.reading).english
        reading = {"name": name, "decoded": sum(node["decoded"] for node in nodes)}
    return {
        "document": document.id,
        "nodes": nodes,
        "reading": reading,
        **models(session),
    }


def models(session: Session) -> Json:
    """The kinds of concept model that can write, by name and title, and the one that does."""
    kinds = session.engine.models
    return {"models": [(kind, KINDS[kind].title) for kind in kinds], "model": session.model or next(iter(kinds), "")}


def web_language(code: str) -> str:
    return LANGUAGES[code].tag if code in LANGUAGES else code[:3]


def provenance(node: ConceptNode, places: Mapping[str, int]) -> tuple[str, str]:
    """A few words and one sentence on where a node came from; parents go by their present number."""
    origin = node.provenance
    names = [str(places[p]) if p in places else "a deleted one" for p in origin.parents]
    values = origin.parameters
    before = f" It was: “{values['from']}”" if values.get("from") else ""
    seed = f" (seed {origin.seed})" if origin.seed is not None else ""
    if origin.operation == "interpolate" and len(names) == 2:
        share = round(100 * float(values.get("t", 0.5)))
        return f"between {names[0]} and {names[1]}", f"Lies {share} % of the way from {names[0]} to {names[1]}."
    if origin.operation == "blend":
        weights = [f"{n} × {float(w):.2g}" for n, w in zip(names, values.get("weights", []), strict=False)]
        return f"blend of {' + '.join(names)}", f"Blended from {', '.join(weights)}."
    if origin.operation == "arithmetic" and len(names) == 3:
        return "{} − {} + {}".format(*names), "The meaning of {}, less that of {}, plus that of {}.".format(*names)
    said = {
        "import": ("", "Written by the author."),
        "insert": ("", "Written here."),
        "rewrite": ("rewritten", f"Rewritten here.{before}"),
        "split": ("split", "One part of a longer sentence."),
        "merge": ("merged", "Joined from several sentences."),
        "alternative": ("other words", f"The same meaning in other words.{before}"),
        "vary": ("varied", f"A variation{seed}.{before}"),
        "place": ("from the map", "Decoded from a point of the map."),
        "regenerate": ("regenerated", f"Said anew by the model from what stands before it{seed}.{before}"),
        "continue": ("continued", f"Written by the model as a continuation{seed}."),
        "infill": ("filled in", f"Written by the model to lead from {' to '.join(names)}{seed}."),
        "translate": ("translated", f"Decoded into this language.{before}"),
        "duplicate": ("copy", f"A copy of {names[0] if names else 'a sentence'}."),
    }
    return said.get(origin.operation, (origin.operation, f"Made by {origin.operation}."))


def concept_map(session: Session) -> Json:
    made = [node.provenance.kind not in ("written", "edited") for node in session.document.nodes]
    return {
        "document": session.document.id,
        "frame": session.chart,
        "enough": len(made) >= FEWEST,
        "nodes": [
            {"id": node.id, "x": round(float(x), 5), "y": round(float(y), 5), "made": own}
            for node, (x, y), own in zip(session.document.nodes, session.places(), made, strict=True)
        ],
    }


def landscape(land: Landscape) -> Json:
    """What never changes about the map; the page asks for it once.

    References come in random order, so that the page can draw the first of them only. Where they have no text, a
    sample of their places is all that is sent.
    """

    def numbers(values: np.ndarray) -> Any:
        return np.round(values.astype(float), 4).tolist()

    chosen = np.random.default_rng(0).permutation(len(land.coordinates))
    said: Json = {}
    if land.references:
        sources = sorted({(one.source.credit, one.source.licence) for one in land.references})
        row = {source: i for i, source in enumerate(sources)}
        tongues = sorted({web_language(code) for code in land.languages})
        shown = [land.references[i] for i in chosen]
        said = {
            "texts": [one.text for one in shown],
            "sources": sources,
            "source": [row[one.source.credit, one.source.licence] for one in shown],
            "languages": tongues,
            "language": [tongues.index(web_language(land.languages[i])) for i in chosen],
        }
    else:
        chosen = chosen[:FAINT_POINTS]
    points = land.coordinates[chosen]
    return {
        "density": {axis: numbers(getattr(land.density, axis)) for axis in "xyz"},
        "x": numbers(points[:, 0]),
        "y": numbers(points[:, 1]),
        "labels": [(float(label.x), float(label.y), label.text, label.level) for label in land.labels],
        "scales": SCALES,
        **said,
    }


def library(
    engine: Engine,
    documents: Sequence[Summary],
    samples: Sequence[Mapping[str, str]],
    lang: str,
    faults: Mapping[str, str] = MappingProxyType({}),
) -> Json:
    """What can be opened; `faults` are the documents that can't be shown, and why."""

    def own(code: str) -> str:
        return LANGUAGES[code].english if code in LANGUAGES else code

    return {
        "documents": [
            {
                "id": one.id,
                "title": one.title,
                "about": f"{own(one.lang)}, {count(one.sentences, 'sentence')}, {ago(one.updated)}",
                "fault": faults.get(one.id, ""),
                "other": "" if one.space.split()[0] == engine.space.name else one.space.split()[0],
            }
            for one in documents
        ],
        "samples": [
            {"file": one["file"], "title": one["title"], "about": f"{own(one['lang'])}. {one['author']}"}
            for one in samples
        ],
        "languages": languages(engine),
        "lang": lang,
    }


def count(n: int, one: str) -> str:
    return f"{n:,} {one}{'' if n == 1 else 's'}"


def ago(when: datetime) -> str:
    seconds = (datetime.now(UTC) - when).total_seconds()
    if seconds < 60:
        return "just now"
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{count(int(seconds // length), unit)} ago"
    return ""


def download(document: Document | Summary, extension: str, text: str) -> Json:
    """A file for the browser to keep."""
    kinds = {"md": "text/markdown", "json": "application/json"}
    kind = kinds.get(extension, "text/plain")
    return {"name": file_name(document.title, extension), "type": f"{kind};charset=utf-8", "text": text}


def file_name(title: str, extension: str) -> str:
    """The title as a file name that every system takes."""
    kept = "".join(c if c.isalnum() or c in " -_" else " " for c in title)
    return f"{'-'.join(kept.split())[:80].strip('-') or 'document'}.{extension}"
