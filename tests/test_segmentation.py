import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine
from engine.errors import LanguageError, TextError
from engine.segmentation import segment
from engine.text import LARGEST, check, from_bytes

PROSE = st.text(st.sampled_from(" \t\n\r\f\u00a0\u2028aAbz.,;:!?—'\"()*#-0é😀\ufeff\x07"), max_size=300)


@given(st.one_of(st.text(max_size=400), PROSE), st.sampled_from(["eng_Latn", "deu_Latn", "fra_Latn"]))
@settings(max_examples=400, deadline=None)
def test_pieces_join_to_the_very_same_text(text: str, lang: str) -> None:
    text = text.encode("utf-8", "ignore").decode()  # lone surrogates are refused before they come here
    segmented = segment(text, lang, lambda s: len(s) <= 20)
    assert segmented.text == text
    assert all(any(c.isalnum() for c in piece.text) for piece in segmented.pieces)


def test_sentences_quotes_and_abbreviations() -> None:
    text = 'Dr. Moss came at 3.30 p.m. on Friday. "Who is there?" he asked. Nobody answered…'
    assert [p.text for p in segment(text, "eng_Latn").pieces] == [
        "Dr. Moss came at 3.30 p.m. on Friday.",
        '"Who is there?" he asked.',
        "Nobody answered…",
    ]


def test_a_line_wrapped_by_an_editor_is_one_sentence_but_a_heading_stands_alone() -> None:
    text = "A heading\nThis sentence was wrapped by somebody's editor at column\nsixty and ends here. Another.\n"
    assert [p.text for p in segment(text, "eng_Latn").pieces] == [
        "A heading",
        "This sentence was wrapped by somebody's editor at column\nsixty and ends here.",
        "Another.",
    ]


def test_long_sentences_are_split_at_clause_borders(e: Engine) -> None:
    clause = "the old man who lived at the end of the road walked slowly down to the river with his dog"
    text = "; ".join([clause] * 12) + "."
    parts = e.segment(text, "eng_Latn")
    assert len(parts) > 3
    assert all(e.space.count_tokens(part) <= e.space.max_tokens for part in parts)
    assert all(part.endswith((";", ".")) for part in parts)


@pytest.mark.parametrize("line", ["word " * 4000, "a" * 20_000, "ab," * 7000])
def test_a_line_of_20000_characters(e: Engine, line: str) -> None:
    parts = segment(line, "eng_Latn", e.fits)
    assert parts.text == line
    assert all(e.space.count_tokens(p.text) <= e.space.max_tokens for p in parts.pieces)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", TextError, "no text"),
        (" \n\t ", TextError, "no text"),
        ("😀", TextError, "no words"),
        ("— … !", TextError, "no words"),
        ("A\0B", TextError, "NUL"),
        ("half \ud83d of it", TextError, "surrogate"),
        ("x" * (5 * 1024 * 1024), TextError, f"{LARGEST:,}"),
        ("Это предложение написано по-русски.", LanguageError, "script"),
        ("这是一个中文句子。", LanguageError, "script"),
    ],
)
def test_text_that_can_not_be_read(e: Engine, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        e.import_text(text, "eng_Latn")
    assert "\n" not in str(caught.value)


def test_unknown_language(e: Engine) -> None:
    with pytest.raises(LanguageError, match="xxx_Latn"):
        e.import_text("Hello.", "xxx_Latn")


def test_control_characters_and_markup_are_text(e: Engine) -> None:
    text = "A bell\x07 rings. <script>alert('x')</script> <b>Bold</b> words.\x0b\n"
    assert e.import_text(text, "eng_Latn").text == text
    check(text, e.language("eng_Latn"))


def test_bytes_are_utf8_or_refused() -> None:
    assert from_bytes("\ufeffÄ\r\n".encode()) == "\ufeffÄ\r\n"
    with pytest.raises(TextError, match=r"notes\.txt is not UTF-8"):
        from_bytes(b"caf\xe9", "notes.txt")
