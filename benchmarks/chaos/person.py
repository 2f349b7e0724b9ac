"""What a person does in a tab: the next act, chosen by what the page shows."""

from __future__ import annotations

from collections.abc import Callable

from .client import Client
from .space import SLOW


def go_on(tab: Client) -> None:
    """One act."""
    draw = tab.random.random()
    if tab.lost:
        rescue(tab)
    elif not tab.bar:
        tab.act("arrive")
    elif tab.bar["conflict"] and draw < 0.7:
        decide(tab)
    elif tab.bar["moved"] and draw < 0.6:
        tab.act("elsewhere")
    elif not tab.bar["saved"] and draw < 0.4:
        tab.act("save")
    else:
        names = list(EDITS)
        name = tab.random.choices(names, [EDITS[one][0] for one in names])[0]
        EDITS[name][1](tab)


def rescue(tab: Client) -> None:
    """What the banner of a lost page offers."""
    text = " ".join(node["text"] for node in tab.nodes)
    if tab.random.random() < 0.5 and text:
        tab.act("import", text=text, title=tab.bar["title"], lang="eng_Latn")
    elif tab.random.random() < 0.7 and tab.bar:
        tab.act("reopen", document=tab.bar["document"])
    else:
        tab.act("new", lang="eng_Latn")


def decide(tab: Client) -> None:
    if tab.random.random() < 0.5:
        tab.act("copy")
    else:
        tab.act("reopen", document=tab.bar["document"])


def settle(tab: Client) -> bool:
    """Bring a tab to where everything is saved, by what the page offers for it. Whether that was possible."""
    for _ in range(8):
        if tab.settled:
            return True
        if tab.lost:
            rescue(tab)
        elif tab.bar["conflict"]:
            decide(tab)
        else:
            tab.act("elsewhere" if tab.bar["moved"] else "save")
    return False


def named(tab: Client) -> str:
    """What is said in one act only."""
    return f"Sentence {tab.number + 1} of tab {tab.letter}"


def insert(tab: Client) -> None:
    words = f"{named(tab)} was written here."
    tab.act("insert", words=words, index=tab.random.randint(0, len(tab.nodes)), text=words)


def some(tab: Client, most: int = 3) -> list[str]:
    """The ids of a few neighbouring sentences."""
    first = tab.random.randrange(len(tab.ids))
    return tab.ids[first : first + tab.random.randint(1, most)]


def with_some(do: Callable[[Client, list[str]], object]) -> Callable[[Client], None]:
    def doing(tab: Client) -> None:
        if tab.ids:
            do(tab, some(tab))
        else:
            insert(tab)

    return doing


def long_text(tab: Client) -> None:
    words = [f"Number {i} walked {SLOW} home." for i in range(tab.random.randint(2, 40))]
    if tab.random.random() < 0.5:
        tab.stop_soon()
    tab.act("import", text=" ".join(words), lang="eng_Latn")


def library(tab: Client) -> None:
    """Open what is there; the other tab's document is among it."""
    documents = tab.look("library").get("documents", [])
    if documents and not tab.lost:
        tab.act("open", document=tab.random.choice(documents[:3])["id"])


def leave(tab: Client) -> None:
    tab.forget()
    tab.act("show")


def split(tab: Client, ids: list[str]) -> None:
    text = next(node["own"] for node in tab.nodes if node["id"] == ids[0])
    tab.act("split", id=ids[0], position=tab.random.randint(1, len(text)))


EDITS: dict[str, tuple[float, Callable[[Client], object]]] = {
    "insert": (30, insert),
    "rewrite": (8, with_some(lambda t, ids: t.act("rewrite", id=ids[0], text=f"{named(t)} is new."))),
    "move": (10, with_some(lambda t, ids: t.act("move", ids=ids, index=t.random.randint(0, len(t.ids))))),
    "delete": (8, with_some(lambda t, ids: t.act("delete", ids=ids))),
    "duplicate": (3, with_some(lambda t, ids: t.act("duplicate", ids=ids))),
    "merge": (3, with_some(lambda t, ids: t.act("merge", ids=ids))),
    "split": (4, with_some(split)),
    "vary": (3, with_some(lambda t, ids: t.act("vary", id=ids[0], amount=0.5, seed=t.number))),
    "undo": (16, lambda t: t.act("undo")),
    "redo": (9, lambda t: t.act("redo")),
    "rename": (4, lambda t: t.act("rename", title=f"{named(t)}")),
    "read": (2, lambda t: t.act("read", lang=t.random.choice(["deu_Latn", None]))),
    "translate": (1, lambda t: t.act("translate")),
    "export": (1, lambda t: t.act("export", format="text")),
    "long text": (2, long_text),
    "library": (6, library),
    "leave": (2, leave),
    "copy": (1, lambda t: t.act("copy")),
    "new": (1, lambda t: t.act("new", lang="eng_Latn")),
    "sample": (1, lambda t: t.act("sample", file="how-ant-saved-dove.txt")),
}
