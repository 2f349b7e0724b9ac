import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.document import ConceptNode, Document, delete, insert, move, replace_node
from engine.errors import EditError, VectorError


def node(text: str, after: str = " ") -> ConceptNode:
    return ConceptNode(text, "eng_Latn", np.ones(4, np.float32), after=after)


def document(*parts: tuple[str, str]) -> Document:
    return Document("T", "eng_Latn", "builtin", tuple(node(t, a) for t, a in parts))


TEXT = document(("One.", " "), ("Two.", "\n\n"), ("Three.", " "), ("Four.", "\n"))


def test_paragraphs_keep_their_places_when_sentences_move() -> None:
    assert move(TEXT, [TEXT.nodes[3].id], 0).text == "Four. One.\n\nTwo. Three.\n"
    assert move(TEXT, [n.id for n in TEXT.nodes[:2]], 4).text == "Three. Four.\n\nOne. Two.\n"
    assert move(TEXT, [TEXT.nodes[1].id], 1) == TEXT
    assert move(TEXT, [TEXT.nodes[1].id], 2) == TEXT


def test_insert_and_delete_leave_the_breaks_between_paragraphs() -> None:
    assert insert(TEXT, 2, [node("New.")]).text == "One. Two. New.\n\nThree. Four.\n"
    assert insert(TEXT, 0, [node("New.")]).text == "New. One. Two.\n\nThree. Four.\n"
    assert insert(TEXT, 4, [node("New.")]).text == "One. Two.\n\nThree. Four. New.\n"
    assert delete(TEXT, [TEXT.nodes[1].id]).text == "One.\n\nThree. Four.\n"
    assert delete(TEXT, [n.id for n in TEXT.nodes[1:3]]).text == "One.\n\nFour.\n"
    assert delete(TEXT, [TEXT.nodes[3].id]).text == "One. Two.\n\nThree.\n"
    assert delete(TEXT, [n.id for n in TEXT.nodes]).nodes == ()


def test_nothing_changes_in_place() -> None:
    before = TEXT.text
    replace_node(TEXT, ConceptNode("Other.", "eng_Latn", np.zeros(4), id=TEXT.nodes[0].id))
    delete(TEXT, [TEXT.nodes[0].id])
    assert TEXT.text == before
    with pytest.raises(ValueError, match="read-only"):
        TEXT.nodes[0].vector[0] = 2
    mine = np.ones(4, np.float32)
    made = ConceptNode("A", "eng_Latn", mine)
    mine[0] = 7
    assert made.vector[0] == 1


@pytest.mark.parametrize("vector", [np.ones((2, 2)), np.array([np.nan, 1]), np.array([np.inf])])
def test_bad_vectors_are_refused(vector: np.ndarray) -> None:
    with pytest.raises(VectorError):
        ConceptNode("A", "eng_Latn", vector)


def test_bad_places_and_names_are_refused() -> None:
    with pytest.raises(EditError):
        insert(TEXT, 9, [node("x")])
    with pytest.raises(EditError):
        move(TEXT, [TEXT.nodes[0].id], -1)
    with pytest.raises(EditError, match="no longer"):
        delete(TEXT, ["nobody"])
    with pytest.raises(EditError, match="at least one"):
        delete(TEXT, [])


@given(
    st.lists(st.sampled_from([" ", "\n", "\n\n", ""]), min_size=1, max_size=8),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_a_move_keeps_every_sentence_once_and_the_spacing_in_place(spacing: list[str], data: st.DataObject) -> None:
    doc = document(*((f"S{i}.", after) for i, after in enumerate(spacing)))
    chosen = data.draw(st.sets(st.sampled_from([n.id for n in doc.nodes]), min_size=1))
    moved = move(doc, chosen, data.draw(st.integers(0, len(doc.nodes))))
    assert sorted(n.id for n in moved.nodes) == sorted(n.id for n in doc.nodes)
    assert [n.after for n in moved.nodes] == spacing
    order = [n.id for n in moved.nodes if n.id in chosen]
    assert order == [n.id for n in doc.nodes if n.id in chosen]
    places = [i for i, n in enumerate(moved.nodes) if n.id in chosen]
    assert places == list(range(places[0], places[0] + len(places)))  # moved sentences end up side by side
