"""Decoding with choice, what the decoder is kept from, and other wordings: on toys whose answers are known, and the
real space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Engine, text
from engine.concepts import cosine
from engine.editor import Editor
from engine.errors import Cancelled, LanguageError, VectorError, WeightsError
from engine.spaces import CHOICE, Search
from engine.spaces.builtin import ASSETS, EOS, LANGUAGES, BuiltinSpace, load_foreign
from engine.spaces.choice import PLACE, ROWS, nearest, nearness
from engine.spaces.decoding import Decoding, Limits, forbid_loops
from engine.spaces.transformer import FIRST_DECODER, TextDecoder
from engine.wording import NEAR, SURE, other_wordings

SAID = {
    "eng_Latn": "The old man went slowly to his small house.",
    "deu_Latn": "Der alte Mann ging langsam nach Hause.",
    "fra_Latn": "Il a perdu la clé de sa voiture hier soir.",
    "spa_Latn": "Mi hermana lee un libro en el jardín.",
    "ita_Latn": "Domani andiamo al mercato con i bambini.",
    "por_Latn": "Ela não sabe onde está o seu irmão.",
}


class Compass:
    """A space of directions: a sentence is its own angle in degrees, and its beams are those it was given."""

    name = "compass"
    dim = 2
    max_tokens = 5
    languages = LANGUAGES

    def __init__(self, *beams: list[str]) -> None:
        self.beams = beams
        self.encoded: list[list[str]] = []
        self.decoded = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(self, texts, lang, *, progress=None) -> np.ndarray:
        self.encoded.append(list(texts))
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32).reshape(-1, 2)

    def alternatives(self, vectors, lang, *, search, progress=None) -> list[list[str]]:
        if lang not in self.languages:
            raise LanguageError(f"'{lang}'")
        assert search.kind == "beam"
        self.decoded += len(vectors)
        return [found[: search.alternatives] for found in self.beams[self.decoded - len(vectors) : self.decoded]]


NORTH = np.array([[1.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("beams", "ranked"),
    [
        (["it is 40", "it is 5", "it is 20"], ["it is 5", "it is 20", "it is 40"]),
        (["it is 5", "it is -5", "it is 4"], ["it is 5", "it is -5", "it is 4"]),  # about as near: the beams' order
        (["…", "it is 90", "!"], ["it is 90", "…", "!"]),
        (["…", "", "!"], ["…", "", "!"]),
        (["so long that it has no concept 0", "it is 80"], ["it is 80", "so long that it has no concept 0"]),
    ],
)
def test_the_nearest_wins(beams: list[str], ranked: list[str]) -> None:
    assert nearest(Compass(beams), NORTH, "eng_Latn", Search("nearest", alternatives=3)) == [ranked]
    assert nearest(Compass(beams), NORTH, "eng_Latn", Search("nearest", beams=3)) == [ranked[:1]]


def test_candidates_are_encoded_together() -> None:
    space = Compass(["it is 30", "so is 2"], ["…"], ["it is 30", "it is 1"])
    assert nearest(space, np.repeat(NORTH, 3, 0), "eng_Latn", CHOICE) == [["so is 2"], ["…"], ["it is 1"]]
    assert [sorted(texts) for texts in space.encoded] == [["it is 1", "it is 30", "so is 2"]]
    assert nearest(Compass(), NORTH[:0], "eng_Latn", CHOICE) == []
    with pytest.raises(LanguageError):
        nearest(Compass(), NORTH[:0], "xxx_Latn", CHOICE)
    with pytest.raises(VectorError):
        nearest(Compass(["it is 30"]), NORTH * np.nan, "eng_Latn", CHOICE)


def test_choice_tells_progress_and_can_be_stopped() -> None:
    count = 2 * ROWS + 3
    vectors, told = np.repeat(NORTH, count, 0), []
    found = nearest(
        Compass(*[["it is 3"]] * count), vectors, "eng_Latn", CHOICE, lambda done, total: told.append((done, total))
    )
    assert len(found) == count
    assert told == [(ROWS, count), (2 * ROWS, count), (count, count)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        nearest(Compass(*[["it is 3"]] * count), vectors, "eng_Latn", CHOICE, stop)


@pytest.fixture(scope="module")
def concepts(e: Engine) -> np.ndarray:
    return np.concatenate([e.encode([sentence], lang) for lang, sentence in SAID.items()])


@pytest.mark.parametrize("lang", ["eng_Latn", "deu_Latn", "fra_Latn", "por_Latn"])
def test_in_the_real_space_the_choice_is_the_nearest_beam(e: Engine, concepts: np.ndarray, lang: str) -> None:
    beams = e.alternatives(concepts, lang, Search("beam", beams=6, alternatives=6))
    chosen = e.decode(concepts, lang, CHOICE)
    near = nearness(e.space, concepts, beams, lang)
    for own, cosines, sentence in zip(beams, near, chosen, strict=True):
        worth = cosines - PLACE * np.arange(len(own))
        assert worth[own.index(sentence)] >= worth.max() - 1e-4
    assert e.decode(concepts, lang, CHOICE) == chosen
    assert [e.decode(vector[None], lang, CHOICE)[0] for vector in concepts[:3]] == chosen[:3]  # the batch says nothing
    ranked = e.alternatives(concepts[:1], lang, replace(CHOICE, alternatives=4))[0]
    assert ranked[0] == chosen[0] and 1 < len(ranked) == len(set(ranked)) <= 4


def test_a_document_is_read_with_choice_and_the_slider_is_not(
    e: Engine, story, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []
    decode = e.space.alternatives

    def listening(vectors, lang, *, search, progress=None):
        kinds.append(search.kind)
        return decode(vectors, lang, search=search, progress=progress)

    monkeypatch.setattr(e.space, "alternatives", listening)
    editor = Editor(e, replace(story, nodes=story.nodes[:2]))
    first, second = (node.id for node in editor.document.nodes)
    editor.preview_interpolation(first, second, 0.5, "ita_Latn")
    assert kinds == ["greedy"]
    e.decode(story.vectors[:1], "ita_Latn", CHOICE)
    assert kinds[1:] == ["nearest", "beam"]
    kinds.clear()
    editor.translate("ita_Latn")
    assert kinds == ["nearest", "beam"]
    assert [node.text for node in editor.document.nodes] == e.decode(story.vectors[:2], "ita_Latn", CHOICE)


# What a weak decoder is kept from


def loops(tokens: list[int], sounds: torch.Tensor) -> bool:
    """Whether up to three tokens come three times in a row (sounds four times), or four come twice anywhere."""
    runs = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return len(set(runs)) < len(runs) or any(
        tokens[i : i + times * period] == tokens[i : i + period] * times
        for period in (1, 2, 3)
        for i in range(len(tokens))
        for times in [4 if sounds[tokens[i : i + period]].all() else 3]
        if i + times * period <= len(tokens)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_a_decoder_that_loops_is_kept_from_it(kind, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = {"vocabulary": 12, "width": 16, "layers": 1, "heads": 2, "hidden": 16, "concept": 8, "languages": 2}
    decoder = TextDecoder(replace(FIRST_DECODER, **sizes)).eval()
    limits = Limits(torch.arange(12) == 7, torch.zeros(2, 12, dtype=torch.bool))
    limits.foreign[1, 4:6] = True
    found = {}
    with torch.inference_mode():
        for limited in (None, limits):
            decoding = Decoding(decoder, EOS, (0, 1, 2), limited)
            search = Search(kind, temperature=0.5, beams=4, alternatives=4)
            for language in (0, 1):
                hypotheses = decoding(torch.ones(3, 8), language, search, 40)
                found[limited is None, language] = [tokens for own in hypotheses for tokens in own]
    assert any(loops(tokens, limits.sounds) for tokens in found[True, 0])
    assert not any(loops(tokens, limits.sounds) for tokens in found[False, 0] + found[False, 1])
    assert not {4, 5}.intersection(token for tokens in found[False, 1] for token in tokens)
    assert not {0, 1, 2}.intersection(token for own in found.values() for tokens in own for token in tokens)


def test_loops_are_stopped_where_they_close() -> None:
    sounds = torch.arange(20) == 9

    def ruled_out(*tokens: int) -> list[int]:
        logits = torch.zeros(2, 20)
        forbid_loops(logits, torch.tensor([tokens, range(len(tokens))]), sounds)
        assert torch.isfinite(logits[1]).all()
        return logits[0].isinf().nonzero()[:, 0].tolist()

    assert ruled_out(11, 11) == [11]
    assert ruled_out(11) == ruled_out(11, 12, 11) == ruled_out(11, 12, 11, 12) == []
    assert ruled_out(11, 12, 11, 12, 11) == [12]
    assert ruled_out(11, 12, 13, 11, 12, 13, 11, 12) == [13]
    assert ruled_out(9, 9) == [] and ruled_out(9, 9, 9) == [9]
    assert ruled_out(9, 12, 9, 12, 9) == [12]


def refused(space: BuiltinSpace, sentence: str, lang: str = "eng_Latn") -> bool:
    """Whether the decoder can't write a sentence, whatever it is asked."""
    tokens = space.tokens(sentence)
    for i, token in enumerate(tokens):
        logits = torch.zeros(1, len(space.decoder.embed.weight))
        space.codec.decoding.forbid(logits, torch.tensor([tokens[:i]], dtype=torch.long), space.language(lang))
        if logits[0, token].isinf():
            return True
    return False


@pytest.mark.parametrize(
    "sentence",
    [
        "He saw the the the dog.",
        "It was very, very, very, very good.",
        "She went to the to the to the market.",
        "woof woof woof woof woof",
        "He is a a a man.",
        "The old man and the sea and the old man and the sea.",
    ],
)
def test_loops_are_not_written(e: Engine, sentence: str) -> None:
    assert refused(e.space, sentence)


@pytest.mark.parametrize(
    ("sentence", "lang"),
    [
        ("It was very very cold.", "eng_Latn"),
        ("It was very, very, very cold.", "eng_Latn"),
        ("She had had a dog.", "eng_Latn"),
        ("Ha ha ha!", "eng_Latn"),
        ("No, no, no!", "eng_Latn"),
        ("It costs 1,000,000 dollars.", "eng_Latn"),
        ("Louis XVIII was a king.", "eng_Latn"),
        ("Die, die die Katze sahen, lachten.", "deu_Latn"),
        ("Nous nous sommes vus hier.", "fra_Latn"),
        ("¡Ja, ja, ja!", "spa_Latn"),
        ("Oslo é a capital da Noruega.", "por_Latn"),
        ("Sarah e Max abitano a New York con il signor Müller.", "ita_Latn"),
        ("Er kauft ein T-Shirt von Claude Monet für 30 Euro.", "deu_Latn"),
    ],
)
def test_what_people_write_can_be_written(e: Engine, sentence: str, lang: str) -> None:
    assert not refused(e.space, sentence, lang)


@pytest.mark.parametrize(
    ("sentence", "lang"),
    [
        ("Siamo ancora a venti minuti di distância.", "ita_Latn"),
        ("Meine Eltern mögen ihn nicht because er alt ist.", "deu_Latn"),
        ("He bought it for construir a house.", "eng_Latn"),
        ("Il est dans le garden avec lei.", "fra_Latn"),
    ],
)
def test_foreign_words_are_not_written(e: Engine, sentence: str, lang: str) -> None:
    assert refused(e.space, sentence, lang)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])  # nearest takes from beam's
def test_foreign_pieces_never_come_out(e: Engine, concepts: np.ndarray, kind, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, german = e.space.codec.decoding, e.space.language("deu_Latn")
    search = Search(kind, beams=3, temperature=1.5, alternatives=3, max_tokens=16)

    def pieces(lang: str) -> set[int]:
        found = e.space.codec.decode(concepts[:3], e.space.language(lang), search, tuple)  # type: ignore[arg-type]
        return {token for hypotheses in found for tokens in hypotheses for token in tokens}

    usual, others = pieces("deu_Latn"), pieces("fra_Latn")
    foreign = decoding.limits.foreign.clone()
    assert not foreign[german, sorted(usual)].any()
    foreign[german, sorted(usual)] = True  # what it would like to say
    monkeypatch.setattr(decoding, "limits", replace(decoding.limits, foreign=foreign))
    assert pieces("deu_Latn") and not pieces("deu_Latn") & usual
    assert pieces("fra_Latn") == others


def test_pieces_belong_to_a_tokenizer(tmp_path: Path) -> None:
    found = load_foreign(ASSETS / "pieces.safetensors", ASSETS / "tokenizer.model")
    assert found.shape == (6, 23_992) and found.dtype == torch.bool
    assert (ASSETS / "pieces.safetensors").stat().st_size < 20_000
    (tmp_path / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(WeightsError, match=r"made for another tokenizer\.model; get both"):
        load_foreign(ASSETS / "pieces.safetensors", tmp_path / "tokenizer.model")
    (tmp_path / "pieces.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        load_foreign(tmp_path / "pieces.safetensors", ASSETS / "tokenizer.model")


# Other wordings


class Paraphrases(Compass):
    """A compass whose sentences have an angle each; a concept decodes to all of them.

    The decoder is unsure of the `garbled` ones, and other languages word those that are `elsewhere` differently.
    """

    max_tokens = 60

    def __init__(self, angles: dict[str, float], garbled: str = "", elsewhere: str = "") -> None:
        super().__init__()
        self.angles, self.garbled, self.elsewhere = angles, garbled, elsewhere

    def encode(self, texts, lang, *, progress=None) -> np.ndarray:
        angles = np.radians([self.angles.get(text, 0) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32).reshape(-1, 2)

    def alternatives(self, vectors, lang, *, search, progress=None) -> list[list[str]]:
        return [list(self.angles)] * len(vectors)

    def decode(self, vectors, lang, *, search=Search(), progress=None) -> list[str]:
        here = self.encode([self.elsewhere], lang)
        return ["so" if self.elsewhere and np.allclose(vector, here) else "thus" for vector in vectors]

    def likelihood(self, texts, vectors, lang) -> np.ndarray:
        return np.array([SURE - (text == self.garbled) for text in texts])


HOUSE = "The old man went slowly back to his house."


def wordings(angles: dict[str, float], n: int = 4, **options: str) -> list[str]:
    return other_wordings(Paraphrases(angles, **options), NORTH[0], HOUSE, "eng_Latn", n, 0)


def test_other_wordings_say_the_same_in_other_words() -> None:
    angles = {
        HOUSE: 0,
        "the old man went slowly back, to his house": 1,  # the same but for case and punctuation
        "Slowly the old man went back to his house.": 9,
        "The old man walked slowly back to his house.": 6,
        "The old man walked slowly back to his house!": 3,  # the one before
        "Der alte Mann ging langsam nach Hause zurück.": 2,  # another language
        "The man went went went went slowly to his house.": 4,  # loops
        "The old mank wentally slowly back to his house.": 5,  # no sentence
        "The old man went slowly back to her house.": 7,  # says something else, as a translation shows
        "The young woman sold her house and her garden.": 40,  # and as its concept shows
        "…": 0,
    }
    options = {
        "garbled": "The old mank wentally slowly back to his house.",
        "elsewhere": "The old man went slowly back to her house.",
    }
    good = ["The old man walked slowly back to his house.", "Slowly the old man went back to his house."]
    assert wordings(angles, **options) == good
    assert wordings(angles, 1, **options) == good[:1]


@pytest.mark.parametrize(
    "angles",
    [
        {HOUSE: 0},
        {"…": 0, "": 0},
        {"Il vecchio tornò lentamente a casa sua.": 3, HOUSE.upper(): 1},
        {"The young woman sold her house and her garden.": np.degrees(np.arccos(NEAR)) + 1},
    ],
)
def test_there_may_be_none(angles: dict[str, float]) -> None:
    assert wordings(angles) == []


@pytest.mark.parametrize("lang", ["eng_Latn", "deu_Latn", "por_Latn"])
def test_other_wordings_of_the_real_space(e: Engine, lang: str) -> None:
    said = SAID[lang]
    vector = e.encode([said], lang)[0]
    found = other_wordings(e.space, vector, said, lang, 4, seed=1)
    if lang == "eng_Latn":
        assert found == other_wordings(e.space, vector, said, lang, 4, seed=1)
    assert len(found) <= 4
    keys = [text.key(sentence) for sentence in (said, *found)]
    assert len(set(keys)) == len(keys)
    if found:
        near = cosine(e.encode(found, lang), vector)[:, 0]
        assert (near >= NEAR - 1e-4).all() and (np.diff(near) <= 1e-4).all()
        assert all(text.likeliest(sentence, e.space.languages) == lang for sentence in found)
