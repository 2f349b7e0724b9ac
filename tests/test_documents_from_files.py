"""What is read from a file is refused in one sentence, or can be stored, opened again, shown and exported."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import view
from engine import Engine, formats, soundness, values
from engine.document import ConceptNode, Document, Provenance, replace_node
from engine.errors import ConceptscapeError, DocumentError, LanguageError, TextError
from engine.store import Store

FLAT = 10**4  # deeper than any parser goes


@pytest.fixture(scope="module")
def sound(e: Engine) -> Document:
    """A document with origins of several kinds."""
    vectors = e.encode(["The sea was calm.", "A storm came.", "The boat came home.", "He was tired."], "eng_Latn")
    origins = [
        Provenance("edited", "rewrite", ("s1",), {"from": "The sea was quiet."}),
        Provenance("interpolated", "interpolate", ("s1", "gone"), {"t": 0.25}),
        Provenance("interpolated", "blend", ("s1", "s2"), {"weights": [1.0, 2.5]}),
        Provenance("generated", "vary", ("s4",), {"amount": 0.5, "from": "He slept.", "model": "base"}, 7),
    ]
    texts = ["The sea was calm.", "A storm came.", "Das Boot kam heim.", "He was tired."]
    langs = ["eng_Latn", "eng_Latn", "deu_Latn", "eng_Latn"]
    nodes = tuple(
        ConceptNode(text, lang, vector, origin, "\n\n" if number == 2 else " ", f"s{number}")
        for number, (text, lang, vector, origin) in enumerate(zip(texts, langs, vectors, origins, strict=True), 1)
    )
    return Document("The Boat", "eng_Latn", e.space.identity, nodes, "\ufeff")


@pytest.fixture(scope="module")
def exported(sound: Document) -> str:
    return formats.to_json(sound)


@pytest.fixture
def record(exported: str) -> dict[str, Any]:
    return json.loads(exported)


def shown(e: Engine, document: Document) -> None:
    """Every view of a document that needs no page."""
    places = {node.id: number for number, node in enumerate(document.nodes, 1)}
    for node in document.nodes:
        assert all(isinstance(part, str) for part in view.provenance(node, places))
        assert e.language(node.lang).own and view.web_language(node.lang)
    json.dumps([list(view.provenance(node, places)) for node in document.nodes], allow_nan=False).encode()
    table = e.table(document)
    assert len(table) == len(document.nodes) and np.isfinite(table[["x", "y"]].to_numpy()).all()
    assert formats.to_text(document) == document.text
    formats.to_markdown(document).encode()
    assert view.file_name(document.title, "json")
    if document.nodes:
        assert np.isfinite(e.project(document.vectors)).all()


def brought(e: Engine, store: Store, data: str) -> Document | None:
    """The document of a file after it was stored and opened again, shown and exported; None where it is refused."""
    try:
        document = e.adopt(formats.from_json(data))
    except ConceptscapeError as error:
        said = str(error)
        assert said and len(said) <= 300 and "\n" not in said and said.endswith("."), said
        said.encode()
        return None
    store.save(document, "Import", None)
    opened, _ = store.open(document.id)
    assert opened == document and e.adopt(opened) is opened
    shown(e, opened)
    assert replace(formats.from_json(formats.to_json(opened)), id=opened.id) == opened
    return opened


HOSTILE: list[Any] = [
    None,
    True,
    "",
    " ",
    "abc",
    "Wörter 😀",
    "\ud800",
    "a\0b",
    "x" * 2_000,
    "…",
    "__proto__",
    "a b",
    "xxx_Latn",
    "fra_Latn",
    "builtin other",
    -1,
    0,
    5,
    2**63,
    10**400,
    0.5,
    1e30,
    -1e308,
    float("nan"),
    float("inf"),
    [],
    [1, 2],
    ["a", "a"],
    [["s1"]],
    {},
    {"a": {"b": [1, None, "c"]}},
    "generated",
    "later-operation",
    "arithmetic",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything in a record, but only to the first numbers of a vector."""
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value[:4]))
    found = [path + (name,) for name, _ in inner]
    for name, one in inner:
        if isinstance(one, dict | list):
            found += places(one, path + (name,))
    return found


def changed(exported: str, rng: random.Random) -> str:
    """An exported document changed in one place or two."""
    made = json.loads(exported)
    for _ in range(rng.choice((1, 1, 2))):
        *way, last = rng.choice(places(made))
        at: Any = made
        for name in way:
            at = at[name]
        change = rng.choice(("replace", "replace", "replace", "remove", "add", "twice"))
        if change == "replace":
            at[last] = copy.deepcopy(rng.choice(HOSTILE))
        elif change == "remove":
            del at[last]
        elif change == "add" and isinstance(at, dict):
            at[rng.choice(("more", "weights", "t", "from", ""))] = copy.deepcopy(rng.choice(HOSTILE))
        elif isinstance(at, list):
            at.insert(rng.randrange(len(at) + 1), copy.deepcopy(at[last]))
    body = json.dumps(made, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:  # what no encoder writes
        position = rng.randrange(len(body))
        body = (
            body[:position]
            + rng.choice(("", "\x00", '"', "]", "[" * FLAT, "9" * 400, "1e999", "NaN"))
            + body[position:]
        )
    return body


def test_two_thousand_files_are_refused_in_one_sentence_or_can_be_used(
    e: Engine, exported: str, tmp_path: Path
) -> None:
    used = 0
    with Store(tmp_path / "documents.db") as store:
        for seed in range(2_000):
            try:
                used += brought(e, store, changed(exported, random.Random(seed))) is not None
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
    assert 200 < used < 1_800


def test_a_sound_document_comes_back(e: Engine, sound: Document, tmp_path: Path) -> None:
    with Store(tmp_path / "documents.db") as store:
        opened = brought(e, store, formats.to_json(sound))
        assert opened and opened.nodes == sound.nodes and opened.before == sound.before


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = value

    return change


ORIGIN = ("nodes", 1, "provenance")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (at("nodes", 1, "lang", value="xxx_Latn"), "does not know the language 'xxx_Latn'"),
        (at("lang", value="xxx_Latn"), "does not know the language 'xxx_Latn'"),
        (at("nodes", 1, "vector", value=[1.0] * 8), "sentence 2 has 8 numbers"),
        (at("nodes", 1, "vector", value=[]), "sentence 2 has 0 numbers"),
        (at("nodes", 1, "vector", value=[0.0] * 512), "sentence 2 is no concept"),
        (at("nodes", 1, "vector", value=[1e30] * 512), "sentence 2 is no concept"),
        (at("nodes", 1, "vector", 3, value=1e300), "vector of sentence 2 holds a number that is too large"),
        (at("nodes", 1, "vector", 3, value="0.5"), "vector of sentence 2 is no list of numbers"),
        (at("nodes", 1, "vector", 3, value=True), "vector of sentence 2 is no list of numbers"),
        (at(*ORIGIN, "parameters", "t", value="abc"), "parameter t in the origin of sentence 2 is not a number"),
        (at(*ORIGIN, "parameters", "t", value=None), "parameter t in the origin of sentence 2 is not a number"),
        (at(*ORIGIN, "parameters", "t", value=1e300), "parameter t in the origin of sentence 2 is not a number"),
        (at("nodes", 2, "provenance", "parameters", "weights", value=5), "weights in .* sentence 3 is not a list"),
        (at("nodes", 2, "provenance", "parameters", "weights", value=["a", 1]), "weights in .* is not a list of num"),
        (at("nodes", 2, "provenance", "parameters", "weights", value=[1]), "1 weights for 2 parents"),
        (at("nodes", 3, "provenance", "parameters", "from", value={}), "parameter from in .* sentence 4 is not text"),
        (at(*ORIGIN, "kind", value="dreamt"), "kind in the origin of sentence 2"),
        (at(*ORIGIN, "operation", value=""), "operation in the origin of sentence 2"),
        (at(*ORIGIN, "parents", value=["a b"]), "parent in the origin of sentence 2"),
        (at(*ORIGIN, "parents", value="abc"), "'parents' in sentence 2 is not a list"),
        (at(*ORIGIN, "seed", value=-1), "seed in the origin of sentence 2"),
        (at(*ORIGIN, "seed", value=True), "seed in the origin of sentence 2"),
        (at(*ORIGIN, "parameters", "deep", value=[[[[[[[[[[]]]]]]]]]]), "nested more than 8 deep"),
        (at("nodes", 1, "id", value="s1"), "Sentences 1 and 2 have the same id"),
        (at("nodes", 1, "id", value='"><b>'), "id of sentence 2"),
        (at("nodes", 1, "id", value=""), "id of sentence 2"),
        (at("nodes", 1, "text", value="…"), "no words in sentence 2"),
        (at("nodes", 1, "text", value={"a": 1}), "'text' in sentence 2 is not text"),
        (at("nodes", 1, "text", value="half \ud800"), "text of sentence 2 holds half of a character"),
        (at("nodes", 1, "after", value=" and "), "spacing after sentence 2 holds a letter"),
        (at("before", value="1"), "spacing before the first sentence holds a letter or digit"),
        (at("title", value=["a"]), "'title' in it is not text"),
        (at("title", value="x" * 2000), "title has 2,000 characters"),
        (at("space", value=" "), "which space"),
        (at("nodes", value={}), "'nodes' in it is not a list"),
        (at("nodes", value=[5]), "no 'provenance' in sentence 1"),
        (at("nodes", value=[None] * 100_000), "100,000 sentences and at most 50,000"),
        (at("version", value=2), "not a document that Conceptscape exported"),
        (at("format", value=[]), "not a document that Conceptscape exported"),
    ],
)
def test_what_is_wrong_is_named(
    e: Engine, record: dict[str, Any], change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    change(record)
    with pytest.raises((TextError, DocumentError, LanguageError), match=sentence) as caught:
        e.adopt(formats.from_json(json.dumps(record)))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("[" * FLAT, "nested too deeply"),
        ('{"a":' * FLAT, "nested too deeply"),
        ("9" * 400, "a number of 400 digits"),
        ("-" + "9" * 5_000, "a number of 5001 digits"),
        ("1e400", "too large"),
        ("NaN", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ('{"a": 1, "a": 2}', "'a' stands in it twice"),
        ("", "Expecting value"),
    ],
)
def test_what_is_no_json_value(record: dict[str, Any], value: str, sentence: str) -> None:
    inside = json.dumps(record).replace('"The Boat"', value)
    for data in (value, inside):
        with pytest.raises(ValueError, match=sentence):
            values.parse(data)
        with pytest.raises(TextError, match=sentence):
            formats.from_json(data)
    for data in ("[]", "5", '"a"', "null", "true"):
        with pytest.raises(TextError, match="there is no 'format' in it"):
            formats.from_json(data)


def test_a_document_of_another_space_is_checked_before_it_is_encoded(e: Engine, sound: Document) -> None:
    other = replace(sound, space="other 1", nodes=tuple(replace(n, vector=np.ones(4)) for n in sound.nodes))
    adopted = e.adopt(other)
    assert adopted.space == e.space.identity and adopted.vectors.shape == (4, e.space.dim)
    with pytest.raises(DocumentError, match="have 4 numbers and those of the builtin space have 512"):
        e.check(replace(other, space=e.space.identity))
    with pytest.raises(LanguageError):
        e.adopt(replace_node(other, replace(other.nodes[2], lang="zul_Latn")))
    with pytest.raises(DocumentError, match="title"):
        e.import_text("The sea was calm.", "eng_Latn", "half \udc00")


def test_only_what_is_new_is_looked_at_in_an_edited_document(sound: Document) -> None:
    bad = replace(sound.nodes[1], text="…")
    with pytest.raises(DocumentError, match="sentence 2"):
        soundness.check(replace_node(sound, bad), sound)
    with pytest.raises(DocumentError, match="Sentences 1 and 5 have the same id"):
        soundness.check(replace(sound, nodes=(*sound.nodes, sound.nodes[0])), sound)
    with pytest.raises(DocumentError, match="sentence 2 has 4 numbers"):
        soundness.check(replace_node(sound, replace(sound.nodes[1], vector=np.ones(4))), sound)
    soundness.check(replace_node(replace(sound, title="Other"), replace(sound.nodes[1], text="Other.")), sound)
    soundness.check(replace(sound, nodes=()), sound)
    unchecked = replace_node(sound, bad)
    soundness.check(replace(unchecked, title="Other"), unchecked)  # what is known is not looked at again
