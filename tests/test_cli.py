"""The command line: one result a line, one sentence for what goes wrong."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import cli

ROOT = Path(__file__).parents[1]
GERMAN = "Der Hund schläft unter dem Tisch.\nWir gehen morgen auf den Markt.\n"


@pytest.fixture(autouse=True)
def _one_engine(e: engine.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in this process share the loaded engine."""
    monkeypatch.setattr(cli.options, "load", lambda *_, **__: e)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run(*args: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = cli.main([str(arg) for arg in args])
        except SystemExit as exit:  # argparse
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def vectors(e: engine.Engine, tmp_path: Path) -> Path:
    path = tmp_path / "v.npy"
    np.save(path, e.encode(GERMAN.splitlines(), "deu_Latn"))
    return path


def refused(result: tuple[int, str, str]) -> str:
    """The one sentence of a command that could not do its work."""
    code, out, error = result
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith("python -m engine")
    return error


def test_segments(run, tmp_path: Path) -> None:
    story = (
        "\ufeffThe boat was late. Dr. Amari waited for an hour\non the old wooden pier!\r\n\r\n* * *\r\nNobody came."
    )
    path = tmp_path / "story.txt"
    path.write_bytes(story.encode())
    wanted = "The boat was late.\nDr. Amari waited for an hour on the old wooden pier!\nNobody came.\n"
    assert run("segment", path, "--lang", "eng_Latn") == (0, wanted, "")
    assert run("segment", "-", "--lang", "eng_Latn", stdin=story.encode()) == (0, wanted, "")


def test_a_very_long_line_becomes_sentences_that_fit(run, e: engine.Engine) -> None:
    line = "and then the river went on through the valley, " * 420
    code, out, _ = run("segment", "-", "--lang", "eng_Latn", stdin=line.encode())
    sentences = out.splitlines()
    assert code == 0
    assert len(sentences) > 10
    assert all(e.fits(sentence) for sentence in sentences)
    assert " ".join(" ".join(sentences).split()) == line.strip()


def test_encodes_and_decodes(run, e: engine.Engine, tmp_path: Path) -> None:
    out = tmp_path / "new.npy"
    assert run("encode", "-", "--lang", "deu_Latn", "--out", out, stdin=GERMAN.encode()) == (0, "", "")
    found = np.load(out)
    assert (found.dtype, found.shape) == (np.float32, (2, e.space.dim))
    np.testing.assert_allclose(found, e.encode(GERMAN.splitlines(), "deu_Latn"), atol=1e-5)
    assert run("decode", out, "--lang", "fra_Latn") == (0, "\n".join(e.decode(found, "fra_Latn")) + "\n", "")
    assert run("decode", "-", "--lang", "fra_Latn", stdin=out.read_bytes())[1].count("\n") == 2
    np.save(out, found[:0])
    assert run("decode", out, "--lang", "fra_Latn") == (0, "", "")


def test_alternatives_stand_on_the_line_of_their_concept(run, vectors: Path) -> None:
    code, out, _ = run("decode", vectors, "--lang", "eng_Latn", "--alternatives", 3)
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert len(lines) == 2
    assert all(1 < len(line) <= 3 and len(set(line)) == len(line) for line in lines)
    beam = run("decode", vectors, "--lang", "eng_Latn", "--beam", 5)[1].splitlines()
    assert beam == [line[0] for line in lines]


def test_a_seed_samples_and_repeats(run, vectors: Path) -> None:
    def sample(seed: int) -> str:
        return run("decode", vectors, "--lang", "eng_Latn", "--alternatives", 4, "--seed", seed)[1]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_translates_line_by_line(run, e: engine.Engine) -> None:
    text = "Der Hund schläft. Die Katze wacht!\n\n  \n* * *\r\nWir gehen morgen auf den Markt."
    code, out, error = run("translate", "-", "--from", "deu_Latn", "--to", "eng_Latn", stdin=text.encode())
    lines = out.split("\n")
    assert (code, error, len(lines)) == (0, "", 6)
    two = e.decode(e.encode(["Der Hund schläft.", "Die Katze wacht!"], "deu_Latn"), "eng_Latn", engine.CHOICE)
    assert lines[0] == " ".join(two)
    assert (lines[1], lines[2].strip(), lines[3]) == ("", "", "* * *")
    market = e.encode(["Wir gehen morgen auf den Markt."], "deu_Latn")
    assert lines[4] == e.decode(market, "eng_Latn", engine.CHOICE)[0]


def test_many_lines_stay_aligned(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.sentences, "TOGETHER", 3)
    text = "".join(f"Ich habe {n} Hunde.\n" if n % 2 else "\n" for n in range(8))
    code, out, _ = run("translate", "-", "--from", "deu_Latn", "--to", "eng_Latn", stdin=text.encode())
    assert code == 0
    assert [bool(line) for line in out.split("\n")[:-1]] == [False, True] * 4


def test_gradient(run, e: engine.Engine) -> None:
    ends = ("I went looking for adventure.", "I never returned.")
    code, out, _ = run("gradient", *ends, "--steps", 4, "--lang", "eng_Latn")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 4)
    assert [lines[0], lines[-1]] == e.decode(e.encode(ends, "eng_Latn"), "eng_Latn")
    assert len(run("gradient", *ends, "--lang", "eng_Latn")[1].splitlines()) == 7


def test_continues(run) -> None:
    story = b"Once there was a little fox. It lived in the forest. One day it found a red ball."
    args = ("continue", "-", "--sentences", 2, "--lang", "eng_Latn", "--to", "fra_Latn", "--seed", 3)
    code, out, error = run(*args, stdin=story)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 2 or "ends the document" in error
    assert all(line.strip() for line in lines)
    assert run(*args, stdin=story)[1] == out


def test_a_model_can_be_chosen(run, e: engine.Engine) -> None:
    text = b"The sun came up. The birds began to sing."
    for kind in e.models:
        code, out, _ = run("continue", "-", "--lang", "eng_Latn", "--lcm", kind, stdin=text)
        assert code == 0 and len(out.splitlines()) <= 1
    assert "no concept model called 'huge'" in refused(
        run("continue", "-", "--lang", "eng_Latn", "--lcm", "huge", stdin=text)
    )


def test_evaluates_models_on_documents(run, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    stories = [
        "The dog ran away. The girl cried. She looked for him. He came home.",
        "It rained. We stayed in. We slept.",
    ]
    path.write_text("".join(json.dumps({"lang": "eng", "text": story}) + "\n" for story in stories))
    code, out, _ = run("evaluate", "lcm", path, "--json")
    report = json.loads(out)
    assert code == 0 and report["documents"] == 2 and report["concepts"] == 7
    found = next(iter(report["models"].values()))
    for measure in (
        "l2 model",
        "l2 repeat",
        "contrast model",
        "contrast written",
        "l2 written",
        "l2 round trip",
        "paraphrasing",
        "distinct-2",
    ):
        assert found[measure] >= 0, measure
    code, out, _ = run("evaluate", "lcm", path)
    assert code == 0 and "mutual information" in out and "contrast mean" in out
    path.write_text(json.dumps({"lang": "eng", "text": stories[1]}) + "\n")  # none to be told from
    code, out, _ = run("evaluate", "lcm", path, "--json")
    assert code == 0 and "NaN" not in out and "contrast written" not in out
    path.write_text('{"lang": "eng", "text": "Alone."}\n')
    assert "no document of two sentences" in refused(run("evaluate", "lcm", path))
    path.write_text("no JSON\n")
    assert "line 1" in refused(run("evaluate", "lcm", path))


def test_a_reading_sheet_is_made_and_counted(run, tmp_path: Path) -> None:
    documents, sheet, key = (tmp_path / name for name in ("documents.jsonl", "sheet.csv", "sheet.key.json"))
    story = "The dog ran away. The girl cried. She looked for him. He came home."
    documents.write_text(json.dumps({"lang": "eng", "text": story}) + "\n")
    make = ("evaluate", "reading", documents, "--out", sheet)
    assert "no concept model called 'huge'" in refused(run(*make, "--lcm", "base,huge"))
    assert not sheet.exists()
    assert run(*make, "--lcm", "base", "--rows", 11, "--seed", 3) == (0, f"{sheet}\n{key}\n", "")
    assert "is there already" in refused(run(*make))
    body = sheet.read_text("utf-8-sig")
    assert "base" not in body
    sheet.write_text(body.replace('"",""', '"y","n"'), encoding="utf-8")
    code, out, _ = run("evaluate", "reading", "--score", sheet, "--json")
    report = json.loads(out)
    assert code == 0 and report["functions"]["continue, base"]["grammatical"] == 100
    assert report["all"]["read"] == report["all"]["rows"] == 11 - report["all"]["nothing"]
    assert "continue, base" in run("evaluate", "reading", "--score", sheet)[1]
    key.unlink()
    assert "There is no" in refused(run("evaluate", "reading", "--score", sheet))
    for args in ((), (documents,), ("--out", sheet), ("--score", sheet, "--out", sheet)):
        assert "--score alone" in refused(run("evaluate", "reading", *args))
    assert "needs a file" in refused(run("evaluate", "reading", documents, "--out", "-"))
    sheet.unlink()
    assert "There is no file" in refused(run("evaluate", "reading", tmp_path / "none.jsonl", "--out", sheet))
    assert "no folder" in refused(run("evaluate", "reading", documents, "--out", tmp_path / "no" / "sheet.csv"))


def test_a_space_without_models_has_a_reading_sheet_without_them(
    run, e: engine.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(e.__dict__, "models", [])
    documents = tmp_path / "documents.jsonl"
    documents.write_text(json.dumps({"lang": "eng", "text": "The dog ran away. It rained. We slept."}) + "\n")
    code, out, error = run("evaluate", "reading", documents, "--out", tmp_path / "sheet.csv", "--rows", 8)
    assert code == 0 and out.count("\n") == 2
    assert "no concept model" in error and "are left out" in error and error.count("\n") == 1
    assert "goes on" not in (tmp_path / "sheet.csv").read_text("utf-8")


def test_evaluates_as_table_and_json(run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "eng\tdeu\tThe dog is sleeping under the table.\tDer Hund schläft unter dem Tisch.\n"
        "eng\tdeu\tWe are going to the market tomorrow.\tWir gehen morgen auf den Markt.\n"
        "eng\tdeu\tShe has lost her key.\tSie hat ihren Schlüssel verloren.\n",
        encoding="utf-8",
    )
    code, out, _ = run("evaluate", "space", path, "--json", "--limit", 2, "--gradients", 1)
    report = json.loads(out)
    assert (code, report["pairs"], report["walk"]["gradients"]) == (0, 2, 1)
    assert set(report["languages"][0]["bleu"]) == {"1>1", "2>2", "1>2", "2>1"}
    code, out, _ = run("evaluate", "space", path, "--gradients", 0)
    assert code == 0
    assert "eng_Latn deu_Latn" in out
    path.write_text("eng\tdeu\tOne column is missing.\n")
    assert "line 1: 3 columns" in refused(run("evaluate", "space", path))


@pytest.mark.parametrize("command", ["segment", "encode", "translate", "continue"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "no text|no words"),
        (b"  \n \n", "no text|no words|is empty"),
        ("😀\n".encode(), "no words"),
        (b"caf\xe9 au lait\n", "not UTF-8"),
        (b"A sentence with a NUL \0 in it.\n", "NUL"),
        ("Это предложение написано кириллицей.\n".encode(), "script"),
    ],
)
def test_bad_text_gets_one_sentence(run, tmp_path: Path, command: str, text: bytes, sentence: str) -> None:
    languages = ("--from", "eng_Latn", "--to", "fra_Latn") if command == "translate" else ("--lang", "eng_Latn")
    out = ("--out", tmp_path / "v.npy") if command == "encode" else ()
    error = refused(run(command, "-", *languages, *out, stdin=text))
    assert any(part in error for part in sentence.split("|"))
    assert not (tmp_path / "v.npy").exists()


def test_bad_lines_are_named(run, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    encode = ("encode", "-", "--lang", "eng_Latn", "--out", out)
    assert "Line 2: it is empty" in refused(run(*encode, stdin=b"One.\n\nThree.\n"))
    assert "too long for one concept" in refused(run(*encode, stdin=b"One.\n" + b"river " * 4000))
    cyrillic = "A line.\nЭто предложение написано кириллицей.\n".encode()
    assert "Line 2: most letters" in refused(run(*encode, stdin=cyrillic))
    assert "Line 2: most letters" in refused(
        run("translate", "-", "--from", "eng_Latn", "--to", "deu_Latn", stdin=cyrillic)
    )
    assert "no folder" in refused(
        run("encode", "-", "--lang", "eng_Latn", "--out", tmp_path / "no" / "v.npy", stdin=b"One.")
    )
    assert not out.exists()
    assert "can't be written" in refused(run("encode", "-", "--lang", "eng_Latn", "--out", tmp_path, stdin=b"One."))


@pytest.mark.parametrize(
    "args",
    [
        ("segment", "x.txt", "--lang", "xyz_Latn"),
        ("encode", "x.txt", "--lang", "eng", "--out", "v.npy"),
        ("decode", "x.npy", "--lang", "klingon"),
        ("translate", "x.txt", "--from", "deu_Latn", "--to", "deu"),
        ("gradient", "One.", "Two.", "--lang", ""),
        ("continue", "x.txt", "--lang", "eng_Latn", "--to", "tlh_Latn"),
    ],
)
def test_unknown_languages_are_named(run, tmp_path: Path, args: tuple[str, ...]) -> None:
    (tmp_path / "x.txt").write_text("A sentence.")
    np.save(tmp_path / "x.npy", np.ones((1, 512), np.float32))
    error = refused(run(*(str(tmp_path / arg) if arg[:2] == "x." else arg for arg in args)))
    assert "eng_Latn" in error


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones((1, 512)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a .npy file"),
        (b"The dog sleeps.", "not a .npy file"),
        (npz(), "not a .npy file"),
        (npy(np.ones((2, 512), np.float32))[:-5], "not a .npy file"),
        (npy(np.ones((2, 512), np.float32)).replace(b"(2, 512)", b"(2, 5e9"), "not a .npy file"),
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "not a .npy file"),
        (npy(np.array([["a", "b"]])), "not a .npy file"),
        (npy(np.ones((2, 512), np.complex64)), "not a .npy file"),
        (npy(np.ones((2, 300), np.float32)), "shape"),
        (npy(np.ones(512, np.float32)), "shape"),
        (npy(np.float32(1)), "shape"),
        (npy(np.full((2, 512), np.nan, np.float32)), "not finite"),
        (npy(np.full((2, 512), 1e300)), "not finite"),
    ],
)
def test_bad_vectors_get_one_sentence(run, data: bytes, sentence: str) -> None:
    assert sentence in refused(run("decode", "-", "--lang", "eng_Latn", stdin=data))


def test_files_that_cant_be_read(run, tmp_path: Path) -> None:
    assert "There is no file" in refused(run("segment", tmp_path / "none.txt", "--lang", "eng_Latn"))
    assert "can't be read" in refused(run("segment", tmp_path, "--lang", "eng_Latn"))
    assert "can't be read" in refused(run("segment", "a\0b", "--lang", "eng_Latn"))
    assert "There is no file" in refused(run("evaluate", "space", tmp_path / "none.tsv"))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "COMMAND"),
        (("sing",), "invalid choice"),
        (("evaluate",), "WHAT"),
        (("segment", "-"), "--lang"),
        (("gradient", "One.", "Two.", "--lang", "eng_Latn", "--steps", "1"), "from 2 to 1000"),
        (("decode", "-", "--lang", "eng_Latn", "--beam", "many"), "'many' is not a whole number"),
        (("decode", "-", "--lang", "eng_Latn", "--beam", "3", "--seed", "1"), "not allowed with"),
        (("decode", "-", "--lang", "eng_Latn", "--seed", "-1"), "is not a whole number"),
    ],
)
def test_wrong_options_get_one_sentence(run, args: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(run(*args))


def test_text_of_half_characters_is_refused(run) -> None:
    # What the shell hands over where an argument is no UTF-8.
    assert "half of a character" in refused(run("gradient", "caf\udce9", "Two.", "--lang", "eng_Latn"))


@pytest.mark.parametrize(
    "command",
    [
        ["segment"],
        ["encode"],
        ["decode"],
        ["translate"],
        ["gradient"],
        ["continue"],
        ["evaluate", "space"],
        ["evaluate", "lcm"],
        ["evaluate", "reading"],
    ],
)
def test_help_shows_an_example(run, command: list[str]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert f"example:\n  python -m engine {' '.join(command)} " in out


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BrokenPipeError])
def test_stopping_is_quiet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], stop: type) -> None:
    def raise_stop(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr(cli.options, "load", raise_stop)
    monkeypatch.setattr(cli.os, "dup2", lambda *_: None)
    code = cli.main(["gradient", "One.", "Two.", "--lang", "eng_Latn"])
    assert code == {KeyboardInterrupt: 130, BrokenPipeError: 141}[stop]
    assert capfd.readouterr() == ("", "")


def test_progress_is_for_terminals_and_long_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(cli.output.time, "monotonic", lambda: now[0])
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        now[0] = 0.0
        with cli.output.progress("Decoding") as report:
            report(1, 9)
            now[0] = 0.6
            report(2, 9)
        error = capsys.readouterr().err
        assert ("Decoding: 2 of 9" in error) == terminal
        assert "1 of 9" not in error
    now[0] = 0.0
    with cli.output.progress("Translating", 20, 50) as report:
        now[0] = 0.6
        report(5, 10)
    assert "Translating: 25 of 50" in capsys.readouterr().err


def start(*args: str, **options) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
    }  # a poor terminal: UTF-8 comes all the same
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "engine", *args],
        cwd=ROOT,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        **options,
    )


def test_commands_compose_in_a_shell() -> None:
    with start("encode", "-", "--lang", "deu_Latn", "--out", "-") as encode:
        data, error = encode.communicate(GERMAN.encode())
        assert (encode.returncode, error) == (0, b"")
    with start("decode", "-", "--lang", "deu_Latn") as decode:
        out, error = decode.communicate(data)
        assert (decode.returncode, error) == (0, b"")
    assert len(out.decode("utf-8").splitlines()) == 2
    with start("segment", "-", "--lang", "deu_Latn") as wrong:
        out, error = wrong.communicate(b"\xff")
        assert (wrong.returncode, out) == (2, b"")
        assert error.decode() == (
            "python -m engine segment: Standard input is not UTF-8 text (byte 0); save it as UTF-8 and open it again.\n"
        )


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and pipes")
def test_a_closed_pipe_and_ctrl_c_end_quietly() -> None:
    def listen() -> None:  # a test run in a shell's background ignores Ctrl-C, and so would what it starts
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with start("segment", "-", "--lang", "deu_Latn") as headless:
        assert headless.stdin and headless.stdout and headless.stderr
        headless.stdout.close()  # like `| head -0`
        headless.stdin.write("Größe zählt. ".encode() * 20_000)
        headless.stdin.close()
        assert headless.stderr.read() == b""
        assert headless.wait(60) == 141
    with start("segment", "-", "--lang", "deu_Latn", preexec_fn=listen) as waiting:
        assert waiting.stdin
        waiting.stdin.write(b"More than a pipe holds. " * 20_000)  # returns once the command has begun to read
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=60) == (b"", b"")
        assert waiting.returncode == 130
