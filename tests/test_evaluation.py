"""The measures of a concept space, on a toy space whose scores are known and on the real one."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import Cancelled, CorpusError, TextError
from engine.evaluation import Pair, evaluate_space, read_pairs, table, thin
from engine.evaluation.pairs import language_codes
from engine.evaluation.stories import story_sentences
from engine.spaces import CHOICE, Language, Search

WORDS = {
    "eng_Latn": ["one small red house", "two old green trees", "three young white dogs", "four long blue roads"],
    "deu_Latn": ["ein kleines rotes Haus", "zwei alte grüne Bäume", "drei junge weiße Hunde", "vier lange blaue Wege"],
    "fra_Latn": ["une petite maison rouge", "deux vieux arbres verts", "trois jeunes chiens", "quatre longues rues"],
}


class Phrasebook:
    """A space of four concepts, right angles to each other; what lies between decodes to the nearest."""

    name = "phrasebook"
    dim = 4
    max_tokens = 60

    def __init__(self, mute: str = "") -> None:
        self.languages = {code: Language(code, code, code) for code in WORDS}
        self.mute = mute  # a language in which it has no words
        self.encoded = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(self, texts, lang, *, progress=None) -> np.ndarray:
        self.encoded += len(texts)
        if progress:
            progress(len(texts), len(texts))
        return np.eye(4, dtype=np.float32)[[WORDS[lang].index(text) for text in texts]] * 2

    def decode(self, vectors, lang, *, search=Search(), progress=None) -> list[str]:
        if progress:
            progress(len(vectors), len(vectors))
        return ["…" if lang == self.mute else WORDS[lang][i] for i in vectors.argmax(1)]

    def alternatives(self, vectors, lang, *, search, progress=None) -> list[list[str]]:
        return [[text] for text in self.decode(vectors, lang)]

    def likelihood(self, texts, vectors, lang) -> np.ndarray:
        return np.array([-float(text != said) for text, said in zip(texts, self.decode(vectors, lang), strict=True)])


class Chosen(Phrasebook):
    """One that decodes to another language only with choice."""

    def decode(self, vectors, lang, *, search=Search(), progress=None) -> list[str]:
        found = super().decode(vectors, lang, progress=progress)
        return found if search == CHOICE else ["…"] * len(found)


def tsv(*rows: tuple[str, ...], end: str = "\n") -> bytes:
    return "".join("\t".join(row) + end for row in rows).encode()


def pairs(lang1: str, lang2: str) -> list[Pair]:
    return [Pair((lang1, lang2), texts) for texts in zip(WORDS[lang1], WORDS[lang2], strict=True)]


def test_a_perfect_space_scores_100() -> None:
    report = evaluate_space(Phrasebook(), pairs("eng_Latn", "deu_Latn") + pairs("deu_Latn", "fra_Latn"), gradients=12)
    assert [(row["lang1"], row["lang2"], row["pairs"]) for row in report["languages"]] == [
        ("eng_Latn", "deu_Latn", 4),
        ("deu_Latn", "fra_Latn", 4),
    ]
    for row in report["languages"]:
        assert row["bleu"] == dict.fromkeys(("1>1", "2>2", "1>2", "2>1"), 100)
        assert row["chrf"] == row["bleu"]
        assert row["retrieval"] == {"1>2": 100, "2>1": 100}
    summary = report["summary"]
    for name in ("english_to_itself", "others_to_themselves", "to_english", "from_english", "between_others"):
        assert summary[name] == {"bleu": 100, "chrf": 100}
    assert summary["retrieval"] == 100
    perfect = {"1-8 words": {"sentences": 16, "bleu": 100, "chrf": 100}}
    assert report["lengths"] == {"to themselves": perfect, "translated": perfect}
    # Six steps of a walk: one jumps to the other end, five stay where they are.
    jump = {"nearer": 16.67, "same": 83.33, "farther": 0}
    assert report["walk"] == {
        "gradients": 12,
        "sentences": 7,
        "equal_steps": jump,
        "gradient": jump,
        "new_midpoints": 0,
        "stable_midpoints": 100,
    }
    assert report["noise"]["0.1"] == {"unchanged": 100, "bleu": 100}
    json.dumps(report)
    assert "eng_Latn deu_Latn" in table(report)


def test_each_direction_is_scored_apart() -> None:
    report = evaluate_space(Phrasebook(mute="deu_Latn"), pairs("eng_Latn", "deu_Latn"), gradients=8)
    (row,) = report["languages"]
    assert row["bleu"] == {"1>1": 100, "2>2": 0, "1>2": 0, "2>1": 100}
    assert report["summary"]["english_to_itself"]["bleu"] == 100
    assert report["summary"]["others_to_themselves"]["bleu"] == 0
    assert report["summary"]["to_english"]["bleu"] == 100
    assert report["summary"]["from_english"]["bleu"] == 0
    assert report["summary"]["between_others"] == {"bleu": None, "chrf": None}
    assert report["walk"]["equal_steps"]["nearer"] == 8.33  # half the walks are mute
    assert "between others" not in table(report)


def test_translations_with_choice_are_scored_on_demand() -> None:
    report = evaluate_space(Chosen(), pairs("eng_Latn", "deu_Latn") + pairs("deu_Latn", "fra_Latn"), gradients=0)
    assert not [name for name in report["summary"] if "choice" in name]
    told: list[tuple[int, int]] = []
    report = evaluate_space(
        Chosen(),
        pairs("eng_Latn", "deu_Latn") + pairs("deu_Latn", "fra_Latn"),
        gradients=0,
        choice=True,
        progress=lambda *counts: told.append(counts),
    )
    summary = report["summary"]
    assert summary["to_english"]["bleu"] == summary["from_english"]["bleu"] == 0
    assert summary["to_english_with_choice"] == summary["from_english_with_choice"] == {"bleu": 100, "chrf": 100}
    assert "to english with choice" in table(report)
    assert told[-1][0] == told[-1][1]


def test_how_near_translations_are_is_told() -> None:
    report = evaluate_space(Phrasebook(), pairs("eng_Latn", "deu_Latn"), gradients=0)
    assert set(report["cosine"]["translations"].values()) == {1.0}
    assert set(report["cosine"]["others"].values()) == {0.0}
    assert "75 %" in table(report)
    alone = evaluate_space(Phrasebook(), pairs("eng_Latn", "deu_Latn")[:1], gradients=0)
    assert alone["cosine"]["others"] is None and "others" in table(alone)


def test_a_wrong_neighbour_is_counted() -> None:
    crossed = [
        Pair(p.langs, (p.texts[0], q.texts[1]))
        for p, q in zip(
            pairs("eng_Latn", "deu_Latn"), [*pairs("eng_Latn", "deu_Latn")[:2], *pairs("eng_Latn", "deu_Latn")[:1:-1]],
            strict=True,
        )
    ]  # fmt: skip
    (row,) = evaluate_space(Phrasebook(), crossed, gradients=0)["languages"]
    assert row["retrieval"] == {"1>2": 50, "2>1": 50}
    assert row["bleu"]["1>1"] == 100 > row["bleu"]["1>2"] > 0


def test_one_sentence_said_twice_is_encoded_once_and_found_either_way() -> None:
    space = Phrasebook()
    report = evaluate_space(space, pairs("eng_Latn", "deu_Latn") * 3, gradients=0)
    assert space.encoded == 8
    assert report["languages"][0]["retrieval"] == {"1>2": 100, "2>1": 100}
    assert report["walk"] is None
    assert "gradients" not in table(report)


def test_story_sentences_are_scored_by_language_and_length(tmp_path: Path) -> None:
    long = " ".join(["Words"] * 26) + "."
    records = [
        {"lang": "eng", "split": "valid", "text": f"One small red house. {long}\nNo. Two old green trees."},
        {"lang": "eng", "split": "train", "text": "Three young white dogs."},
        {"lang": "deu", "split": "valid", "text": "Ein kleines rotes Haus."},
    ]
    path = tmp_path / "documents.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    said = story_sentences(path, WORDS)
    assert said["stories"] == [
        ("eng_Latn", "One small red house."),
        ("eng_Latn", long),
        ("eng_Latn", "Two old green trees."),
        ("deu_Latn", "Ein kleines rotes Haus."),
    ]
    assert said["long sentences"] == [("eng_Latn", long)]
    told = {"stories": [("eng_Latn", WORDS["eng_Latn"][0]), ("deu_Latn", WORDS["deu_Latn"][1])]}
    report = evaluate_space(Phrasebook(mute="deu_Latn"), pairs("eng_Latn", "fra_Latn"), told, gradients=0)
    assert report["sentences"]["stories"]["eng_Latn"] == {"sentences": 1, "bleu": 100, "chrf": 100, "kept": 100}
    assert report["sentences"]["stories"]["deu_Latn"] == {"sentences": 1, "bleu": 0, "chrf": 0, "kept": 0}
    assert "stories, deu_Latn" in table(report)


def test_progress_ends_full_and_can_stop() -> None:
    seen: list[tuple[int, int]] = []
    evaluate_space(Phrasebook(), pairs("eng_Latn", "deu_Latn"), gradients=5, progress=lambda *now: seen.append(now))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        evaluate_space(Phrasebook(), pairs("eng_Latn", "deu_Latn"), progress=stop)


def test_reads_short_and_long_codes_plain_and_gzip() -> None:
    rows = [("eng", "deu_Latn", "one small red house", " ein kleines rotes Haus ", "tatoeba")]
    for data in (tsv(*rows), gzip.compress(tsv(*rows)), b"\xef\xbb\xbf" + tsv(*rows, end="\r\n") + b"\n"):
        assert read_pairs(data, "pairs.tsv", WORDS) == [pairs("eng_Latn", "deu_Latn")[0]]


def test_three_letters_must_name_one_language() -> None:
    codes = ("zho_Hans", "zho_Hant", "eng_Latn")
    assert language_codes(codes) == {c: c for c in codes} | {"eng": "eng_Latn"}


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (b"", CorpusError, "pairs.tsv is empty"),
        (b"\n  \n", CorpusError, "pairs.tsv is empty"),
        (b"eng\tdeu\tA house.\tEin Haus.\neng\tdeu\tA house.\n", CorpusError, "pairs.tsv, line 2: 3 columns"),
        (
            b"eng\txyz\tA house.\tEin Haus.\n",
            CorpusError,
            "pairs.tsv, line 1: the language 'xyz' is not one of eng_Latn",
        ),
        (b"\neng\tdeu\tA house.\t\n", CorpusError, "pairs.tsv, line 2: a text without words"),
        (b"eng\tdeu\t\xff\tEin Haus.\n", TextError, "not UTF-8"),
        (gzip.compress(b"eng\tdeu\tA house.\tEin Haus.\n")[:-9], CorpusError, "damaged gzip"),
        (b"\x1f\x8b\x08 no gzip at all", CorpusError, "damaged gzip"),
    ],
)
def test_bad_rows_are_named(data: bytes, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        read_pairs(data, "pairs.tsv", WORDS)


def test_thin_takes_evenly_from_each_pair_of_languages() -> None:
    many = [Pair(("eng_Latn", "deu_Latn"), (str(i), str(i))) for i in range(10)]
    few = [Pair(("deu_Latn", "fra_Latn"), ("x", "x"))]
    assert [pair.texts[0] for pair in thin(many[:3] + few + many[3:], 4)] == ["0", "2", "5", "7", "x"]
    assert thin(many, 100) == many


def test_the_real_space_finds_translations(e: engine.Engine) -> None:
    rows = [
        ("eng", "deu", "The dog is sleeping under the table.", "Der Hund schläft unter dem Tisch."),
        ("eng", "deu", "We are going to the market tomorrow.", "Wir gehen morgen auf den Markt."),
        ("eng", "deu", "She has lost her key.", "Sie hat ihren Schlüssel verloren."),
        ("eng", "deu", "It has been raining for three days.", "Es regnet seit drei Tagen."),
    ]
    report = evaluate_space(e.space, read_pairs(tsv(*rows), "pairs.tsv", e.space.languages), gradients=2)
    assert report["languages"][0]["retrieval"] == {"1>2": 100, "2>1": 100}
    assert report["summary"]["english_to_itself"]["chrf"] > 20
    walk = report["walk"]["equal_steps"]
    assert walk["nearer"] + walk["same"] + walk["farther"] == pytest.approx(100, abs=0.1)
    assert walk["nearer"] > walk["farther"]
