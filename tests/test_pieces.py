"""Which pieces are foreign to a language."""

from pathlib import Path

import pytest
from toy_space import PIECES, TOKENIZER, write_corpus, written

from engine.spaces.builtin import load_foreign
from engine.training import corpus, pieces


def test_pieces_are_foreign_where_only_another_language_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = write_corpus(tmp_path / "corpus")
    monkeypatch.setattr(pieces.foreign, "__defaults__", (0.5,))
    written(texts, corpus.VALID, ["eng\tdeu\tThe book is long.\tDas Buch ist lang, the end."])
    out = tmp_path / "pieces.safetensors"
    arguments = [str(a) for a in ("--corpus", texts, "--tokenizer", TOKENIZER, "--out", out)]
    assert pieces.main(arguments) == 0
    found = load_foreign(out, TOKENIZER)

    def foreign(piece: str) -> list[bool]:
        return found[:2, PIECES.piece_to_id(piece)].tolist()  # to English, to German

    assert foreign("▁book") == [False, True] and foreign("▁ein") == [True, False]
    assert foreign("▁Hund") == foreign("▁The") == [False, False]  # a name may begin with a capital
    assert foreign("▁lion") == foreign(".") == foreign("▁") == [False, False]  # nowhere, or everywhere
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("eng: ") and told[0].endswith("100.000 % of held-out text allowed")
    assert told[1].startswith("deu: ") and not told[1].endswith("100.000 % of held-out text allowed")
    written(texts, "documents.jsonl.gz", ["no record"])
    assert pieces.main(arguments) == 2
    assert capsys.readouterr().err.startswith("documents.jsonl.gz, line 1: not a document record")
