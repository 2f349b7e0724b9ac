"""Acts on whole documents: to open, bring in, keep, show differently and take away. They store what they have to."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from engine import Document, Progress, formats
from engine.errors import Cancelled, ConceptscapeError, MovedError, TextError
from engine.text import from_bytes, guess

from .. import view
from ..session import Session, usual_language
from .data import Data, RequestError

if TYPE_CHECKING:
    from ..tab import Tab

ENCODED_AGAIN = (
    "This document was made with another concept space or version of it, so its sentences were encoded again; "
    "their places on the map may differ."
)
ELSEWHERE = threading.Lock()  # of several tabs the first one makes the new database, and the others go on in it
SAMPLES = Path(__file__).parents[2] / "assets" / "samples"


def samples() -> list[dict[str, str]]:
    return json.loads((SAMPLES / "index.json").read_text(encoding="utf-8"))


# Opening


def arrive(tab: Tab, data: Data, progress: Progress) -> None:
    """A tab opens: the document in its address, else the last one worked on, else the first sample.

    One that can't be shown is passed over, so that no document locks the page; the library lists it as such.
    """
    wanted = data.maybe("document")
    for one in sorted(tab.known(), key=lambda one: one.id != wanted):  # the wanted one first, the others as they are
        try:
            return open_anew(tab, one.id, progress)
        except ConceptscapeError as error:
            tab.notice = f"“{one.title[:80]}” can't be shown, so another document was opened ({error})"
    bring_sample(tab, samples()[0], progress)


def show(tab: Tab, data: Data, progress: Progress) -> None:
    """Nothing but the page as it is, after the program was restarted."""


def open_stored(tab: Tab, data: Data, progress: Progress) -> None:
    leave(tab)
    open_anew(tab, data.text("document"), progress)


def reopen(tab: Tab, data: Data, progress: Progress) -> None:
    """Show what is stored, in place of this tab's changes."""
    open_anew(tab, data.text("document"), progress)


def open_anew(tab: Tab, document: str, progress: Progress) -> None:
    """Show a stored document. One that can't be shown is known as such from then on, and the tab is as it was."""
    try:
        session = Session.of(tab.engine, tab.store, document, progress, model=tab.model)
        tab.check(session)
    except Cancelled:
        raise
    except ConceptscapeError as error:
        tab.faults[document] = str(error)
        raise
    tab.show(session)
    tab.faults.pop(document, None)
    if session.encoded_again:
        tab.notice = ENCODED_AGAIN


def leave(tab: Tab) -> None:
    """Raise EditError where another document would push out changes that are not stored."""
    if tab.opened:
        tab.opened.leave()


# Bringing in


def open_sample(tab: Tab, data: Data, progress: Progress) -> None:
    found = [one for one in samples() if one["file"] == data.text("file")]
    if not found:
        raise RequestError("That sample is not there; reload the page.")
    bring_sample(tab, found[0], progress)


def bring_sample(tab: Tab, sample: dict[str, str], progress: Progress) -> None:
    body = from_bytes((SAMPLES / sample["file"]).read_bytes(), sample["file"])
    bring(tab, tab.engine.import_text(body, sample["lang"], sample["title"], progress))


def new(tab: Tab, data: Data, progress: Progress) -> None:
    lang = data.maybe("lang") or own_language(tab)
    tab.engine.language(lang)
    bring(tab, Document("Untitled", lang, tab.engine.space.identity))


def import_text(tab: Tab, data: Data, progress: Progress) -> None:
    """A pasted text, or the bytes of a file in base64: UTF-8 text, or a document exported as JSON."""
    name = data.maybe("name")
    if "size" in data:
        raise TextError(
            f"{name} has {data.whole('size'):,} bytes, more than one document can hold; split it into parts."
        )
    body = from_bytes(file_bytes(data), name) if name else data.text("text")
    if name and name.lower().endswith(".json"):
        exported = formats.from_json(body)
        document = tab.engine.adopt(exported, progress)
        bring(tab, document)
        if document is not exported:
            tab.notice = ENCODED_AGAIN
        return
    title = data.maybe("title") or (Path(name).stem if name else first_words(body))
    lang = data.maybe("lang")
    read_as = lang or guess(body, tab.engine.space.languages) or own_language(tab)
    bring(tab, tab.engine.import_text(body, read_as, title, progress))
    if not lang:
        tab.notice = (
            f"Read as {tab.engine.language(read_as).english}. If that is not the language of this text, choose "
            "“Written in …” in the menu “Read in”."
        )


def file_bytes(data: Data) -> bytes:
    try:
        return base64.b64decode(data.text("base64"), validate=True)
    except binascii.Error:
        raise RequestError("The file arrived damaged; choose it again.") from None


def first_words(body: str, length: int = 60) -> str:
    """The title of a text that has none."""
    lines = body.lstrip().splitlines()
    words = " ".join(lines[0].split()) if lines else ""
    return words if len(words) <= length else words[:length].rsplit(" ", 1)[0] + "…"


def own_language(tab: Tab) -> str:
    return tab.opened.document.lang if tab.opened else usual_language(tab.engine)


def bring(tab: Tab, document: Document) -> None:
    """Show a new document and store it; one that can't be shown is not stored."""
    leave(tab)
    session = Session(tab.engine, tab.store, document, None, tab.model)
    tab.check(session)
    session.save("Import", step="same", act=tab.act)
    tab.show(session)


# Keeping


def save(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.retry()


def save_elsewhere(tab: Tab, data: Data, progress: Progress) -> None:
    with ELSEWHERE:
        try:
            tab.session.retry()
        except MovedError:
            tab.store.save_elsewhere()
            tab.session.retry()
    tab.notice = f"Everything is in {tab.store.path} now; start the program with --db and this name to find it again."


def copy(tab: Tab, data: Data, progress: Progress) -> None:
    tab.show(tab.session.copy(tab.act))


def remove(tab: Tab, data: Data, progress: Progress) -> None:
    """Delete a document that can't be shown, after seeing once more that it can't: a disk or a lock may have passed."""
    wanted = data.text("document")
    try:
        tab.check(Session.of(tab.engine, tab.store, wanted, progress))
    except Cancelled:
        raise
    except ConceptscapeError:
        tab.store.delete(wanted)
        tab.faults.pop(wanted, None)
    else:
        tab.faults.pop(wanted, None)
        raise RequestError("That document can be shown after all, so it was not deleted; open it.")


# Showing differently, taking away


def read(tab: Tab, data: Data, progress: Progress) -> None:
    try:
        tab.session.read(data.maybe("lang"), progress)
    except Cancelled:
        raise Cancelled("what was translated so far is kept for the next time") from None


def export(tab: Tab, data: Data, progress: Progress) -> None:
    session, form = tab.session, data.text("format")
    document = session.document
    if form == "text":
        tab.download = view.download(document, "txt", formats.to_text(document))
    elif form == "reading":
        tab.download = view.download(document, f"{session.lang}.txt", formats.to_text(document, session.sentences()))
    elif form == "markdown":
        tab.download = view.download(document, "md", formats.to_markdown(document, session.sentences()))
    elif form == "json":
        tab.download = view.download(document, "json", formats.to_json(document))
    else:
        raise RequestError("There is no such format; reload the page.")


def salvage(tab: Tab, data: Data, progress: Progress) -> None:
    """Export what can be read of a document that can't be shown."""
    found = [one for one in tab.store.documents() if one.id == data.text("document")]
    text = tab.store.readable(found[0].id) if found else ""
    if not text:
        raise TextError("Nothing of that document can be read.")
    tab.download = view.download(found[0], "txt", text)
