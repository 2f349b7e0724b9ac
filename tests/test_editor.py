from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Engine
from engine.concepts import cosine, slerp
from engine.document import Document
from engine.editor import Editor, Step
from engine.errors import Cancelled, ConceptscapeError, EditError, LanguageError, StoreError, TextError
from engine.formats import from_json, to_json, to_markdown, to_text


@pytest.fixture
def editor(e: Engine, story: Document) -> Editor:
    return Editor(e, story)


def ids(editor: Editor) -> list[str]:
    return [node.id for node in editor.document.nodes]


def test_rewrite_changes_words_concept_and_provenance(editor: Editor) -> None:
    first = editor.document.nodes[0]
    editor.rewrite(first.id, "  The boat is at home. ")
    node = editor.document.nodes[0]
    assert (node.id, node.text, node.after) == (first.id, "The boat is at home.", first.after)
    assert cosine(node.vector, first.vector)[0, 0] < 0.9
    assert node.provenance.kind == "edited" and node.provenance.parameters["from"] == first.text
    assert editor.document.nodes[1:] == editor.undo().nodes[1:]
    assert editor.document.nodes[0] == first


def test_insert_takes_several_sentences(editor: Editor) -> None:
    n = len(editor.document.nodes)
    editor.insert(1, "It rained. The river was high.")
    assert [node.text for node in editor.document.nodes[1:3]] == ["It rained.", "The river was high."]
    assert len(editor.document.nodes) == n + 2
    assert editor.document.nodes[1].provenance.kind == "written"
    editor.insert(len(editor.document.nodes), "The end.")
    assert editor.document.text.endswith("The end.\n")


def test_split_and_merge_are_opposites(editor: Editor) -> None:
    before = editor.document.text
    node = editor.document.nodes[1]
    editor.split(node.id, node.text.index(" of ") + 1)
    assert editor.document.text == before
    parts = editor.document.nodes[1:3]
    assert parts[0].id == node.id and parts[1].text.startswith("of ")
    editor.merge([p.id for p in parts])
    assert editor.document.text == before
    assert np.allclose(editor.document.nodes[1].vector, node.vector, atol=1e-4)
    with pytest.raises(EditError, match="between two words"):
        editor.split(node.id, 0)
    with pytest.raises(EditError, match="two or more"):
        editor.merge([node.id])
    with pytest.raises(EditError, match="next to each other"):
        editor.merge([ids(editor)[0], ids(editor)[2]])


def test_interpolate_blend_arithmetic_vary(e: Engine, editor: Editor) -> None:
    a, b, c = ids(editor)[:3]
    vectors = editor.document.vectors
    editor.interpolate(a, b, 0.25)
    made = editor.document.nodes[1]
    assert np.allclose(made.vector, slerp(vectors[0], vectors[1], 0.25))
    assert made.text == e.decode(made.vector[None], "eng_Latn")[0]
    assert (made.provenance.kind, made.provenance.parents) == ("interpolated", (a, b))
    editor.blend([a, b, c], [1, 1, 2])
    assert editor.document.nodes[4].provenance.parameters == {"weights": [1.0, 1.0, 2.0]}
    editor.arithmetic(a, b, c)
    assert editor.document.nodes[4].provenance.operation == "arithmetic"
    editor.vary(a, 0.5, seed=3)
    first = editor.document.nodes[0]
    assert first.provenance.seed == 3 and not np.array_equal(first.vector, vectors[0])
    editor.undo()
    editor.vary(a, 0.5, seed=3)
    assert np.array_equal(editor.document.nodes[0].vector, first.vector)


def test_place_takes_the_concept_at_a_point(e: Engine, editor: Editor) -> None:
    point = tuple(e.project(editor.document.vectors[:2]).mean(0))
    editor.place(e.invert(point), 2, point)
    node = editor.document.nodes[2]
    assert node.provenance.operation == "place" and node.provenance.parameters["x"] == pytest.approx(point[0])
    assert any(c.isalpha() for c in node.text)


def test_duplicate_gets_a_name_of_its_own(editor: Editor) -> None:
    a, b = ids(editor)[:2]
    editor.duplicate([a, b])
    names = ids(editor)
    assert len(set(names)) == len(names)
    assert [n.text for n in editor.document.nodes[2:4]] == [n.text for n in editor.document.nodes[:2]]


def test_other_words_leave_the_concept(editor: Editor) -> None:
    node = editor.document.nodes[0]
    editor.use_alternative(node.id, "In a big tree there was a monkey.")
    assert np.array_equal(editor.document.nodes[0].vector, node.vector)
    assert editor.alternatives(node.id, 3, seed=1) == editor.alternatives(node.id, 3, seed=1)


def test_continue_and_regenerate_are_seeded_generation(editor: Editor) -> None:
    n = len(editor.document.nodes)
    editor.delete(ids(editor)[6:])
    editor.continue_(2, seed=4)
    new = editor.document.nodes[6:]
    assert 1 <= len(new) <= 2
    assert all(node.provenance.kind == "generated" and node.provenance.seed == 4 for node in new)
    texts = [node.text for node in new]
    editor.undo()
    editor.continue_(2, seed=4)
    assert [node.text for node in editor.document.nodes[6:]] == texts
    editor.undo()
    editor.undo()
    assert len(editor.document.nodes) == n
    editor.regenerate(ids(editor)[2:4], seed=1)
    assert len(editor.document.nodes) == n
    assert [node.provenance.operation for node in editor.document.nodes[1:5]] == [
        "import",
        "regenerate",
        "regenerate",
        "import",
    ]


def test_a_gap_is_filled_between_neighbours(editor: Editor) -> None:
    before = ids(editor)
    editor.infill(before[2], before[3], seed=5)
    after = ids(editor)
    assert after[:3] == before[:3] and after[4:] == before[3:]
    node = editor.document.nodes[3]
    assert node.provenance.operation == "infill" and node.provenance.parents == tuple(before[2:4])
    editor.undo()
    assert ids(editor) == before
    with pytest.raises(EditError, match="next to each other"):
        editor.infill(before[0], before[2], seed=5)


def test_reading_in_another_language_changes_nothing(e: Engine, editor: Editor) -> None:
    start = editor.document
    german = e.read(start, "deu_Latn")
    assert len(german) == len(start.nodes) and german != [n.text for n in start.nodes]
    assert e.read(start, "eng_Latn") == [n.text for n in start.nodes]
    assert editor.document is start
    editor.translate("deu_Latn")
    assert [n.text for n in editor.document.nodes] == german
    assert np.array_equal(editor.document.vectors, start.vectors)
    assert to_text(start, german) == editor.document.text


def test_a_failed_edit_changes_nothing(editor: Editor) -> None:
    start, first = editor.document, ids(editor)[0]
    failures = [
        lambda: editor.rewrite(first, "   "),
        lambda: editor.rewrite(first, "😀"),
        lambda: editor.rewrite(first, "Привет, как дела?"),
        lambda: editor.rewrite(first, "word " * 300),
        lambda: editor.rewrite("gone", "Hello."),
        lambda: editor.insert(99, "Hello."),
        lambda: editor.insert(0, "Hello.", "xxx_Latn"),
        lambda: editor.translate("xxx_Latn"),
        lambda: editor.rename(" "),
        lambda: editor.redo(),
    ]
    for fail in failures:
        with pytest.raises((EditError, TextError, LanguageError)) as caught:
            fail()
        assert str(caught.value).endswith((".", ")"))
    assert editor.document is start and not editor.can_undo


def test_what_was_written_before_stop_is_kept(e: Engine, story: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Cancelled

    begun = replace(story, nodes=story.nodes[:8])
    editor = Editor(e, begun)
    editor.continue_(5, seed=0, progress=stop)
    assert len(editor.document.nodes) == 10
    whole = Editor(e, begun).continue_(2, seed=0)
    assert [n.text for n in whole.nodes] == [n.text for n in editor.document.nodes]
    editor.undo()
    assert editor.document is begun
    editor.regenerate(ids(editor)[-3:], seed=0, progress=stop)
    assert [n.provenance.operation for n in editor.document.nodes[-3:]] == ["regenerate", "regenerate", "import"]

    def at_once(*_: object, **__: object) -> None:
        raise Cancelled

    editor.undo()
    monkeypatch.setattr(Engine, "continue_", at_once)
    with pytest.raises(Cancelled):
        editor.continue_(3, seed=0)
    assert editor.document is begun and not editor.can_undo


def test_steps_from_before_are_loaded_when_they_are_taken(e: Engine, story: Document) -> None:
    titles = ["One", "Two", "Three", "Four"]
    stored = {title: replace(story, title=title) for title in titles}
    loaded: list[str] = []

    def step(title: str) -> Step:
        def load() -> Document:
            loaded.append(title)
            if title not in stored:
                raise StoreError("That revision is damaged.")
            return stored[title]

        return Step(f"From {title}", load)

    editor = Editor(e, stored["Three"], undo=[step("One"), step("Two")], redo=[step("Four")])
    assert (editor.undo_label, editor.redo_label) == ("From Two", "From Four") and not loaded
    assert editor.undo() is stored["Two"]
    assert (editor.undo_label, editor.redo_label) == ("From One", "From Two")
    del stored["One"]
    with pytest.raises(StoreError):
        editor.undo()
    assert (editor.document, editor.undo_label, editor.redo_label) == (stored["Two"], "From One", "From Two")
    assert editor.redo() is stored["Three"]
    gone = stored.pop("Four")
    with pytest.raises(StoreError):
        editor.redo()
    assert (editor.document, editor.undo_label, editor.redo_label) == (stored["Three"], "From Two", "From Four")
    stored["Four"] = gone
    assert editor.redo() is gone and not editor.can_redo
    editor.undo()
    editor.rename("Five")
    assert not editor.can_redo
    assert [editor.undo().title, editor.undo().title] == ["Three", "Two"]
    assert loaded == ["Two", "One", "Four", "Four"]  # what was on the page is kept in memory


def test_formats(editor: Editor) -> None:
    document = editor.document
    back = from_json(to_json(document))
    assert back.nodes == document.nodes and back.text == document.text
    assert to_markdown(document).startswith("# The Monkey\n\nA monkey lived")
    for bad in ("", "{}", "[]", '{"format": "conceptscape-document", "version": 9}', to_json(document)[:-40]):
        with pytest.raises(TextError, match="not a document"):
            from_json(bad)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["rewrite", "insert", "delete", "split", "merge", "move", "duplicate", "interpolate", "rename"]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=8,
)


def apply(editor: Editor, name: str, i: int, j: int) -> None:
    names = ids(editor)
    if not names:
        editor.insert(0, "A new beginning.")
        return
    a, b = names[i % len(names)], names[j % len(names)]
    low, high = sorted((i % len(names), j % len(names)))
    match name:
        case "rewrite":
            editor.rewrite(a, f"The dog is {i} years old.")
        case "insert":
            editor.insert(i % (len(names) + 1), "The sun is hot.\n\nIt is noon.")
        case "delete":
            editor.delete(names[low : min(high, low + 3) + 1])
        case "split":
            editor.split(a, j)
        case "merge":
            editor.merge(names[low : low + 2])
        case "move":
            editor.move(names[low : low + 2], j % (len(names) + 1))
        case "duplicate":
            editor.duplicate([a, b])
        case "interpolate":
            editor.interpolate(a, b, (j % 5) / 4)
        case "rename":
            editor.rename(f"Title {j}")


@given(OPERATIONS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_undo_after_any_edits_gives_the_start_again(e: Engine, story: Document, operations: list) -> None:
    editor = Editor(e, story)
    states = [editor.document]
    for operation in operations:
        try:
            apply(editor, *operation)
            states.append(editor.document)
        except ConceptscapeError:
            assert editor.document == states[-1]
    for state in reversed(states[:-1]):
        assert editor.undo() == state
    assert editor.document == story and editor.document.text == story.text
    for state in states[1:]:
        assert editor.redo() == state
