"""Acts that make sentences: from other concepts, from the map, by the concept model, in another language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import Progress

from .data import Data
from .looking import at_point

if TYPE_CHECKING:
    from ..tab import Tab


MOST = 100  # sentences that are asked for at once


def vary(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.vary(data.text("id"), data.number("amount"), data.whole("seed"))


def interpolate(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.interpolate(data.text("a"), data.text("b"), data.number("t"))


def blend(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.blend(data.texts("ids"), data.numbers("weights"))


def arithmetic(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.arithmetic(*data.texts("ids", 3))


def place(tab: Tab, data: Data, progress: Progress) -> None:
    point = (data.number("x"), data.number("y"))
    tab.session.editor.place(at_point(tab.session, data), data.whole("index"), point)


def regenerate(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.regenerate(data.texts("ids"), data.whole("seed"), progress)
    tell_kept(tab)


def continue_(tab: Tab, data: Data, progress: Progress) -> None:
    # The seed follows the document's length: going on again goes elsewhere, doing it over gives the same.
    tab.session.editor.continue_(min(data.whole("n"), MOST), len(tab.session.document.nodes), progress)
    tell_kept(tab)


def tell_kept(tab: Tab) -> None:
    """Say that a stopped act kept what it had written."""
    if tab.stopped:
        tab.notice = "Stopped; the sentences written so far are kept, and Undo takes them back."


def infill(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.infill(data.text("a"), data.text("b"), data.whole("seed"))


def model(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.write_with(data.text("model"))


def translate(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.translate(tab.session.lang, progress)
    tab.session.reading = None


def written_in(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.written_in(data.text("lang"), progress)
    tab.session.reading = None
