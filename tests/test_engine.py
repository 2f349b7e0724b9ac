import subprocess
import sys

import numpy as np
import pytest

from engine import Engine, Search
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
