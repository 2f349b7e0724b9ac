import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from engine import ConceptNode, Engine, Language, Search
from engine.document import Document
from engine.errors import SeedError, TextError, VectorError, WeightsError
from engine.wording import Continuation, refined, worded


def test_importing_the_engine_is_light() -> None:
    code = "import engine, sys; print([m for m in ('umap', 'gradio', 'plotly', 'pandas', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_untouched_document_is_exported_as_it_was(e: Engine) -> None:
    text = "\ufeff  Title\r\n\r\nOne sentence. Another one!\r\n\r\n* * *\r\n\r\nThe last 😀\t\n"
    assert e.import_text(text, "eng_Latn").text == text


def test_a_gradient_leads_from_one_end_to_the_other(e: Engine) -> None:
    path = e.gradient("The dog is sleeping in the garden.", "He is tired.", 5, "eng_Latn")
    assert len(path) == 5 and path[0].startswith("The dog") and path[-1] == "He is tired."
    with pytest.raises(TextError, match="at least 2"):
        e.gradient("One.", "Two.", 1, "eng_Latn")


def test_continuing_is_seeded_and_ends(e: Engine, story: Document) -> None:
    begun = story.vectors[:6]
    first = e.continue_(begun, 3, "eng_Latn", seed=7)
    again = e.continue_(begun, 3, "eng_Latn", seed=7)
    assert [c.text for c in first] == [c.text for c in again] and 1 <= len(first) <= 3
    others = {c.text for seed in range(5) for c in e.continue_(begun, 1, "eng_Latn", seed=seed, temperature=1.0)}
    assert len(others) > 1
    assert len(e.continue_(begun, 4, "eng_Latn", seed=7, minimum=4)) == 4
    with pytest.raises(SeedError):
        e.continue_(begun, 1, "eng_Latn", seed=-1)
    with pytest.raises(SeedError):
        e.decode(begun, "eng_Latn", Search("sample", seed=-1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.CHOICES", 1)  # which is faster
        long = e.continue_(begun, 120, "eng_Latn", seed=1)
    assert len(long) < 120  # a document ends by itself
    german = e.continue_(begun, 1, "deu_Latn", seed=7)
    assert german[0].text != first[0].text


def test_of_what_is_drawn_the_surest_sentence_is_written(e: Engine, story: Document) -> None:
    said = ["The dog is sleeping in the garden.", "He is tired."]
    clear = e.encode(said, "eng_Latn")
    noise = np.random.default_rng(0).standard_normal(clear.shape).astype(np.float32)
    blurred = clear + 1.5 * noise * np.linalg.norm(clear, axis=1, keepdims=True) / np.linalg.norm(noise)
    drawn = np.concatenate([blurred, clear])
    found = worded(e.space, drawn, "eng_Latn")
    vectors, sure_ = refined(e.space, drawn, found, "eng_Latn")
    assert [one.text for one in found[2:]] == said and np.allclose(vectors[2:], clear, atol=1e-3)
    assert sure_[2:].min() > sure_[:2].max()

    def sure(temperature: float | None, seed: int) -> float:
        found = e.continue_(story.vectors[:4], 1, "eng_Latn", seed=seed, minimum=1, temperature=temperature)
        return float(e.space.likelihood([found[0].text], found[0].vector[None], "eng_Latn")[0])

    assert sure(0, 1) == sure(0, 2)  # at temperature 0 there is nothing to choose from
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.CHOICES", 1)
        single = np.mean([sure(1.0, seed) for seed in range(6)])
    assert np.mean([sure(1.0, seed) for seed in range(6)]) > single


@pytest.mark.parametrize(
    ("lang", "sentence", "written"),
    [
        ("eng_Latn", "Rabbit was always of text.", False),
        ("eng_Latn", "They lived of text!", False),
        ("eng_Latn", "She wrote a long text.", True),
        ("eng_Latn", "It was the end of the story.", True),
        ("eng_Latn", "The dog ran and ran and ran and ran.", False),  # says it over and over
        ("eng_Latn", "Der alte Mann ging langsam nach Hause.", False),  # leaves the language
        ("deu_Latn", "Der alte Mann ging langsam nach Hause.", True),
        ("eng_Latn", "...", False),
    ],
)
def test_what_must_not_be_written(e: Engine, lang: str, sentence: str, written: bool) -> None:
    """Nothing that is made of the concept by which documents end, loops, or is in another language."""
    end = e.decode(e.lcm().end.numpy()[None], lang)[0]
    vector = e.encode([sentence if written else "A dog."], lang)
    _, sure = refined(e.space, vector, [Continuation(sentence, vector[0])], lang, end)
    assert bool(np.isfinite(sure[0])) is written


def test_any_model_that_ships_goes_on(e: Engine, story: Document) -> None:
    assert e.models[0] == e.lcm().kind
    for kind in e.models:
        found = e.continue_(story.vectors[:4], 1, "eng_Latn", seed=3, minimum=1, model=kind)
        assert len(found) == 1 and found[0].text
        assert e.lcm(kind) is e.lcm(kind)
    with pytest.raises(WeightsError, match="no concept model called 'huge'"):
        e.continue_(story.vectors[:4], 1, "eng_Latn", model="huge")


def test_filling_in_is_seeded_and_offers_what_reads(e: Engine, story: Document) -> None:
    left, right = story.vectors[:3], story.vectors[4:]
    found = e.infill(left, right, 3, "eng_Latn", seed=2)
    assert 1 <= len(found) <= 3 and len({one.text for one in found}) == len(found)
    assert [one.text for one in e.infill(left, right, 3, "eng_Latn", seed=2)] == [one.text for one in found]
    assert np.allclose(e.encode([found[0].text], "eng_Latn")[0], found[0].vector, atol=1e-3)
    with pytest.raises(VectorError, match="nothing after the gap"):
        e.infill(left, right[:0], 1, "eng_Latn")


def test_continuing_from_nothing_begins_a_document(e: Engine) -> None:
    assert e.continue_(np.zeros((0, 512), np.float32), 2, "eng_Latn", seed=0)


def test_the_trajectory_as_a_table(e: Engine, story: Document) -> None:
    table = e.table(story)
    assert list(table.text) == [node.text for node in story.nodes]
    assert np.isnan(table.step[0]) and (table.step[1:] > 0).all()
    assert np.allclose(table[["x", "y"]], e.project(story.vectors), atol=1e-4)
    empty = e.table(Document("T", "eng_Latn", "builtin"))
    assert len(empty) == 0


class Echo:
    """A space that decodes at once, and counts what it decodes."""

    name, identity, dim = "echo", "echo 1", 2
    languages: ClassVar = {"eng_Latn": Language("eng_Latn", "English", "English")}

    def __init__(self) -> None:
        self.decoded = 0
        self.waits = threading.Barrier(1)

    def decode(self, vectors, lang, *, search=None, progress=None) -> list[str]:
        self.waits.wait(5)
        self.decoded += len(vectors)
        return [f"{lang} {vector[0]:.0f}" for vector in vectors]


def foreign(*numbers: int) -> Document:
    """A document whose sentences say those numbers, in a language that is not the one it will be read in."""
    nodes = tuple(ConceptNode(f"Nummer {i}", "deu_Latn", np.array([i, 1], np.float32)) for i in numbers)
    return Document("Numbers", "deu_Latn", "echo 1", nodes)


def said(*numbers: int) -> list[str]:
    return [f"eng_Latn {i}" for i in numbers]


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr("engine.READ_LIMIT", 10)
    return Engine(Echo())  # type: ignore[arg-type]


@pytest.mark.parametrize("known", [0, 1, 9, 10, 11, 12, 30])
@pytest.mark.parametrize("size", [1, 9, 10, 11, 25])
def test_reading_whatever_the_cache_holds(echo: Engine, known: int, size: int) -> None:
    """Beyond the limit the cache was emptied of what the reading had found there."""
    for i in range(known):
        echo.read(foreign(i), "eng_Latn")
    assert echo.read(foreign(*range(size)), "eng_Latn") == said(*range(size))
    decoded = echo.space.decoded  # type: ignore[attr-defined]
    assert echo.read(foreign(*range(size)), "eng_Latn") == said(*range(size))
    assert echo.space.decoded == decoded  # type: ignore[attr-defined]  # all of the document just read is there
    assert len(echo._read) <= max(10, size)


def test_what_was_read_last_is_kept(echo: Engine) -> None:
    echo.read(foreign(*range(8)), "eng_Latn")
    echo.read(foreign(0, 1, 2), "eng_Latn")
    echo.read(foreign(*range(20, 26)), "eng_Latn")
    decoded = echo.space.decoded  # type: ignore[attr-defined]
    assert echo.read(foreign(0, 1, 2), "eng_Latn") == said(0, 1, 2)
    assert echo.space.decoded == decoded and len(echo._read) == 10  # type: ignore[attr-defined]
    assert echo.read(foreign(), "eng_Latn") == []


def test_two_threads_read_at_once(echo: Engine) -> None:
    echo.read(foreign(*range(10)), "eng_Latn")
    echo.space.waits = threading.Barrier(2)  # type: ignore[attr-defined]  # both decode before either goes on
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(echo.read, foreign(*range(start, start + 15)), "eng_Latn") for start in (5, 100)]
        assert [job.result() for job in jobs] == [said(*range(5, 20)), said(*range(100, 115))]
    assert len(echo._read) == 15


def test_a_table_of_many_sentences_takes_no_square_of_them(echo: Engine) -> None:
    """20,000 sentences have 400 million pairs: 1.6 GB."""
    tracemalloc.start()
    table = echo.table(foreign(*range(1, 20_001)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table) == 20_000 and peak < 200e6
    assert table.step[1] == pytest.approx(1 - 3 / np.sqrt(2 * 5), abs=1e-6)
