"""Text as people give it: bytes to text, and the checks that come before anything is made of it."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from .errors import LanguageError, TextError
from .spaces import Language

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

GUESSED = 5_000  # characters from which a text's language is guessed
LARGEST = 1_000_000  # characters; about 15,000 sentences, some minutes of encoding on a laptop

# Scripts named in FLORES-200 codes, as Unicode names their letters. Not Beng: the texts of sat_Beng are in Ol Chiki.
SCRIPTS = {
    "Latn": "LATIN",
    "Cyrl": "CYRILLIC",
    "Grek": "GREEK",
    "Arab": "ARABIC",
    "Hebr": "HEBREW",
    "Deva": "DEVANAGARI",
    "Armn": "ARMENIAN",
    "Ethi": "ETHIOPIC",
    "Geor": "GEORGIAN",
    "Gujr": "GUJARATI",
    "Guru": "GURMUKHI",
    "Hang": "HANGUL",
    "Khmr": "KHMER",
    "Knda": "KANNADA",
    "Laoo": "LAO",
    "Mlym": "MALAYALAM",
    "Mymr": "MYANMAR",
    "Orya": "ORIYA",
    "Sinh": "SINHALA",
    "Taml": "TAMIL",
    "Telu": "TELUGU",
    "Thai": "THAI",
    "Tibt": "TIBETAN",
}


def from_bytes(data: bytes, name: str = "The file") -> str:
    """UTF-8 bytes as text, with every byte accounted for (line ends and a byte order mark stay as they are)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not UTF-8 text (byte {error.start:,}); save it as UTF-8 and open it again."
        ) from None


def guess(text: str, languages: Mapping[str, Language]) -> str | None:
    """The code of the language that a text is most likely written in, as far as its beginning tells.

    None where py3langid is unsure (less than half likely) or it is none of `languages`. Takes about a second the first
    time in a process.
    """
    name, probability = identifier().classify(text[:GUESSED])
    return None if probability < 0.5 else _code(name, text, languages)


def likeliest(text: str, languages: Mapping[str, Language]) -> str | None:
    """The code of that one of `languages` in which a text is most likely written; None where py3langid knows none.

    For sentences: of 1,200 held-out ones in the six languages of the built-in space 10 are taken for another of these.
    """
    return next(_ranked(text, languages), None)


def foreign(text: str, lang: str, languages: Mapping[str, Language]) -> bool:
    """Whether a sentence is more likely in another one of `languages`; never where py3langid does not know `lang`."""
    codes = list(_ranked(text, languages))
    return lang in codes and codes[0] != lang


def _ranked(text: str, languages: Mapping[str, Language]) -> Iterator[str]:
    """The codes of `languages` that py3langid knows, the likeliest of a text first."""
    return (code for name, _ in identifier().rank(text[:GUESSED]) if (code := _code(name, text, languages)))


def _code(name: str, text: str, languages: Mapping[str, Language]) -> str | None:
    """The code of a language that py3langid names."""
    name = {"no": "nb", "gug": "gn", "kik": "ki", "uzs": "uz"}.get(name, name)
    if name == "zh":  # which of the two: each old character set holds one of them
        simplified, traditional = (
            sum(bool(c.encode(code, "ignore")) for c in text[:GUESSED]) for code in ("gb2312", "big5")
        )
        name = "zh-Hans" if simplified >= traditional else "zh-Hant"
    return next((code for code, language in languages.items() if language.tag == name), None)


@cache
def identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)


def key(text: str) -> str:
    """What makes two sentences the same: letters and digits, without case, punctuation or spaces."""
    return re.sub(r"\W+", "", text.casefold())


def loops(text: str) -> bool:
    """Whether one to four words come three times in a row."""
    return bool(re.search(r"\b(\w+(?:\W+\w+){0,3})(?:\W+\1\b){2}", text.casefold()))


def ends_like(text: str, other: str) -> bool:
    """Whether the last two words of another text stand in a text, side by side."""
    own, last = (re.findall(r"\w+", said.casefold()) for said in (text, other))
    return len(last) > 1 and any(pair == tuple(last[-2:]) for pair in itertools.pairwise(own))


def check(text: str, language: Language) -> None:
    """Raise TextError or LanguageError, in one sentence, where a text can't be made into concepts."""
    if not text.strip():
        raise TextError("There is no text here; write or paste at least one sentence.")
    if len(text) > LARGEST:
        raise TextError(
            f"The text has {len(text):,} characters and at most {LARGEST:,} fit one document; split it into parts."
        )
    if "\0" in text:
        raise TextError(
            f"There is a NUL character at position {text.index(chr(0)):,}; this is probably not a text file."
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise TextError("The text holds half of a character (a lone surrogate); copy it again from where it came.")
    if not has_words(text):
        raise TextError("There are no words in this text; a concept needs at least one.")
    script = SCRIPTS.get(language.code[-4:])
    letters = [c for c in text[:20_000] if c.isalpha()][:2_000]
    if script and letters:
        own = sum(unicodedata.name(c, "").startswith(script) for c in letters)
        if own < len(letters) / 2:
            raise LanguageError(
                f"Most letters here are not in {language.english}'s script; choose the language the text is written in."
            )
