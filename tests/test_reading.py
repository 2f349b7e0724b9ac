"""Sentences for people to judge: the sheet, its key and the count of its marks."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest

import engine
from engine.errors import Cancelled, ConceptscapeError, CorpusError, SheetError, TextError, WeightsError
from engine.evaluation.reading import (
    COLUMNS,
    FUNCTIONS,
    GAP,
    Sheet,
    guarded,
    key_path,
    make_sheet,
    read_documents,
    read_marks,
    score_sheet,
    table,
)

STORIES = [
    ("eng_Latn", "The dog ran away. The girl cried all day. She looked for him in the park. He came home at last."),
    ("eng_Latn", "Two."),
    ("deu_Latn", "Der Hund schläft unter dem Tisch. Die Katze wacht. Am Abend kommt der alte Mann. Er kocht Suppe."),
]
MODELS = ["base", "sonar-llm"]
ROWS = 13  # one of each: 2 models that continue, 5 functions, 5 directions from English and 1 from German


@pytest.fixture(scope="module")
def sheet(e: engine.Engine) -> Sheet:
    """A sheet whose concept models say the same sentence each: how they write is tested with them."""

    def say(self: engine.Engine, *args: object, model: str, **options: object) -> list[engine.Continuation]:
        return [
            engine.Continuation(
                f"They went home, says number {MODELS.index(model)}.", e.encode(["Home."], "eng_Latn")[0]
            )
        ]

    with pytest.MonkeyPatch.context() as patch:
        for name, instead in (("lcm", lambda *_: None), ("continue_", say), ("infill", say)):
            patch.setattr(engine.Engine, name, instead)
        return make_sheet(e, STORIES, MODELS, ROWS, seed=1)


def cells(sheet: Sheet) -> list[list[str]]:
    return list(csv.reader(io.StringIO(sheet.to_csv().decode("utf-8-sig"), newline="")))


def test_every_function_has_its_share_and_a_key(sheet: Sheet) -> None:
    made = sheet.key["rows"]
    nothing = {name.split(",")[0] for name, times in sheet.key["nothing"].items() if times}
    assert {own["function"] for own in made.values()} | nothing == set(FUNCTIONS)
    assert len(sheet.key["nothing"]) == ROWS
    assert len(made) + sum(sheet.key["nothing"].values()) == ROWS
    assert list(made) == [row for row, _ in sheet.rows]
    assert {own["model"] for own in made.values() if own["function"] == "continue"} == set(MODELS)
    directions = {(own["source"], own["target"]) for own in made.values() if own["function"] == "translate"}
    assert ("deu_Latn", "eng_Latn") in directions
    assert len([source for source, _ in directions if source == "eng_Latn"]) == 5
    head, *rows = cells(sheet)
    assert tuple(head) == COLUMNS
    assert all(row[-2:] == ["", ""] and all(row[:4]) for row in rows)


def test_rows_do_not_tell_what_made_them(sheet: Sheet) -> None:
    body = sheet.to_csv().decode()
    assert not any(name in body for name in (*MODELS, "continue", "regenerate", "sonar"))
    order = [own["function"] for own in sheet.key["rows"].values()]
    assert order != sorted(order, key=list(FUNCTIONS).index)
    tasks = {made.task for _, made in sheet.rows}
    assert {"goes on", "stands in the gap", "says the same in French"} <= tasks
    assert all((GAP in made.context) == (made.task == "stands in the gap") for _, made in sheet.rows)
    assert all(made.context.count("\n") == (made.task == "lies between the two") for _, made in sheet.rows)


def test_a_seed_gives_the_same_sheet(e: engine.Engine) -> None:
    def again(seed: int) -> tuple[bytes, bytes]:
        made = make_sheet(e, STORIES[:1], [], 8, seed)
        return made.to_csv(), made.key_json()

    first = again(5)
    assert again(5) == first
    assert again(6)[0] != first[0]


def test_models_go_on_from_the_same_places(sheet: Sheet) -> None:
    made = {(own["function"], own["model"]): dict(sheet.rows)[row] for row, own in sheet.key["rows"].items()}
    first, second = (made["continue", model] for model in MODELS)
    assert (first.context, first.task) == (second.context, second.task)
    assert [first.sentence[-2], second.sentence[-2]] == ["0", "1"]
    # Whoever chooses a model on the page has it regenerate and fill in, too.
    assert made["regenerate", MODELS[0]].sentence == made["fill in", MODELS[0]].sentence == first.sentence


def test_what_makes_nothing_is_counted(e: engine.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.editor.Editor, "alternatives", lambda *_: [])
    made = make_sheet(e, STORIES[:1], [], 8)
    assert made.key["nothing"]["other wordings"] == 1
    assert len(made.rows) == 8 - sum(made.key["nothing"].values())
    report = score_sheet(made.to_csv(), made.key_json(), "sheet.csv", "sheet.key.json")
    assert report["functions"]["other wordings"] == {
        "rows": 0,
        "read": 0,
        "grammatical": None,
        "sensible": None,
        "nothing": 1,
    }


def test_it_can_be_stopped_and_refused(e: engine.Engine) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        make_sheet(e, STORIES[:1], [], 8, progress=stop)
    with pytest.raises(WeightsError, match="no concept model called 'huge'"):
        make_sheet(e, STORIES, ["huge"])
    with pytest.raises(SheetError, match="at least 8"):
        make_sheet(e, STORIES[:1], [], 7)
    with pytest.raises(CorpusError, match="3 sentences"):
        make_sheet(e, STORIES[1:2], [])


def test_documents_for_validation_come_first(tmp_path: Path) -> None:
    def read(*splits: str, suffix: str = "") -> list[tuple[str, str]]:
        lines = "".join(
            json.dumps({"lang": "eng", "text": f"Text {i}."} | ({"split": split} if split else {})) + "\n"
            for i, split in enumerate(splits)
        ).encode()
        path = tmp_path / f"documents.jsonl{suffix}"
        path.write_bytes(gzip.compress(lines) if suffix else lines)
        return read_documents(path, ["eng_Latn", "deu_Latn"])

    assert read("train", "valid", "test", suffix=".gz") == [("eng_Latn", "Text 1.")]
    assert read("", "train") == [("eng_Latn", "Text 0.")]
    assert read("test", "train") == [("eng_Latn", "Text 0.")]
    with pytest.raises(CorpusError, match="no document that is not for training"):
        read("train")
    (tmp_path / "documents.jsonl").write_text('{"lang": "eng", "text": 5}\n')
    with pytest.raises(CorpusError, match="line 1"):
        read_documents(tmp_path / "documents.jsonl", ["eng_Latn"])


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-No, she said.", "@x", "'=1", "''-x", "\tx", "'tis", "No.", "", "'"])
def test_a_cell_is_no_formula_and_can_be_had_again(cell: str) -> None:
    safe = guarded(cell)
    assert not safe.startswith(("=", "+", "-", "@", "\t"))
    bare = safe.lstrip("'")
    assert (safe[1:] if safe != bare and bare.startswith(("=", "+", "-", "@", "\t")) else safe) == cell


KEY = json.dumps(
    {
        "seed": 0,
        "nothing": {"vary": 0, "midpoint": 3},
        "rows": {
            f"abcde-{number}": {"function": function, "model": model, "source": "eng_Latn", "target": target, "seed": 0}
            for number, (function, model, target) in enumerate(
                [("vary", "", "eng_Latn")] * 5
                + [("continue", "base", "eng_Latn"), ("continue", "two-tower", "eng_Latn")]
                + [("translate", "", "deu_Latn")]
            )
        },
    }
).encode()


def marked(*marks: str, head: str = "row,grammatical,sensible") -> bytes:
    return "\r\n".join([head, *(f"abcde-{number},{mark}" for number, mark in enumerate(marks))]).encode()


def count(sheet: bytes, key: bytes = KEY) -> dict:
    return score_sheet(sheet, key, "sheet.csv", "sheet.key.json")


def test_marks_are_counted() -> None:
    report = count(marked("y,Y", "1,0", " N ,y", "n,", ",", "Y,1", "y,", ",n"))
    functions = report["functions"]
    # Sensible counts only where grammatical does; a row that was not read counts nowhere.
    assert functions["vary"] == {"rows": 5, "read": 4, "grammatical": 50, "sensible": 25, "nothing": 0}
    assert functions["midpoint"] == {"rows": 0, "read": 0, "grammatical": None, "sensible": None, "nothing": 3}
    assert functions["continue, base"] == {"rows": 1, "read": 1, "grammatical": 100, "sensible": 100, "nothing": 0}
    assert functions["continue, two-tower"]["read"] == functions["translate, eng_Latn to deu_Latn"]["read"] == 0
    assert report["all"] == {"rows": 8, "read": 5, "grammatical": 60, "sensible": 40, "nothing": 3}
    assert report["unfinished"] == 2
    told = table(report)
    assert "continue, two-tower" in told and "60.0" in told and "not read: 2" in told
    assert "not read" not in table(count(marked("y,y")))


def test_tables_of_any_spreadsheet_are_read() -> None:
    semicolons = (
        b'\xef\xbb\xbf"row";"context";"grammatical";"sensible";"notes"\n"abcde-0";"a, b\nc";"y";"n";"odd"\n;;;;\n'
    )
    assert read_marks(semicolons, "sheet.csv") == {"abcde-0": (True, False)}
    assert read_marks(semicolons.replace(b";", b"\t"), "sheet.csv") == {"abcde-0": (True, False)}
    assert read_marks(b"row,grammatical,sensible\nabcde-0\n", "sheet.csv") == {"abcde-0": (None, None)}


@pytest.mark.parametrize(
    ("sheet", "key", "error", "sentence"),
    [
        (marked("y,maybe"), KEY, SheetError, "row abcde-0: 'maybe' under sensible is no mark"),
        (marked("y,y", head="row,sensible,other"), KEY, SheetError, "no column grammatical"),
        (b"", KEY, SheetError, "no column row"),
        (marked("y,y").replace(b"abcde", b"other"), KEY, SheetError, "the key of another sheet"),
        (b"row,grammatical,sensible\n,y,y\n", KEY, SheetError, "no row without a name"),
        (marked("y,y") + b"\nabcde-0,n,n\n", KEY, SheetError, "stands there twice"),
        (b"\xff\xfe" + marked("y,y"), KEY, TextError, "not UTF-8"),
        (b"row,grammatical,sensible\n" + b"a" * 200_000, KEY, SheetError, "can't be read as a table"),
        (marked("y,y"), b"", SheetError, "not the key"),
        (marked("y,y"), b"[]", SheetError, "not the key"),
        (marked("y,y"), b'{"rows": {"abcde-0": {}}, "nothing": {}}', SheetError, "not the key"),
        (marked("y,y"), b'{"rows": {"abcde-0": 1}, "nothing": {}}', SheetError, "not the key"),
        (marked("y,y"), b'{"rows": {}, "nothing": {"vary": "often"}}', SheetError, "not the key"),
        (marked("y,y"), b"\xff", SheetError, "not the key"),
    ],
)
def test_bad_sheets_get_one_sentence(sheet: bytes, key: bytes, error: type[ConceptscapeError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as raised:
        count(sheet, key)
    assert "\n" not in str(raised.value)


def test_a_sheet_counts_with_its_own_key(sheet: Sheet) -> None:
    body = sheet.to_csv().replace(b'"",""\r\n', b'"y","n"\r\n')
    report = score_sheet(body, sheet.key_json(), "sheet.csv", "sheet.key.json")
    assert report["all"]["read"] == len(sheet.rows)
    assert (report["all"]["grammatical"], report["all"]["sensible"]) == (100, 0)
    assert [str(key_path(Path(name))) for name in ("a.b.csv", "sheet")] == ["a.b.key.json", "sheet.key.json"]
