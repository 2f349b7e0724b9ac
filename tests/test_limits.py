"""What would take all memory, fail deep inside, or fill the screen is bounded, and said in one sentence."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Engine, Search, cli
from engine.document import Document
from engine.errors import LONGEST, ConceptscapeError, CorpusError, SeedError, SheetError
from engine.evaluation.lcm import Encoded, predictions
from engine.evaluation.reading import read_key
from engine.lcm.generator import generate_all
from engine.lcm.model import Reading
from engine.projection import DocumentMap
from engine.training.corpus import records


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("kind", ["fast", "", None, ["beam"]]),
        ("beams", [0, -1, 65, 10_000, 10**400, 2.0, True, None, "5"]),
        ("alternatives", [0, -1, 65, 1e9, False]),
        ("max_tokens", [0, -1, 10**9, 5.5, "10"]),
        ("temperature", [-0.1, float("nan"), float("inf"), 1e9, "hot", None]),
        ("top_p", [0, -0.5, 1.01, float("nan"), None]),
    ],
)
def test_what_is_no_search(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConceptscapeError, match=r"from .* to .*, not |no search") as caught:
            Search(**{name: value})
        assert len(str(caught.value)) <= LONGEST


def test_seeds_that_are_none() -> None:
    for seed in (-1, 2**63, 1.5, True, None, "7"):
        with pytest.raises(SeedError, match="whole number from 0"):
            Search("sample", seed=seed)  # type: ignore[arg-type]


def test_searches_at_the_bounds() -> None:
    Search("beam", beams=64, alternatives=64, max_tokens=1, temperature=0, top_p=1, seed=2**63 - 1)
    Search("sample", beams=np.int64(3), temperature=np.float32(0.5), seed=np.int64(7))  # type: ignore[arg-type]


def backwards(vectors: np.ndarray) -> np.ndarray:
    """The same vectors, with negative strides."""
    found = vectors[::-1, ::-1].copy()[::-1, ::-1]
    assert found.strides[0] < 0 and found.strides[1] < 0
    return found


WAYS: dict[str, Callable[[Engine, np.ndarray], Any]] = {
    "decode": lambda e, v: e.decode(v, "eng_Latn"),
    "nearest": lambda e, v: e.decode(v, "eng_Latn", Search("nearest", beams=2)),
    "alternatives": lambda e, v: e.alternatives(v, "deu_Latn", Search("beam", beams=2, alternatives=2)),
    "likelihood": lambda e, v: e.space.likelihood(["A dog."] * len(v), v, "eng_Latn"),
    "interpolate": lambda e, v: e.interpolate(v[0], v[1], 0.5),
    "continue": lambda e, v: [c.vector for c in e.continue_(v, 1, "eng_Latn", seed=1, temperature=0, minimum=1)],
    "infill": lambda e, v: [c.vector for c in e.infill(v[:2], v[2:], 1, "eng_Latn", seed=1)],
    "project": lambda e, v: e.project(v),
    "invert": lambda e, v: e.landscape.invert(v[:, :2] / 50),
    "settle": lambda e, v: e.landscape.settle(v, v[:, :2] / 50),
    "plane": lambda e, v: DocumentMap.flat(v).project(v),
    "plane, inverted": lambda e, v: DocumentMap.flat(e.project(v)).invert(v[:, :2] / 50),
    "reading": lambda e, v: Reading(e.lcm(), [v]).expect()[0],
    "ends": lambda e, v: Reading(e.lcm(), [v]).ends(v),
    "generate": lambda e, v: generate_all(e.lcm("base"), [v], 2, seeds=[1]),
    "measures": lambda e, v: predictions(e.lcm("base"), Encoded([v], [False]), [0])[0][0],
}


@pytest.mark.parametrize("way", WAYS)
def test_vectors_may_run_backwards(e: Engine, story: Document, way: str) -> None:
    vectors = story.vectors[:4]
    found, wanted = WAYS[way](e, backwards(vectors)), WAYS[way](e, vectors)
    if isinstance(wanted[0], str | list):
        assert found == wanted
    else:
        assert len(found) == len(wanted) and np.allclose(found, wanted, atol=1e-4)


def code_and_error(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    try:
        code = cli.main([str(arg) for arg in args])
    except SystemExit as exit:  # argparse
        code = int(exit.code or 0)
    return code, capsys.readouterr().err


BAD_LINES = {
    "deep": '{"lang": "eng", "text": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep, elsewhere": '{"lang": "eng", "text": "A dog.", "more": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "400 digits": '{"lang": "eng", "text": "A dog.", "year": ' + "9" * 400 + "}",
    "5,000 digits": '{"lang": "eng", "text": "A dog.", "year": ' + "9" * 5_000 + "}",
    "too large": '{"lang": "eng", "text": "A dog.", "year": 1e999}',
    "no number": '{"lang": "eng", "text": "A dog.", "year": NaN}',
    "a number for a language": '{"lang": 7, "text": "A dog."}',
    "a list for a split": '{"lang": "eng", "split": [1], "text": "A dog."}',
    "half a character": '{"lang": "eng", "text": "A dog \\ud800."}',
    "a name twice": '{"lang": "eng", "text": "A dog.", "text": "A cat."}',
    "a long language": json.dumps({"lang": "x" * 5_000, "text": "A dog."}),
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_lines_that_are_no_documents(
    e: Engine,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli.options, "load", lambda *_, **__: e)
    path = tmp_path / "documents.jsonl"
    path.write_text('{"lang": "eng", "text": "A dog. A cat."}\n' + BAD_LINES[line] + "\n")
    with pytest.raises(CorpusError, match="line 2"):
        list(records(path))
    for command in (("lcm", path), ("reading", path, "--out", tmp_path / "sheet.csv")):
        code, error = code_and_error(capsys, "evaluate", *command)
        assert code == 2 and "line 2" in error and error.count("\n") == 1 and len(error) < LONGEST + 60


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl.gz"
    path.write_bytes(bytes.fromhex("1f8b0800000000000003") + b"\xff" * 40)
    with pytest.raises(CorpusError, match="can't be read"):
        list(records(path))


@pytest.mark.parametrize(
    "key",
    [
        '{"rows": {}, "nothing": {"vary": 1e999}}',
        '{"rows": {}, "nothing": {"vary": ' + "9" * 400 + "}}",
        '{"rows": {}, "nothing": {"vary": "3"}}',
        '{"rows": {}, "nothing": [["vary", 3]]}',
        '{"rows": {"a": {"function": [], "model": "", "source": "", "target": ""}}, "nothing": {}}',
        '{"rows": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[" * 100_000,
    ],
)
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(SheetError, match="not the key of a reading sheet"):
        read_key(key.encode(), "sheet.key.json")


LONG = "wörd " * 400


@pytest.mark.parametrize(
    "fail",
    [
        lambda e: e.language("x" * 5_000),
        lambda e: e.encode(["…" * 5_000], "eng_Latn"),
        lambda e: e.encode([LONG], "eng_Latn" + LONG),
        lambda e: e.lcm(LONG),
        lambda e: e.import_text("A dog.", "eng_Latn", "x" * 5_000),
        lambda e: Search(LONG),
        lambda e: cli.input.read("n" * 5_000),
        lambda e: cli.output.check_folder("n" * 400 + "/" + "m" * 400),
        lambda e: list(records(Path("n" * 5_000 + ".jsonl"))),
    ],
)
def test_messages_are_short(e: Engine, fail: Callable[[Engine], object]) -> None:
    with pytest.raises(ConceptscapeError) as caught:
        fail(e)
    assert 20 < len(str(caught.value)) <= LONGEST


def test_of_a_long_message_the_middle_is_left_out() -> None:
    said = str(ConceptscapeError(f"There is no file {'n' * 5_000}; check its name."))
    assert len(said) <= LONGEST and said.startswith("There is no file nnn") and said.endswith("nnn; check its name.")
    assert str(ConceptscapeError("x" * LONGEST)) == "x" * LONGEST
    assert str(ConceptscapeError("half \ud800.")) == "half \\ud800."


def test_wrong_options_are_short(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    for beams in ("65", "9" * 5_000):
        code, error = code_and_error(capsys, "decode", "-", "--lang", "eng_Latn", "--beam", beams)
        assert code == 2 and "whole number from 1 to 64" in error and len(error) < LONGEST + 100
