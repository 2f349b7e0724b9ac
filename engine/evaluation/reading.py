"""Sentences for people to judge: what every function makes of unseen documents, in a sheet that names no source.

A person writes a mark under `grammatical` and `sensible` of each row; what made the row stands in a key of its own,
which only the count reads.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import Engine, values
from ..document import ConceptNode, Document
from ..editor import Editor
from ..errors import CorpusError, EditError, LanguageError, SheetError, TextError, VectorError
from ..spaces import Progress
from ..text import from_bytes, has_words
from ..training.corpus import LANGUAGES, records
from .pairs import language_codes
from .scores import percent

COLUMNS = ("row", "context", "task", "sentence", "grammatical", "sensible")
ORIGIN = ("function", "model", "source", "target")  # what a key says of each row, beside its seed
MARKS = {"y": True, "1": True, "n": False, "0": False, "": None}
SENTENCES = 3  # that a document must have: one on each side of a gap
SHOWN = 6  # sentences of context on a side, of however many the function reads
GAP = "[ gap ]"
AMOUNT = 0.35  # where the page's slider for "vary" stands at first
WORDINGS = 4  # that the page asks for
GUARDED = tuple("=+-@\t\r")  # a cell that begins so is a formula to a spreadsheet


@dataclass(frozen=True)
class Origin:
    """What makes rows: a function, and where there are several of it, the concept model or the languages."""

    function: str
    model: str = ""
    source: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        if self.function == "continue":
            return f"continue, {self.model}"
        if self.function == "translate":
            return f"translate, {self.source} to {self.target}"
        return self.function


@dataclass(frozen=True)
class Made:
    """A sentence and what a person needs to judge it."""

    context: str
    task: str
    sentence: str


@dataclass(frozen=True)
class Sheet:
    """The rows, shuffled, and what made them: `key` is plain values, ready for JSON."""

    rows: list[tuple[str, Made]]  # with their ids
    key: dict[str, Any]

    def to_csv(self) -> bytes:
        """The sheet as CSV: UTF-8 with the mark by which spreadsheets know it, every cell in quotes."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for row, made in self.rows:
            writer.writerow([row, guarded(made.context), made.task, guarded(made.sentence), "", ""])
        return buffer.getvalue().encode("utf-8-sig")

    def key_json(self) -> bytes:
        return (json.dumps(self.key, indent=1, ensure_ascii=False) + "\n").encode()


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: where it begins with =, +, -, @, a tab or a carriage return, an
    apostrophe comes in front.

    Where apostrophes stand in front of such a sign already they get one more, so the text can be had again: one less
    wherever a sign comes after apostrophes.
    """
    return "'" + cell if cell.lstrip("'").startswith(GUARDED) else cell


def read_documents(path: Path, languages: Collection[str]) -> list[tuple[str, str]]:
    """(language, text) of a file with a document a line: those for validation, or where there are none, all but those
    for training.

    Raises CorpusError for a line that is not a document (see `docs/training.md`), and where none is of use.
    """
    codes = language_codes(languages)
    found = [(split, (codes[lang], text)) for lang, split, text, _ in records(path) if lang in codes]
    held = [document for split, document in found if split == "valid"]
    held = held or [document for split, document in found if split != "train"]
    if not held:
        raise CorpusError(f"{path.name} holds no document that is not for training; choose another file.")
    return held


class Shelf:
    """Documents that open when they are first needed, as they do on the page."""

    def __init__(self, engine: Engine, documents: Sequence[tuple[str, str]]) -> None:
        self.engine, self.documents = engine, documents
        self._open: dict[int, Document | None] = {}

    def open(self, number: int) -> Document | None:
        """A document; None where it can't be read as its language, or is too short."""
        if number not in self._open:
            lang, body = self.documents[number]
            try:
                document = self.engine.import_text(body, lang)
            except (TextError, LanguageError):
                self._open[number] = None
            else:
                self._open[number] = document if len(document.nodes) >= SENTENCES else None
        return self._open[number]

    def draw(self, rng: random.Random, lang: str = "") -> Iterator[Document]:
        """Documents of a language (empty: of any) in a drawn order, again and again; none where none is of use."""
        order = [i for i, (own, _) in enumerate(self.documents) if lang in ("", own)]
        rng.shuffle(order)
        while True:
            found = False
            for number in order:
                document = self.open(number)
                if document is not None:
                    found = True
                    yield document
            if not found:
                return


# Functions. Each draws a place in a document and calls what the page calls there; None where nothing new comes of it.

Function = Callable[[Engine, Document, random.Random, Origin], Made | None]


def go_on(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    place = rng.randint(2, len(document.nodes) - 1)
    before = replace(document, nodes=document.nodes[:place])
    after = Editor(engine, before, origin.model).continue_(1, some_seed(rng))
    return Made(passage(before.nodes), "goes on", after.nodes[-1].text)


def regenerate(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    place = rng.randint(2, len(document.nodes) - 1)
    new = Editor(engine, document, origin.model).regenerate([document.nodes[place].id], some_seed(rng)).nodes[place]
    if new is document.nodes[place]:  # where the model came up with no words
        return None
    return Made(passage(document.nodes[:place]), "goes on", new.text)


def fill_in(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    place = rng.randint(1, len(document.nodes) - 2)
    before, after = document.nodes[:place], document.nodes[place + 1 :]
    editor = Editor(engine, replace(document, nodes=before + after), origin.model)
    new = editor.infill(before[-1].id, after[0].id, some_seed(rng)).nodes[place]
    return Made(f"{passage(before)} {GAP} {opening(after)}", "stands in the gap", new.text)


def midpoint(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    a, b = (document.nodes[i] for i in sorted(rng.sample(range(len(document.nodes)), 2)))
    words = Editor(engine, document).preview_interpolation(a.id, b.id, 0.5, document.lang).text
    if words in (a.text, b.text):
        return None
    return Made(f"{line(a.text)}\n{line(b.text)}", "lies between the two", words)


def vary(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    node = rng.choice(document.nodes)
    words = Editor(engine, document).vary(node.id, AMOUNT, some_seed(rng)).node(node.id).text
    return None if words == node.text else Made(line(node.text), "varies it", words)


def other_wordings(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    node = rng.choice(document.nodes)
    found = Editor(engine, document).alternatives(node.id, WORDINGS, some_seed(rng))
    return Made(line(node.text), "another wording of the same", rng.choice(found)) if found else None


def translate(engine: Engine, document: Document, rng: random.Random, origin: Origin) -> Made | None:
    node = rng.choice(document.nodes)
    words = engine.read(replace(document, nodes=(node,)), origin.target)[0]
    if not has_words(words):
        return None
    return Made(line(node.text), f"says the same in {engine.language(origin.target).english}", words)


FUNCTIONS: dict[str, Function] = {
    "continue": go_on,
    "regenerate": regenerate,
    "fill in": fill_in,
    "midpoint": midpoint,
    "vary": vary,
    "other wordings": other_wordings,
    "translate": translate,
}


def some_seed(rng: random.Random) -> int:
    return rng.randrange(2**31)


def line(words: str) -> str:
    return " ".join(words.split())


def passage(nodes: Sequence[ConceptNode]) -> str:
    """The last sentences before a place."""
    return ("… " if len(nodes) > SHOWN else "") + " ".join(line(node.text) for node in nodes[-SHOWN:])


def opening(nodes: Sequence[ConceptNode]) -> str:
    """The first sentences after a place."""
    return " ".join(line(node.text) for node in nodes[:SHOWN]) + (" …" if len(nodes) > SHOWN else "")


def origins(engine: Engine, models: Sequence[str], langs: Collection[str]) -> list[Origin]:
    """What makes the rows of a sheet, with documents in `langs`; without models what needs none of them."""
    found = [Origin("continue", model) for model in models]
    found += [Origin(function, models[0]) for function in ("regenerate", "fill in") if models]
    found += [Origin(function) for function in ("midpoint", "vary", "other wordings")]
    codes = language_codes(engine.space.languages)
    english, *others = (codes[lang] for lang in LANGUAGES if lang in codes)
    pairs = [(english, other) for other in others] + [(other, english) for other in others]
    return found + [Origin("translate", "", source, target) for source, target in pairs if source in langs]


def make_sheet(
    engine: Engine,
    documents: Sequence[tuple[str, str]],
    models: Sequence[str],
    rows: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """Up to `rows` rows of documents (language, text), as many of each function, model and translation direction.

    `models` are kinds of concept model: all of them continue, at the same places, and the first one regenerates and
    fills in; where there are none these functions are left out. A function that makes nothing at a place (no words, no
    other words) has one row less, and the key counts it. The same seed gives the same sheet.

    Raises CorpusError where no document has three sentences, SheetError for fewer rows than there are functions,
    WeightsError for an unknown model.
    """
    for model in models:
        engine.lcm(model)
    shelf = Shelf(engine, documents)
    langs = [
        lang
        for lang in dict.fromkeys(lang for lang, _ in documents)
        if next(shelf.draw(random.Random(f"{seed} {lang}"), lang), None) is not None
    ]
    if not langs:
        raise CorpusError(f"None of the documents has {SENTENCES} sentences that can be read; choose another file.")
    makers = origins(engine, models, langs)
    if rows < len(makers):
        raise SheetError(f"{rows} rows are too few for {len(makers)} functions; ask for at least {len(makers)}.")
    made: list[tuple[Made, dict[str, Any]]] = []
    nothing = {origin.name: 0 for origin in makers}
    done = 0
    for number, origin in enumerate(makers):
        # What a function draws depends on no other one, and all models go on from the same places.
        rng = random.Random(f"{seed} {replace(origin, model='').name}")
        shelved = shelf.draw(rng, origin.source)
        for _ in range(rows // len(makers) + (number < rows % len(makers))):
            drawn = rng.randrange(2**63)
            document = next(shelved)
            try:
                found = FUNCTIONS[origin.function](engine, document, random.Random(drawn), origin)
            except (EditError, VectorError):  # such as: nothing readable lies there
                found = None
            if found is None:
                nothing[origin.name] += 1
            else:
                own = replace(origin, source=document.lang, target=origin.target or document.lang)
                made.append((replace(found, sentence=line(found.sentence)), {**asdict(own), "seed": drawn}))
            done += 1
            if progress:
                progress(done, rows)
    random.Random(f"{seed} order").shuffle(made)
    tag = label(f"{seed} {engine.space.identity} {made}")
    ids = [f"{tag}-{number:0{len(str(len(made)))}}" for number in range(1, len(made) + 1)]
    key = {
        "space": engine.space.identity,
        "seed": seed,
        "nothing": nothing,
        "rows": {row: origin for row, (_, origin) in zip(ids, made, strict=True)},
    }
    return Sheet([(row, found) for row, (found, _) in zip(ids, made, strict=True)], key)


def label(body: str) -> str:
    """Five letters that tell one sheet's rows from another's; letters, since spreadsheets rewrite numbers and dates."""
    return "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha256(body.encode()).digest()[:5])


def key_path(sheet: Path) -> Path:
    """Where the key of a sheet is: beside it."""
    return sheet.parent / f"{sheet.stem}.key.json"


def read_marks(data: bytes, name: str) -> dict[str, tuple[bool | None, bool | None]]:
    """What was written under `grammatical` and `sensible` of each row: yes, no or (None) nothing.

    A mark is y, n, 1 or 0 in either case. Spreadsheets save tables with commas, semicolons or tabs: all are read, and
    further columns are left alone. Raises SheetError naming the row or the column, TextError where the file is no
    UTF-8.
    """
    body = from_bytes(data, name).removeprefix("\ufeff")
    head = body.partition("\n")[0]
    table = csv.DictReader(io.StringIO(body, newline=""), delimiter=max(",;\t", key=head.count))
    marks: dict[str, tuple[bool | None, bool | None]] = {}
    try:
        missing = [column for column in ("row", *COLUMNS[-2:]) if column not in (table.fieldnames or ())]
        if missing:
            raise SheetError(f"{name} has no column {' and no column '.join(missing)}; score a sheet made here.")
        for cells in table:
            row, *written = ((cells[column] or "").strip() for column in ("row", *COLUMNS[-2:]))
            if not row and not any(written):
                continue  # spreadsheets save empty lines, too
            for column, mark in zip(COLUMNS[-2:], written, strict=True):
                if mark.lower() not in MARKS:
                    raise SheetError(f"{name}, row {row}: {mark!r} under {column} is no mark; write y, n, 1 or 0.")
            if row in marks:
                raise SheetError(f"{name}, row {row} stands there twice; take one of the two out.")
            marks[row] = (MARKS[written[0].lower()], MARKS[written[1].lower()])
    except csv.Error as error:
        raise SheetError(f"{name} can't be read as a table ({error}); save it as CSV again.") from error
    return marks


def read_key(data: bytes, name: str) -> tuple[dict[str, Origin], dict[str, int]]:
    """What made each row, and for each function how often it made nothing. Raises SheetError for anything else."""
    try:
        key = values.parse(data)
        made = {row: [own[part] for part in ORIGIN] for row, own in key["rows"].items()}
        nothing = dict(key["nothing"].items())
        if not all(isinstance(part, str) for own in made.values() for part in own):
            raise ValueError("an origin that is no text")
        if not all(values.is_whole(times, 0, 2**63) for times in nothing.values()):
            raise ValueError("a count that is no whole number")
        return {row: Origin(*own) for row, own in made.items()}, nothing
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SheetError(f"{name} is not the key of a reading sheet; put the one made with the sheet there.") from error


def score_sheet(sheet: bytes, key: bytes, name: str, key_name: str) -> dict[str, Any]:
    """Count a sheet's marks; plain values, ready for JSON.

    For each function, and over all: its rows, how many of them were read, how many percent of these are grammatical
    and sensible (None where none was read), and how often it made nothing. A row was read where it has both marks, or
    n under grammatical: what is not grammatical does not count as sensible. `unfinished` rows have one mark, and count
    as not read.

    Raises SheetError or TextError for a sheet or key that can't be read, and for a key of another sheet.
    """
    marks = read_marks(sheet, name)
    made, nothing = read_key(key, key_name)
    for row in marks:
        if row not in made:
            raise SheetError(f"{key_name} knows no row {row or 'without a name'}; it is the key of another sheet.")
    names = list(dict.fromkeys([*nothing, *(origin.name for origin in made.values())]))
    counts: dict[str, Counter[str]] = {own: Counter(nothing=nothing.get(own, 0)) for own in names}
    unfinished = 0
    for row, origin in made.items():
        grammatical, sensible = marks.get(row, (None, None))
        read = grammatical is False or (grammatical is not None and sensible is not None)
        unfinished += not read and (grammatical, sensible) != (None, None)
        counts[origin.name].update(
            rows=1, read=read, grammatical=read and bool(grammatical), sensible=read and bool(grammatical and sensible)
        )
    return {
        "functions": {own: shares(count) for own, count in counts.items()},
        "all": shares(sum(counts.values(), Counter())),
        "unfinished": unfinished,
    }


def shares(count: Counter[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": count["rows"], "read": count["read"]}
    for column in COLUMNS[-2:]:
        found[column] = percent(count[column], count["read"]) if count["read"] else None
    return found | {"nothing": count["nothing"]}


def table(report: Mapping[str, Any]) -> str:
    """A report as a table to read."""
    rows = {**report["functions"], "all": report["all"]}
    width = max(map(len, rows)) + 2
    lines = [f"{'':<{width}}{'rows':>6}{'read':>6}{'grammatical, %':>16}{'sensible, %':>13}{'made nothing':>14}"]
    for name, own in rows.items():
        values = ["" if own[column] is None else f"{own[column]:.1f}" for column in COLUMNS[-2:]]
        lines.append(
            f"{name:<{width}}{own['rows']:>6}{own['read']:>6}{values[0]:>16}{values[1]:>13}{own['nothing']:>14}"
        )
    if report["unfinished"]:
        lines += ["", f"Rows with one mark of two, counted as not read: {report['unfinished']}"]
    return "\n".join(lines)
