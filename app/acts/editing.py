"""Acts on sentences that need no model but the space's own: words, order, undo and redo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import Progress

from .data import Data

if TYPE_CHECKING:
    from ..tab import Tab


def rewrite(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.rewrite(data.text("id"), data.text("text"), tab.session.reading)


def insert(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.insert(data.whole("index"), data.text("text"), tab.session.lang)


def delete(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.delete(data.texts("ids"))


def move(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.move(data.texts("ids"), data.whole("index"))


def split(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.split(data.text("id"), data.whole("position"))


def merge(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.merge(data.texts("ids"))


def duplicate(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.duplicate(data.texts("ids"))


def alternative(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.use_alternative(data.text("id"), data.text("text"))


def rename(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.rename(data.text("title"))


def undo(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.undo()


def redo(tab: Tab, data: Data, progress: Progress) -> None:
    tab.session.editor.redo()
