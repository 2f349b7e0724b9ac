"""The corpus as token ids and as batches: what is read, what is left out, and that a seed gives one stream."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from toy_space import ENGLISH, GERMAN, PIECES, TOKENIZER, tokenized, write_corpus, written

from engine.errors import CorpusError
from engine.training import corpus, tokens
from engine.training.batches import WINDOW, Batch, Batches, Mixture
from engine.training.tokens import LONGEST, Texts, Tokens, joined


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def spell(row: np.ndarray) -> str:
    return PIECES.decode([int(token) for token in row if token > 3])


def test_the_whole_corpus_is_read(texts: Path) -> None:
    found = tokenized(texts)
    assert [PIECES.decode(found.left[i]) for i in range(4)] == ENGLISH
    assert [PIECES.decode(found.right[i]) for i in range(4)] == GERMAN
    assert found.literature.langs.tolist() == [4, 2]
    assert np.diff(found.starts).tolist() == [4, 4, 4, 4]
    assert found.valid.tolist() == [False, True, False, False]
    assert found.novel.tolist() == [False, False, False, True]
    assert found.whole.tolist() == [True, True, True, False]  # a passage has no end


def test_what_is_held_out_or_too_long_is_left_out(texts: Path) -> None:
    written(texts, "valid.tsv.gz", [f"eng\tdeu\t{ENGLISH[0]}\t{GERMAN[0]}"])
    written(texts, "literature.tsv.gz", ["eng\t" + "word " * 100, "eng\tShort enough."])
    written(
        texts, "passages.jsonl.gz", ['{"lang": "eng", "split": "valid", "text": "' + "very long, " * 60 + 'it was."}']
    )
    found = tokenized(texts)
    assert len(found.left) == 3
    assert len(found.literature) == 1
    last = found.told.lengths[found.starts[-2] : found.starts[-1]]  # long sentences of documents are cut
    assert len(last) > 2 and last.max() <= LONGEST


def test_tokens_come_back_from_their_file(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "tokens.npz"
    options = ["--corpus", str(texts), "--tokenizer", str(TOKENIZER), "--out", str(out)]
    assert tokens.main(options) == 0
    assert "4 pairs, 6 sentences, 2 of novels, 16 of 4 documents" in capsys.readouterr().out
    again, own = Tokens.load(out).arrays(), tokenized(texts).arrays()
    assert again.keys() == own.keys()
    assert all(np.array_equal(again[name], own[name]) for name in own)
    for damage in (b"", b"PK no", out.read_bytes()[:-200]):
        out.write_bytes(damage)
        with pytest.raises(CorpusError, match=r"tokens.npz is missing or damaged"):
            Tokens.load(out)
    with pytest.raises(CorpusError, match="missing or damaged"):
        Tokens.load(tmp_path / "none.npz")


def test_texts_are_chosen_joined_and_padded() -> None:
    texts = Texts(np.array([5, 6, 7, 8, 9], np.uint16), np.array([0, 2, 2, 5]), np.array([0, 1, 2], np.uint8))
    chosen = texts.rows(np.array([2, 0, 1, 2]))
    assert [chosen[i] for i in range(4)] == [[7, 8, 9], [5, 6], [], [7, 8, 9]]
    assert chosen.langs.tolist() == [2, 0, 1, 2]
    assert joined([texts, chosen])[5] == [] and joined([texts, chosen])[6] == [7, 8, 9]
    assert texts.padded([2], [3], 4).tolist() == [
        [2, 5, 6, 3, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0, 0],
        [2, 7, 8, 9, 3, 0, 0, 0],
    ]
    assert texts.rows(np.array([], int)).padded([2]).shape == (0, 1)


def parts(batch: Batch) -> list[tuple[str, int, str]]:
    """(what is heard, the language and the words that it is decoded to) of each target."""
    wanted = np.zeros((len(batch.inputs), batch.inputs.shape[1] + 1), np.int64)
    wanted.ravel()[batch.places] = batch.wanted
    assert np.array_equal(np.where(wanted[:, :-1] == 3, 0, wanted[:, :-1]), batch.inputs)
    return [
        (spell(batch.sources[row]), int(lang), spell(said))
        for row, lang, said in zip(batch.rows, batch.langs, wanted, strict=True)
    ]


@pytest.mark.parametrize("translate", [0.0, 1.0])
def test_a_pair_is_encoded_once_and_decoded_more_often(texts: Path, translate: float) -> None:
    """Each side comes back in its own language; English is always translated, the others as often as is wished."""
    mixture = Mixture(batch=200, pair_share=1.0, join=0.0, translate=translate)
    batch = next(Batches(tokenized(texts), mixture).stream())
    said = parts(batch)
    for first in batch.pairs:
        english, german = spell(batch.sources[first]), spell(batch.sources[first + 1])
        assert GERMAN[ENGLISH.index(english)] == german
        own = {(english, 0, english), (german, 1, german), (german, 0, english)}
        crossed = {(english, 1, german)}
        assert own <= set(said)
        assert bool(crossed & set(said)) is (translate == 1.0)
    assert len(said) == len(batch.pairs) * (4 if translate else 3)


def test_batches_are_the_same_for_the_same_seed_and_fill_their_tokens(texts: Path) -> None:
    found = tokenized(texts)
    first = list(islice(Batches(found, Mixture(batch=200)).stream(), WINDOW + 20))

    def same(a: Batch, b: Batch) -> bool:
        return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))

    again = islice(Batches(found, Mixture(batch=200)).stream(WINDOW + 5), 15)
    assert all(map(same, again, first[WINDOW + 5 :]))
    other = next(Batches(found, Mixture(batch=200, seed=1)).stream())
    assert not same(other, first[0])
    costs = [batch.cost for batch in first]
    assert 150 < np.mean(costs) < 300 and max(costs) < 500  # a batch of 200 is a handful of units
    assert {lang for batch in first for lang in batch.langs.tolist()} == {0, 1, 2, 3, 4}


def test_a_gpu_gets_rows_of_multiples_of_eight(texts: Path) -> None:
    for batch in islice(Batches(tokenized(texts), Mixture(batch=300), 8).stream(), 5):
        assert batch.sources.shape[1] % 8 == 0
        assert (batch.inputs.shape[1] + 1) % 8 == 0  # the language stands in front


def test_corruption_keeps_something_and_changes_only_what_is_heard(texts: Path) -> None:
    found = tokenized(texts)
    mixture = Mixture(batch=2000, pair_share=0.0, corrupt=1.0, join=0.0)
    changed = 0
    kinds = (found.left, found.right, found.singles, found.literature, found.told)
    known = {PIECES.decode(kind[i]) for kind in kinds for i in range(len(kind))}
    for heard, _, said in parts(next(Batches(found, mixture).stream())):
        assert heard and said in known
        changed += heard != said
    assert changed > 10


def test_a_corpus_without_novels_will_do(texts: Path) -> None:
    (texts / "literature.tsv.gz").unlink()
    (texts / "passages.jsonl.gz").unlink()
    found = tokenized(texts)
    assert len(found.literature) == 0 and not found.novel.any()
    assert next(Batches(found, Mixture(batch=200)).stream()).cost > 0


def test_sentences_are_joined_with_what_follows(texts: Path) -> None:
    mixture = Mixture(batch=400, pair_share=0.0, story_share=1.0, literature_share=0.0, join=1.0, corrupt=0.0)
    said = {words for _, _, words in parts(next(Batches(tokenized(texts), mixture).stream()))}
    assert f"{ENGLISH[0]} {ENGLISH[1]}" in said


def test_repetitions_and_wild_translations_are_left_out(texts: Path) -> None:
    written(
        texts,
        "pairs.tsv.gz",
        [
            "eng\tdeu\tGood morning!\tGuten Morgen!",
            "eng\tdeu\tgood morning\tguten morgen",
            "eng\tdeu\tHi.\t" + "Lang " * 20,
        ],
    )
    assert [p[2] for p in corpus.distinct_pairs(texts)] == ["Good morning!"]
    written(texts, "sentences.tsv.gz", ["eng\tGood morning!", "eng\tGOOD  morning", "deu\tGood morning"])
    assert [lang for lang, _ in corpus.distinct_sentences(texts)] == ["eng", "deu"]


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("pairs.tsv.gz", ["eng\tdeu\tOnly three columns."], "pairs.tsv.gz, line 1: 3 columns where 4 are needed"),
        ("pairs.tsv.gz", ["eng\txyz\tA.\tB."], "unknown language 'xyz'"),
        (
            "sentences.tsv.gz",
            ["eng\tA sentence.", "klingon\tB."],
            "sentences.tsv.gz, line 2: unknown language 'klingon'",
        ),
        ("sentences.tsv.gz", [], "sentences.tsv.gz is empty"),
        ("literature.tsv.gz", ["eng"], "literature.tsv.gz, line 1: 1 columns where 2 are needed"),
        ("documents.jsonl.gz", ["{no json"], "documents.jsonl.gz, line 1: not a document record"),
        ("documents.jsonl.gz", ['{"lang": "eng", "split": "train"}'], "not a document record"),
        ("passages.jsonl.gz", ["[]"], "passages.jsonl.gz, line 1: not a document record"),
    ],
)
def test_a_bad_corpus_is_named(
    texts: Path, name: str, lines: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written(texts, name, lines)
    with pytest.raises(CorpusError, match=sentence):
        tokenized(texts)
    assert tokens.main(["--corpus", str(texts), "--tokenizer", str(TOKENIZER), "--out", str(texts / "t.npz")]) == 2
    assert sentence in capsys.readouterr().err
