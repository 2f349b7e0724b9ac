"""What would be: questions that the inspector asks, which change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import concepts
from engine.errors import EditError

from ..session import Session
from .data import Data, RequestError

NO_WORDING = "No other wording was found that surely says the same."


def at_point(session: Session, data: Data) -> np.ndarray:
    """The concept at a point of the map in use."""
    if data.text("frame") != session.chart:
        raise EditError("The map has changed since; click it again.")
    return session.map.invert(np.array([[data.number("x"), data.number("y")]], np.float32))[0]


def propose(session: Session, data: Data) -> dict[str, Any]:
    """The sentence of a concept that is not in the document, and where it lies."""
    nodes = session.document.node
    at = None
    want = data.text("want")
    if want == "between":
        a, b = nodes(data.text("a")), nodes(data.text("b"))
        vector = concepts.slerp(a.vector, b.vector, data.number("t"))
    elif want == "blend":
        ids = data.texts("ids")
        session.document.indices(ids)  # raises where there are none
        vector = concepts.blend(np.stack([nodes(i).vector for i in ids]), data.numbers("weights"))
    elif want == "arithmetic":
        vector = concepts.arithmetic(*(nodes(i).vector for i in data.texts("ids", 3)))
    elif want == "place":
        vector = at_point(session, data)
        at = [data.number("x"), data.number("y")]
    else:
        raise RequestError("The page asked for something that this version does not know; reload it.")
    at = at or [float(v) for v in session.map.project(vector[None])[0]]
    return {"text": session.editor.preview(vector, session.lang).text, "at": at}


def answer(session: Session, data: Data) -> dict[str, Any]:
    if data.text("want") == "alternatives":
        texts = session.editor.alternatives(data.text("id"), min(data.whole("n"), 10), data.whole("seed"))
        return {"texts": texts} if texts else {"texts": [], "refused": NO_WORDING}
    return propose(session, data)
