"""The landscape's recipe: which sentences it takes, what it names regions, and how it is trained and written."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy_space import TOKENIZER, write_start, written

from engine.errors import CorpusError, TrainingError
from engine.projection import SCALES, Label, Landscape, Reference, Source
from engine.projection.references import pack, unpack
from engine.spaces.builtin import BuiltinSpace
from engine.training import landscape as recipe
from engine.training.corpus import LANGUAGES
from engine.training.labels import MOST, Vocabulary, Words, labels
from engine.training.landscape import Recipe, main, make, train
from engine.training.references import attribution, sample, works

NOVELS = {
    "eng": "ELTeC:ENG19192_Woolf",
    "deu": "ELTeC:DEU066",
    "fra": "ELTeC:FRA04002_Verne",
    "spa": "ELTeC:SPA4015_Unamuno_AbelSanchez",
    "ita": "ELTeC:IT18921_Svevo_Una-vita",
    "por": "ELTeC:POR0023_AleHer_Eurico",
}
TOPICS = {
    "sea": ["ship", "captain", "sea", "sailor"],
    "letter": ["letter", "pen", "envelope", "page"],
    "war": ["soldier", "battle", "gun", "army"],
    "house": ["kitchen", "door", "window", "roof"],
}


def numbered(lang: str, kind: str, n: int) -> list[str]:
    """Sentences that differ, n of them, none with the opening of another."""
    return [f"{kind.capitalize()}{lang}{i} stood {i} miles from there." for i in range(n)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    novels, singles = [], []
    for lang in LANGUAGES:
        novels += [f"{lang}\t{text}\t{NOVELS[lang]}" for text in numbered(lang, "novel", 60)]
        novels += [f"{lang}\t{text}\tELTeC:ENG19100_Forster" for text in numbered(lang, "kept", 60)]
        singles += [f"{lang}\t{text}\ttatoeba-otherpairs" for text in numbered(lang, "everyday", 60)]
        singles += [f"{lang}\t{text}\tcommonvoice-cc0" for text in numbered(lang, "prompt", 60)]
        singles += [f"{lang}\t{text}\tsomewhere" for text in numbered(lang, "unknown", 60)]
    for i, (_, words) in enumerate(itertools.product(range(15), TOPICS.values())):
        rng = random.Random(i)
        for one, other in itertools.combinations(words, 2):
            opening = f"W{i}x{rng.randrange(10**6)}"
            novels.append(f"eng\t{opening} saw the {one} and the {other}.\t{NOVELS['eng']}")
    written(folder, "literature.tsv.gz", novels)
    written(folder, "sentences.tsv.gz", singles)
    told = [
        {"lang": lang, "split": "train", "source": source, "text": " ".join(numbered(lang, kind, 20))}
        for lang in LANGUAGES
        for kind, source in (("tiny", "TinyStories|x"), ("story", "global-asp/asp-source:en/0276_big-blue-bus.md"))
    ]
    written(folder, "documents.jsonl.gz", list(map(json.dumps, told)))
    return folder


# The sentences


def test_only_what_may_be_shown_is_a_reference(corpus):
    parts = sample(corpus, references=20, others=60, unseen=5, english=10)
    assert Counter(s.lang for s in parts.references) == dict.fromkeys(LANGUAGES, 20)
    kinds = Counter(s.text.split(s.lang)[0].rstrip("x0123456789") for s in parts.references if s.lang != "eng")
    assert set(kinds) == {"Novel", "Everyday", "Prompt", "Story"}
    assert kinds["Novel"] >= sum(kinds.values()) / 2
    assert all(s.source for s in parts.references)
    assert {s.text[:4] for s in parts.others} >= {"Tiny", "Kept", "Unkn"}  # these only teach the network
    everything = [s for part in (parts.references, parts.others, parts.unseen, parts.english) for s in part]
    assert len({(s.lang, s.text) for s in everything}) == len(everything)
    assert {s.lang for s in parts.english} == {"eng"}
    assert parts == sample(corpus, references=20, others=60, unseen=5, english=10)
    assert parts != sample(corpus, references=20, others=60, unseen=5, english=10, seed=1)


def test_a_corpus_with_too_little_to_show_is_refused(corpus, tmp_path):
    with pytest.raises(CorpusError, match=r"sentences in eng that may be shown .* 5000 are needed"):
        sample(corpus, references=5000, others=1, unseen=1, english=1)
    with pytest.raises(CorpusError, match="0 sentences in eng"):
        sample(corpus, references=20, others=1, unseen=1, english=1, fits=lambda text: False)
    written(tmp_path, "sentences.tsv.gz", ["eng\tThis sentence stands alone here.\ttatoeba"])
    written(tmp_path, "documents.jsonl.gz", ["[1]"])
    with pytest.raises(CorpusError, match="line 1: not a document record"):
        sample(tmp_path, references=1, others=1, unseen=1, english=1)


def test_fragments_examples_and_insults_are_no_references(tmp_path):
    good = "She went down to the sea."
    bad = ["and went down to the sea", "“She went down to the sea.", "Too short.", "Ein alter Neger ging zum Meer."]
    bad.append("and then she went down to the sea.")
    bad.append("She went down to see Mr.")
    bad.append("Tom went down to the sea.")
    bad.append("A word " * 30 + "too many.")
    written(tmp_path, "sentences.tsv.gz", [f"eng\t{text}\ttatoeba" for text in [*bad, good, good.upper()]])
    written(tmp_path, "documents.jsonl.gz", [])
    with pytest.raises(CorpusError, match="1 sentences in eng"):
        sample(tmp_path, references=2, others=0, unseen=0, english=0)


def test_the_works_that_may_be_shown():
    known = works()
    assert known["tatoeba"].licence == "CC BY 2.0 FR" and known["commonvoice-cc0"].licence == "CC0"
    assert known[NOVELS["eng"]] == Source("Virginia Woolf, Night and day (1919)", "public domain")
    assert "ELTeC:ENG19100_Forster" not in known  # in copyright where it lasts 70 years after an author's death
    assert {source.licence for source in known.values()} == {"public domain", "CC BY", "CC BY 2.0 FR", "CC0"}
    assert all(source.credit.strip() for source in known.values())


def test_the_attribution_names_every_work():
    a, b = Source("Ada, A Novel (1880)", "public domain"), Source("Tatoeba", "CC BY 2.0 FR")
    told = attribution([Reference("One.", a), Reference("Two.", b), Reference("Three.", a)])
    assert "Ada, A Novel (1880): 2" in told and "Tatoeba: 1" in told
    assert told.index("## CC BY 2.0 FR: 1") < told.index("## Public domain: 2")


@pytest.mark.parametrize("text", ["", "\n\t\r\x00\u2028", "日本語 🏳️‍🌈 עברית", '"\\<b>&amp;', "e\u0301 \ud83d"])
def test_any_text_comes_back_as_it_was(text):
    references = [Reference(text, Source("Ö", "x")), Reference("Other.", Source("A", "y"))] * 3
    tensors, table = pack(references)
    assert unpack(tensors["texts"].float(), tensors["source"].float(), table) == references


def test_damaged_texts_are_refused():
    tensors, table = pack([Reference("One sentence.", Source("a", "b"))] * 2)
    for texts, rows in (
        (tensors["texts"][:-20], tensors["source"]),
        (tensors["texts"][:0], tensors["source"]),
        (tensors["texts"] * 0, tensors["source"]),
        (tensors["texts"], tensors["source"][:1]),
    ):
        with pytest.raises(ValueError, match="texts are"):
            unpack(texts, rows, table)


# The labels

CORNERS = np.array([[-0.7, -0.7], [-0.7, 0.7], [0.7, -0.7], [0.7, 0.7]])


def topical(n: int) -> tuple[np.ndarray, list[str]]:
    """Sentences of four topics, each in a corner of the map."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(n):
        one, other = rng.choice(list(TOPICS.values())[i % 4], 2, replace=False)
        texts.append(f"Then Anna saw the {one} and the {other}, my {one} or your {other}.")
    return CORNERS[np.arange(n) % 4] + rng.uniform(-0.25, 0.25, (n, 2)), texts


@pytest.fixture(scope="module")
def named() -> list[Label]:
    points, texts = topical(2_000)
    return labels(points, points, texts, Vocabulary.of(texts))


def test_labels_are_typical_words_where_they_are_at_home(named):
    assert {label.level for label in named} == {0, 1, 2} == set(range(len(SCALES)))
    for label in named:
        words = set(label.text.split(" · "))
        corner = np.linalg.norm(CORNERS - [label.x, label.y], axis=1).argmin()
        assert words <= set(list(TOPICS.values())[corner])
    assert {label.text.split(" · ")[0] for label in named if label.level == 0} & set(TOPICS["sea"])


def test_labels_of_a_level_are_distinct_inside_the_map_and_apart(named):
    points, _ = topical(2_000)
    for level, most in enumerate(MOST):
        own = [label for label in named if label.level == level]
        words = [word for label in own for word in label.text.split(" · ")]
        assert 4 <= len(own) <= most and len(words) == len(set(words))
        for a, b in itertools.combinations(own, 2):
            apart = np.abs([a.x - b.x, a.y - b.y]) * SCALES[level]
            assert apart[0] > 30 or apart[1] > 15
        for label in own:
            assert abs(label.x) <= 1 and abs(label.y) <= 1
            assert np.linalg.norm(points - [label.x, label.y], axis=1).min() < 0.1


def test_words_that_are_everywhere_name_nothing():
    points, texts = topical(2_000)
    scattered = np.random.default_rng(1).permutation(points)
    assert len(labels(points, scattered, texts, Vocabulary.of(texts))) <= 3
    assert labels(points[:2], points[:2], texts[:2], Vocabulary.of(texts)) == []


def test_questions_have_a_name():
    points, texts = topical(2_000)
    texts = [text.replace(".", "?") if i % 4 == 0 else text for i, text in enumerate(texts)]
    found = [label for label in labels(points, points, texts, Vocabulary.of(texts)) if "questions" in label.text]
    assert found and all(np.linalg.norm(CORNERS[0] - [label.x, label.y]) < 0.4 for label in found)


def test_names_and_stop_words_are_no_labels():
    texts = ["The old ship met Anna and the captain there.", "So they began to sail the ship."] * 10
    vocabulary = Vocabulary.of(texts)
    assert vocabulary.nouns == {"ship", "captain"}
    assert {"sail", "began"} <= vocabulary.others
    assert all(vocabulary.weight(word) == 0 for word in ("Anna", "anna", "the", "there", "old"))
    assert vocabulary.weight("ship") > vocabulary.weight("sail") > 0


def test_forms_of_a_word_are_one():
    texts = (
        ["The boat and boats are here.", "A boat came with boats.", "A boat."] * 5 + ["A cat."] * 15 + ["A dog."] * 3
    )
    words = Words.of(texts, Vocabulary({"boat", "boats", "cat", "dog"}, set()))
    assert words.shown == ["boat", "cat"]  # too few dogs to say
    assert [len(rows) for rows in words.rows] == [15, 15]


# The network


def points_of(vectors: np.ndarray) -> np.ndarray:
    return np.tanh(vectors[:, :2]).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 48)).astype(np.float32)


@pytest.mark.parametrize("limits", [{"steps": 40}, {"budget": 0.01}])
def test_training_ends_cooled_down(vectors, monkeypatch, limits):
    rates = []
    step = recipe.torch.optim.AdamW.step

    def noted(self, *args, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    monkeypatch.setattr(recipe.torch.optim.AdamW, "step", noted)
    train(vectors, points_of(vectors), Recipe(batch=64, **limits))
    assert max(rates) > 0.8 * Recipe.rate
    assert rates[-1] < 0.25 * Recipe.rate and rates[-1] == min(rates[len(rates) // 2 :])


@pytest.mark.parametrize("options", [["--budget", "0"], ["--budget", "-1"], ["--steps", "0"]])
def test_no_time_to_train_in_is_refused_with_one_sentence(corpus, tmp_path, capsys, options):
    out = tmp_path / "landscape.safetensors"
    assert main(["--corpus", str(corpus), "--out", str(out), *options]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "--budget" in said.err and said.out == ""
    assert not out.exists()
    with pytest.raises(TrainingError):
        train(np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32), Recipe(budget=0))


# All of it


class Plane:
    """Stands in for UMAP, which takes a minute to compile: the first two components of a concept."""

    def __init__(self, vectors: np.ndarray, recipe: Recipe) -> None:
        self.coordinates = self.place(vectors)

    def place(self, vectors: np.ndarray) -> np.ndarray:
        return points_of(vectors)


@pytest.fixture(scope="module")
def small(corpus, tmp_path_factory) -> tuple[BuiltinSpace, Path, Landscape]:
    """A landscape of a toy space, whose concepts have 48 components."""
    folder = tmp_path_factory.mktemp("small")
    start = write_start(folder / "space")
    (start / "tokenizer.model").write_bytes(TOKENIZER.read_bytes())
    space = BuiltinSpace.load(start)
    numbers = Recipe(references=10, others=3, unseen=2, english=200, mixtures=20, steps=30, batch=32, grid=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "Teacher", Plane)
        return space, folder / "made.safetensors", make(corpus, folder / "made.safetensors", numbers, space)


def test_a_landscape_is_made_and_read(small):
    space, path, made = small
    assert made.vectors.shape == (60, 48) and made.coordinates.shape == (60, 2)
    again = Landscape.load(path, space.fingerprint)
    assert len(again.references) == 60 and again.references == made.references
    assert Counter(again.languages) == dict.fromkeys(BuiltinSpace.languages, 10)
    assert again.labels == made.labels and {label.level for label in made.labels} <= {0, 1, 2}
    assert made.error["placement_median"] >= 0
    # Each text is that of its vector.
    english = [i for i, code in enumerate(again.languages) if code == "eng_Latn"]
    vectors = space.encode([again.references[i].text for i in english], "eng_Latn")
    assert np.allclose(vectors, again.vectors[english], atol=0.1)
    assert "Virginia Woolf, Night and day (1919)" in path.with_suffix(".md").read_text("utf-8")
