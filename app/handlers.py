"""Page event -> editor call -> page update."""

from __future__ import annotations

import base64
import html
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from engine import Document, Engine, Progress, concepts, formats
from engine.errors import Cancelled, ConceptscapeError, EditError, TextError
from engine.projection import DocumentMap
from engine.store import Store, Summary
from engine.text import from_bytes, guess

from . import view
from .session import ENCODED_AGAIN, Session, usual_language
from .work import follow

NO_WORDING = "No other wording was found that surely says the same."
LOST = "The page has lost its connection to the program; reload it."
SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
Data = Mapping[str, Any]  # what an event of the page carries


def samples() -> list[dict[str, str]]:
    return json.loads((SAMPLES / "index.json").read_text(encoding="utf-8"))


# Acts. Each changes the session's document; what it is called while it takes long stands beside it in ACTS.


def rewrite(session: Session, data: Data, progress: Progress) -> None:
    session.editor.rewrite(data["id"], data["text"], session.reading)


def insert(session: Session, data: Data, progress: Progress) -> None:
    session.editor.insert(int(data["index"]), data["text"], session.lang)


def delete(session: Session, data: Data, progress: Progress) -> None:
    session.editor.delete(data["ids"])


def move(session: Session, data: Data, progress: Progress) -> None:
    session.editor.move(data["ids"], int(data["index"]))


def split(session: Session, data: Data, progress: Progress) -> None:
    session.editor.split(data["id"], int(data["position"]))


def merge(session: Session, data: Data, progress: Progress) -> None:
    session.editor.merge(data["ids"])


def duplicate(session: Session, data: Data, progress: Progress) -> None:
    session.editor.duplicate(data["ids"])


def alternative(session: Session, data: Data, progress: Progress) -> None:
    session.editor.use_alternative(data["id"], data["text"])


def vary(session: Session, data: Data, progress: Progress) -> None:
    session.editor.vary(data["id"], float(data["amount"]), int(data["seed"]))


def interpolate(session: Session, data: Data, progress: Progress) -> None:
    session.editor.interpolate(data["a"], data["b"], float(data["t"]))


def blend(session: Session, data: Data, progress: Progress) -> None:
    session.editor.blend(data["ids"], data["weights"])


def arithmetic(session: Session, data: Data, progress: Progress) -> None:
    session.editor.arithmetic(*data["ids"])


def place(session: Session, data: Data, progress: Progress) -> None:
    point = (float(data["x"]), float(data["y"]))
    session.editor.place(at_point(session, data), int(data["index"]), point)


def regenerate(session: Session, data: Data, progress: Progress) -> None:
    session.editor.regenerate(data["ids"], int(data["seed"]), progress)


def continue_(session: Session, data: Data, progress: Progress) -> None:
    # The seed follows the document's length: going on again goes elsewhere, doing it over gives the same.
    session.editor.continue_(int(data["n"]), len(session.document.nodes), progress)


def infill(session: Session, data: Data, progress: Progress) -> None:
    session.editor.infill(data["a"], data["b"], int(data["seed"]))


def model(session: Session, data: Data, progress: Progress) -> None:
    session.write_with(data["model"])


def translate(session: Session, data: Data, progress: Progress) -> None:
    session.editor.translate(session.lang, progress)
    session.reading = None


def written_in(session: Session, data: Data, progress: Progress) -> None:
    session.editor.written_in(data["lang"], progress)
    session.reading = None


def rename(session: Session, data: Data, progress: Progress) -> None:
    session.editor.rename(data["title"])


def undo(session: Session, data: Data, progress: Progress) -> None:
    session.editor.undo()


def redo(session: Session, data: Data, progress: Progress) -> None:
    session.editor.redo()


# Acts that put another document on the page, or show this one differently. They store what they have to.


def read(session: Session, data: Data, progress: Progress) -> None:
    session.read(data["lang"], progress)


def save(session: Session, data: Data, progress: Progress) -> None:
    session.save("Save")


def copy(session: Session, data: Data, progress: Progress) -> None:
    session.copy()


def reopen(session: Session, data: Data, progress: Progress) -> None:
    session.reopen(session.document.id, progress)


def open_document(session: Session, data: Data, progress: Progress) -> None:
    session.open(data["id"], progress)


def open_sample(session: Session, data: Data, progress: Progress) -> None:
    sample = next(one for one in samples() if one["file"] == data["file"])
    body = from_bytes((SAMPLES / sample["file"]).read_bytes(), sample["file"])
    bring(session, session.engine.import_text(body, sample["lang"], sample["title"], progress))


def new(session: Session, data: Data, progress: Progress) -> None:
    lang = data["lang"] or session.document.lang
    session.engine.language(lang)
    bring(session, Document("Untitled", lang, session.engine.space.identity))


def import_text(session: Session, data: Data, progress: Progress) -> None:
    """A pasted text, or the bytes of a file in base64: UTF-8 text, or a document exported as JSON."""
    name = data.get("name")
    if "size" in data:
        raise TextError(f"{name} has {data['size']:,} bytes, more than one document can hold; split it into parts.")
    body = from_bytes(base64.b64decode(data["base64"]), name) if name else data["text"]
    if name and name.lower().endswith(".json"):
        exported = formats.from_json(body)
        document = session.engine.adopt(exported, progress)
        bring(session, document)
        if document is not exported:
            session.notice = ENCODED_AGAIN
    else:
        title = Path(name).stem if name else first_words(body)
        lang = data["lang"] or guess(body, session.engine.space.languages) or session.document.lang
        bring(session, session.engine.import_text(body, lang, title, progress))
        if not data["lang"]:
            session.notice = (
                f"Read as {session.engine.language(lang).english}. If that is not the language of this text, choose "
                "“Written in …” in the menu “Read in”."
            )


def first_words(body: str, length: int = 60) -> str:
    """The title of a text that has none."""
    lines = body.lstrip().splitlines()
    words = " ".join(lines[0].split()) if lines else ""
    return words if len(words) <= length else words[:length].rsplit(" ", 1)[0] + "…"


def bring(session: Session, document: Document) -> None:
    session.leave()
    session.show(document, session.store.save(document, "Import", None))


@dataclass(frozen=True)
class Act:
    do: Callable[[Session, Data, Progress], None]
    name: str  # shown with the progress
    edits: bool = True  # is one step of the document's history, to be stored


ACTS = {
    "rewrite": Act(rewrite, "Rewriting"),
    "insert": Act(insert, "Reading your words"),
    "delete": Act(delete, "Deleting"),
    "move": Act(move, "Moving"),
    "split": Act(split, "Splitting"),
    "merge": Act(merge, "Merging"),
    "duplicate": Act(duplicate, "Duplicating"),
    "alternative": Act(alternative, "Rewording"),
    "vary": Act(vary, "Varying"),
    "interpolate": Act(interpolate, "Interpolating"),
    "blend": Act(blend, "Blending"),
    "arithmetic": Act(arithmetic, "Reckoning"),
    "place": Act(place, "Decoding"),
    "regenerate": Act(regenerate, "Regenerating"),
    "continue": Act(continue_, "Continuing"),
    "infill": Act(infill, "Filling in"),
    "translate": Act(translate, "Translating"),
    "written": Act(written_in, "Reading the text again"),
    "rename": Act(rename, "Renaming"),
    "undo": Act(undo, "Undoing"),
    "redo": Act(redo, "Redoing"),
    "read": Act(read, "Translating", edits=False),
    "model": Act(model, "Loading the model", edits=False),
    "save": Act(save, "Saving", edits=False),
    "copy": Act(copy, "Copying", edits=False),
    "reopen": Act(reopen, "Opening", edits=False),
    "open": Act(open_document, "Opening", edits=False),
    "sample": Act(open_sample, "Reading the text", edits=False),
    "new": Act(new, "Opening", edits=False),
    "import": Act(import_text, "Reading the text", edits=False),
}


# Looks: what would be, without changing anything.


def at_point(session: Session, data: Data) -> np.ndarray:
    """The concept at a point of the map in use."""
    if data["frame"] != session.chart:
        raise EditError("The map has changed since; click it again.")
    return session.map.invert(np.array([[data["x"], data["y"]]], np.float32))[0]


def propose(session: Session, data: Data) -> dict[str, Any]:
    """The sentence of a concept that is not in the document, and where it lies."""
    nodes = session.document.node
    at = None
    if data["want"] == "between":
        vector = concepts.slerp(nodes(data["a"]).vector, nodes(data["b"]).vector, float(data["t"]))
    elif data["want"] == "blend":
        vector = concepts.blend(np.stack([nodes(i).vector for i in data["ids"]]), data["weights"])
    elif data["want"] == "arithmetic":
        vector = concepts.arithmetic(*(nodes(i).vector for i in data["ids"]))
    else:
        vector = at_point(session, data)
        at = [data["x"], data["y"]]
    at = at or [float(v) for v in session.map.project(vector[None])[0]]
    return {"text": session.editor.preview(vector, session.lang).text, "at": at}


def answer(session: Session, data: Data) -> dict[str, Any]:
    if data["want"] == "alternatives":
        texts = session.editor.alternatives(data["id"], int(data["n"]), int(data["seed"]))
        return {"texts": texts} if texts else {"texts": [], "refused": NO_WORDING}
    return propose(session, data)


# Events


def tell(error: Exception) -> None:
    """One sentence at the foot of the page; what nobody expected also goes to the terminal, in full."""
    if isinstance(error, Cancelled):
        gr.Info(str(error), duration=4)
    elif isinstance(error, ConceptscapeError):
        gr.Warning(html.escape(str(error), quote=False), duration=10)
    else:
        traceback.print_exception(error, file=sys.stderr)
        gr.Warning("Something went wrong and the document was left as it is; the terminal says more.", duration=10)


def notify(session: Session) -> None:
    if session.notice:
        gr.Info(session.notice, duration=10)
        session.notice = ""


class Handlers:
    """The events of the page, for one engine and one database."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self.engine = engine
        self.store = store

    def arrive(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """A tab opens: the document in its address, else the last one worked on, else the first sample.

        Yields (session, bar, list, map).
        """
        session = Session(self.engine, self.store)

        def begin(progress: Progress) -> None:
            wanted = request.query_params.get("doc")
            known = self.known()
            found = [one.id for one in known if one.id == wanted] or [one.id for one in known]
            if found:
                session.open(found[0], progress)
            else:
                open_sample(session, {"file": samples()[0]["file"]}, progress)

        try:
            for done, total in follow(begin, session.stop):
                yield session, view.bar(session, 0, ("Reading the text", done, total)), gr.skip(), gr.skip()
        except Exception as error:
            tell(error)
        notify(session)
        yield session, view.bar(session, 0), view.concept_list(session, 0), view.concept_map(session)

    def act(self, session: Session | None, event: gr.EventData) -> Iterator[tuple[Any, ...]]:
        """Change the document, store it, and show it. Yields (bar, list, map)."""
        data: Data = event._data
        number = int(data["number"])
        if session is None:
            gr.Warning(LOST)
            return
        download = None
        select = data.get("then") and [data["then"]]
        before = session.document
        if not session.busy.acquire(timeout=5):
            gr.Warning("Something is still running here; wait for it, or press Stop.")
            return
        try:
            session.stop.clear()
            if data["act"] == "export":
                download = self.export(session, data["format"])
            else:
                act = ACTS[data["act"]]
                for done, total in follow(lambda progress: self.perform(session, act, data, progress), session.stop):
                    yield view.bar(session, number - 1, (act.name, done, total)), gr.skip(), gr.skip()
        except Exception as error:
            tell(error)
        finally:
            session.busy.release()
        notify(session)
        if before.id != session.document.id:
            select = []
        elif before is not session.document:
            old = {node.id for node in before.nodes}
            select = [node.id for node in session.document.nodes if node.id not in old] or select
        shown = view.concept_list(session, number, select or None)
        yield view.bar(session, number, download=download), shown, view.concept_map(session)

    @staticmethod
    def perform(session: Session, act: Act, data: Data, progress: Progress) -> None:
        undone = {"undo": f"Undo {session.editor.undo_label}", "redo": f"Redo {session.editor.redo_label}"}
        act.do(session, data, progress)
        if act.edits:
            session.save(undone.get(data["act"], session.editor.undo_label))
        session.sentences()  # decodes what is new, here rather than while the page waits

    @staticmethod
    def export(session: Session, form: str) -> view.Json:
        document = session.document
        kind, extension, text = {
            "text": lambda: ("text/plain", "txt", formats.to_text(document)),
            "reading": lambda: ("text/plain", f"{session.lang}.txt", formats.to_text(document, session.sentences())),
            "markdown": lambda: ("text/markdown", "md", formats.to_markdown(document, session.sentences())),
            "json": lambda: ("application/json", "json", formats.to_json(document)),
        }[form]()
        return {"name": view.file_name(document, extension), "type": f"{kind};charset=utf-8", "text": text}

    def look(self, session: Session | None, event: gr.EventData) -> dict[str, Any]:
        """Answer a question of the inspector; every question gets an answer, since the next one waits for it."""
        data: Data = event._data
        try:
            answered = answer(session, data) if session else {"refused": LOST}
        except ConceptscapeError as error:
            answered = {"refused": str(error)}
        except Exception as error:
            tell(error)
            answered = {"refused": "This could not be worked out."}
        return {"key": data["key"], **answered}

    def library(self, session: Session | None) -> view.Json:
        """What can be opened."""
        known: list[Summary] = []
        try:
            known = self.store.documents()
        except Exception as error:
            tell(error)
        lang = session.document.lang if session else usual_language(self.engine)
        return view.library(self.engine, known, samples(), lang)

    def known(self) -> list[Summary]:
        """The documents of this space; those from other weights of it are encoded again when they are opened, those
        of other spaces when they are asked for."""
        return [one for one in self.store.documents() if one.space.split()[0] == self.engine.space.name]

    def stop(self, session: Session | None) -> None:
        if session:
            session.stop.set()

    def chart(self, session: Session | None, event: gr.EventData) -> Iterator[Any]:
        """Switch between the landscape and the document's own map, which is fitted first. Yields the map."""
        frame = event._data["frame"]
        if session is None:
            return
        if frame == "stop":
            session.stop_fit.set()
            return
        if frame == session.usual_chart or (session.own_map and session.chart != "document"):
            session.chart = frame
            yield view.concept_map(session)
            return
        if session.fitting:
            return
        document = session.document
        session.fitting = (0, 0)
        session.stop_fit.clear()
        try:
            fit = follow(lambda progress: DocumentMap.fit(document.vectors, progress=progress), session.stop_fit)
            while True:
                try:
                    session.fitting = next(fit)
                except StopIteration as end:
                    if session.document.id == document.id:
                        session.keep_map(end.value, document.nodes)
                    break
                if session.stop_fit.is_set():  # umap-learn can't be interrupted: leave it to end by itself, unheard
                    raise Cancelled
                yield view.concept_map(session)
        except Exception as error:
            tell(error)
        finally:
            session.fitting = None
        yield view.concept_map(session)
