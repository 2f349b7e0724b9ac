"""The map: placing concepts, reading points, and refusing what is not a map."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.errors import Cancelled, VectorError, WeightsError
from engine.projection import FEWEST, LANDSCAPE, DocumentMap, Landscape, Reference, Source
from engine.projection.references import pack
from engine.spaces.builtin import BuiltinSpace

SPACE = BuiltinSpace.load()
DIM = SPACE.dim
NORM = np.sqrt(DIM)

ENGLISH = [
    "The sun rose over the quiet village.",
    "An old fisherman pushed his boat into the water.",
    "The sea was calm and the nets were empty.",
    "His grandson waved to him from the beach.",
    "Far out, dark clouds gathered over the waves.",
    "The wind began to blow harder and harder.",
    "A storm broke the mast of the little boat.",
    "The boy ran to the lighthouse to ask for help.",
    "The keeper lit the great lamp at once.",
    "All night the light turned over the black water.",
    "Can you see him anywhere?",
    "Nobody slept in the village that night.",
    "The women cooked soup for the men on the shore.",
    "In the morning the sea was smooth again.",
    "The fisherman rowed home, tired but alive.",
    "They ate warm bread and laughed together.",
    "I would like a cup of coffee, please.",
    "How much does this book cost?",
    "My sister works in a hospital.",
    "We are learning to play the piano.",
    "The train to Berlin leaves at eight o'clock.",
    "Please close the window, it is cold.",
    "Do you speak Portuguese?",
    "She bought a red dress for the wedding.",
    "The teacher explained the problem once more.",
    "He has never eaten such good cheese.",
    "The cat is sleeping on the sofa.",
    "Wolves were heard howling in the forest.",
    "The king promised gold to whoever found his daughter.",
    "It will probably rain tomorrow.",
]

GERMAN = [
    "Die Sonne ging über dem stillen Dorf auf.",
    "Ein alter Fischer schob sein Boot ins Wasser.",
    "Das Meer war ruhig und die Netze waren leer.",
    "Sein Enkel winkte ihm vom Strand zu.",
    "Weit draußen sammelten sich dunkle Wolken über den Wellen.",
    "Der Wind wehte immer stärker.",
    "Ein Sturm zerbrach den Mast des kleinen Bootes.",
    "Der Junge rannte zum Leuchtturm, um Hilfe zu holen.",
    "Der Wärter zündete sofort die große Lampe an.",
    "Die ganze Nacht drehte sich das Licht über dem schwarzen Wasser.",
    "Kannst du ihn irgendwo sehen?",
    "Niemand schlief in jener Nacht im Dorf.",
    "Die Frauen kochten Suppe für die Männer am Ufer.",
    "Am Morgen war das Meer wieder glatt.",
    "Der Fischer ruderte nach Hause, müde, aber lebendig.",
    "Sie aßen warmes Brot und lachten zusammen.",
    "Ich hätte gern eine Tasse Kaffee, bitte.",
    "Wie viel kostet dieses Buch?",
    "Meine Schwester arbeitet in einem Krankenhaus.",
    "Wir lernen Klavier spielen.",
    "Der Zug nach Berlin fährt um acht Uhr ab.",
    "Bitte schließ das Fenster, es ist kalt.",
    "Sprechen Sie Portugiesisch?",
    "Sie hat für die Hochzeit ein rotes Kleid gekauft.",
    "Der Lehrer erklärte die Aufgabe noch einmal.",
    "Er hat noch nie so guten Käse gegessen.",
    "Die Katze schläft auf dem Sofa.",
    "Im Wald hörte man Wölfe heulen.",
    "Der König versprach dem Gold, der seine Tochter fände.",
    "Morgen wird es wahrscheinlich regnen.",
]


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    return Landscape.load()


@pytest.fixture(scope="module")
def english() -> np.ndarray:
    return SPACE.encode(ENGLISH, "eng_Latn")


@pytest.fixture(scope="module")
def german() -> np.ndarray:
    return SPACE.encode(GERMAN, "deu_Latn")


@pytest.fixture(scope="module")
def document_map(english, german) -> DocumentMap:
    return DocumentMap.fit(np.concatenate([english, german]), seed=1)


def extent(points: np.ndarray) -> float:
    return float(np.ptp(points, axis=0).max())


# The landscape


def test_the_landscape_is_whole(landscape):
    assert len(landscape.coordinates) >= 5_000
    assert landscape.coordinates.dtype == np.float32 and landscape.coordinates.shape[1] == 2
    assert np.abs(landscape.coordinates).max() <= 1.0001
    assert len(landscape.languages) == len(landscape.coordinates)
    counts = {code: landscape.languages.count(code) for code in BuiltinSpace.languages}
    assert min(counts.values()) >= 500 and sum(counts.values()) == len(landscape.languages)
    density = landscape.density
    assert density.z.shape == (len(density.y), len(density.x))
    assert density.z.min() >= 0 and density.z.max() == pytest.approx(1)


def test_the_density_is_where_the_references_are(landscape):
    density = landscape.density
    columns = np.abs(landscape.coordinates[:, :1] - density.x).argmin(1)
    rows = np.abs(landscape.coordinates[:, 1:] - density.y).argmin(1)
    assert density.z[rows, columns].mean() > 2 * density.z.mean()


def test_labels_are_different_words_inside_the_map(landscape):
    for level in {label.level for label in landscape.labels}:
        texts = [label.text for label in landscape.labels if label.level == level]
        assert 6 <= len(texts) == len(set(texts))
    words = " ".join(label.text for label in landscape.labels).split()
    assert not {"Tom", "tom", "mary", "lily", "the", "said"} & set(words)
    assert all(abs(label.x) <= 1 and abs(label.y) <= 1 for label in landscape.labels)


def test_a_reference_has_a_text_or_none_has(landscape):
    assert len(landscape.references) in (0, len(landscape.coordinates))


def test_the_measured_errors_are_small(landscape):
    error = landscape.error
    # UMAP's own transform differs from itself by 0.03 (median) and 0.10 (9 in 10) from one seed to another.
    assert error["placement_median"] < 0.03
    assert error["placement_90"] < 0.1
    assert error["neighbours_kept"] > 0.3
    assert error["inverse_90"] < 0.02
    assert error["same_language"] < 0.3


def test_languages_share_the_landscape(landscape, english, german):
    apart = np.linalg.norm(landscape.project(english) - landscape.project(german), axis=1)
    others = np.linalg.norm(landscape.project(english) - landscape.project(np.roll(german, 7, axis=0)), axis=1)
    assert np.median(apart) < 0.35 * np.median(others)


@pytest.mark.parametrize("count", [0, 1, 2_000])
def test_any_number_of_concepts_is_placed(landscape, count):
    vectors = np.resize(landscape.vectors, (count, DIM))
    points = landscape.project(vectors)
    assert points.shape == (count, 2) and points.dtype == np.float32
    assert np.isfinite(points).all()
    concepts = landscape.invert(points)
    assert concepts.shape == (count, DIM) and concepts.dtype == np.float32


def test_nothing_moves(landscape, english):
    points = landscape.project(english)
    assert np.array_equal(points, Landscape.load().project(english))
    alone = np.concatenate([landscape.project(vector[None]) for vector in english])
    assert np.allclose(points, alone, atol=1e-4)
    assert np.allclose(points, landscape.project(3 * english), atol=1e-4)  # a concept's length means nothing here


def test_a_concept_taken_from_a_point_lies_near_it(landscape, english):
    points = landscape.project(english)
    concepts = landscape.invert(points)
    assert np.allclose(np.linalg.norm(concepts, axis=1), NORM, rtol=0.01)
    apart = np.linalg.norm(landscape.project(concepts) - points, axis=1)
    assert np.quantile(apart, 0.9) < 0.02 * extent(landscape.coordinates)
    assert not np.allclose(concepts[0], concepts[1])


def test_points_far_outside_have_concepts_too(landscape):
    points = np.array([[50, -50], [0, 1e6]], np.float32)
    concepts = landscape.invert(points)
    assert np.isfinite(concepts).all()
    assert np.allclose(np.linalg.norm(concepts, axis=1), NORM, rtol=0.01)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((3, DIM - 1), np.float32),
        np.zeros(DIM, np.float32),
        np.full((2, DIM), np.nan, np.float32),
        np.full((2, DIM), np.inf, np.float32),
        [["a"] * DIM],
        None,
    ],
    ids=["width", "flat", "nan", "inf", "text", "none"],
)
def test_bad_vectors_are_refused(landscape, vectors):
    with pytest.raises(VectorError, match="vectors"):
        landscape.project(vectors)


@pytest.mark.parametrize("points", [[[1, 2, 3]], [1, 2], [[np.nan, 0]], "here"])
def test_bad_points_are_refused(landscape, points):
    with pytest.raises(VectorError, match="points"):
        landscape.invert(points)


# The file


def changed(path, metadata=None, without=()):
    """A copy of the landscape at `path`, with other metadata or without some tensors."""
    with safe_open(LANDSCAPE, "pt") as file:
        about = file.metadata()
    tensors = {name: tensor for name, tensor in load_file(LANDSCAPE).items() if name not in without}
    save_file(tensors, path, {**about, **(metadata or {})})
    return path


def test_a_landscape_of_other_weights_is_refused(tmp_path):
    path = changed(tmp_path / "other.safetensors", {"fingerprint": "0123456789abcdef"})
    with pytest.raises(WeightsError, match="0123456789abcdef"):
        Landscape.load(path)
    assert Landscape.load(path, "0123456789abcdef").labels
    with pytest.raises(WeightsError, match="sonar"):
        Landscape.load(changed(tmp_path / "sonar.safetensors", {"space": "sonar"}))


def with_texts(path, count=None, **changes):
    """A copy of the landscape whose references have texts and whose labels have three levels."""
    with safe_open(LANDSCAPE, "pt") as file:
        about = file.metadata()
    tensors = load_file(LANDSCAPE)
    count = count or len(tensors["coordinates"])
    packed, table = pack([Reference(f"Sentence {i}, «ß» 🙂.", Source("A, B", "CC0")) for i in range(count)])
    labels = [[0, 0, f"level {level}", level] for level in range(3)]
    about |= {"sources": json.dumps(table), "labels": json.dumps(labels)}
    save_file(tensors | packed | changes, path, about)
    return path


def test_texts_and_levels_come_with_the_file(tmp_path):
    land = Landscape.load(with_texts(tmp_path / "texts.safetensors"))
    assert len(land.references) == len(land.coordinates)
    assert land.references[-1] == Reference(f"Sentence {len(land.vectors) - 1}, «ß» 🙂.", Source("A, B", "CC0"))
    assert [(label.text, label.level) for label in land.labels] == [(f"level {n}", n) for n in range(3)]


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (3, {}),
        (None, {"texts": torch.zeros(9, dtype=torch.uint8)}),
        (None, {"source": torch.full((len(load_file(LANDSCAPE)["coordinates"]),), 5)}),
    ],
    ids=["too few", "damaged", "no such source"],
)
def test_texts_that_do_not_belong_are_refused(tmp_path, count, changes):
    with pytest.raises(WeightsError, match="not a landscape"):
        Landscape.load(with_texts(tmp_path / "texts.safetensors", count, **changes))


def test_a_damaged_landscape_is_refused(tmp_path):
    whole = LANDSCAPE.read_bytes()
    for name, content in {
        "half": whole[: len(whole) // 2],
        "start": whole[:5],
        "empty": b"",
        "text": b"a map" * 99,
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            Landscape.load(path)
    with pytest.raises(WeightsError, match="missing"):
        Landscape.load(tmp_path / "nowhere.safetensors")


def test_other_weights_files_are_no_landscape(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="not a landscape"):
        Landscape.load(path)
    with pytest.raises(WeightsError, match="not a landscape"):
        Landscape.load(changed(tmp_path / "parts.safetensors", without=["layers.0.weight", "layers.0.weight.scale"]))
    with pytest.raises(WeightsError, match="not a landscape"):
        Landscape.load(changed(tmp_path / "labels.safetensors", {"labels": json.dumps([[1]])}))


def test_importing_the_engine_leaves_umap_alone():
    code = (
        "import sys, engine, engine.projection;"
        "engine.projection.Landscape.load();"
        "sys.exit(any(name.split('.')[0] in ('umap', 'numba', 'sklearn') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# The document's own map


def test_a_document_map_places_what_it_was_fitted_on(document_map):
    assert document_map.coordinates.shape == (60, 2)
    assert document_map.coordinates.dtype == np.float32
    assert extent(document_map.coordinates) > 0.1


def test_a_document_map_keeps_translations_together(document_map):
    points = document_map.coordinates
    distance = np.linalg.norm(points[:30, None] - points[None, 30:], axis=2)
    rank = (distance < np.diag(distance)[:, None]).sum(1)  # how many sentences lie nearer than the translation
    assert np.median(rank) <= 3


def test_the_same_seed_gives_the_same_map(document_map, english, german):
    again = DocumentMap.fit(np.concatenate([english, german]), seed=1)
    assert np.array_equal(again.coordinates, document_map.coordinates)
    assert np.array_equal(again.project(english[:3] * 0.9), document_map.project(english[:3] * 0.9))
    other = DocumentMap.fit(np.concatenate([english, german]), seed=2)
    assert not np.allclose(other.coordinates, document_map.coordinates)


@pytest.mark.parametrize("count", [0, 1, 2_000])
def test_a_document_map_places_any_number(document_map, english, count):
    noise = 0.05 * np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    vectors = np.resize(english, (count, DIM)) + noise
    points = document_map.project(vectors)
    assert points.shape == (count, 2) and points.dtype == np.float32
    if count:
        # Each lies where the sentence lies that it is almost the same as.
        home = np.resize(document_map.coordinates[:30], (count, 2))
        assert np.linalg.norm(points - home, axis=1).max() < 0.05 * extent(document_map.coordinates)


def test_a_document_map_reads_its_points(document_map, english):
    assert np.allclose(document_map.invert(document_map.coordinates[:30]), english, atol=0.05)
    middle = document_map.coordinates.reshape(30, 2, 2).mean(1)
    outside = np.array([[1e6, -1e6]], np.float32)
    concepts = document_map.invert(np.concatenate([middle, outside]))
    assert np.allclose(np.linalg.norm(concepts, axis=1), NORM, rtol=0.01)
    apart = np.linalg.norm(document_map.project(concepts[:30]) - middle, axis=1)
    assert np.median(apart) < 0.15 * extent(document_map.coordinates)


def test_a_translation_is_placed_beside_its_sentence(english, german):
    alone = DocumentMap.fit(english, seed=0)
    apart = np.linalg.norm(alone.project(german) - alone.coordinates, axis=1)
    assert np.median(apart) < 0.1 * extent(alone.coordinates)


def test_the_smallest_document(english):
    small = DocumentMap.fit(english[:FEWEST])
    assert small.coordinates.shape == (FEWEST, 2) and np.isfinite(small.coordinates).all()
    assert np.isfinite(small.project(english[20:21])).all()
    with pytest.raises(VectorError, match="landscape"):
        DocumentMap.fit(english[: FEWEST - 1])


@pytest.mark.parametrize("different", [1, 2, 10])
def test_repeated_sentences_are_a_document_too(english, different):
    repeated = DocumentMap.fit(np.resize(english[:different], (20, DIM)))
    assert np.isfinite(repeated.coordinates).all()
    assert np.isfinite(repeated.project(english[:5])).all()
    assert np.allclose(np.linalg.norm(repeated.invert(repeated.coordinates), axis=1), NORM, rtol=0.01)


def test_a_document_map_refuses_what_it_cannot_use(document_map, english):
    with pytest.raises(VectorError, match="finite"):
        DocumentMap.fit(np.full((20, DIM), np.nan, np.float32))
    with pytest.raises(VectorError, match="shape"):
        DocumentMap.fit(english[0])
    with pytest.raises(VectorError, match="shape"):
        document_map.project(english[:, :100])
    with pytest.raises(VectorError, match="points"):
        document_map.invert([[0, 0, 0]])


def test_fitting_tells_how_far_it_is_and_can_be_stopped(english):
    told = []
    DocumentMap.fit(english, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, told[-1][1]) and told[-1][0] == told[-1][1]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        DocumentMap.fit(english, progress=stop)
