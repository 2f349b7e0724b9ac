"""Story sentences that a space is measured on: other text than translators' examples, and longer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from ..training.corpus import stories
from .pairs import language_codes
from .smoothness import Said

USUAL = range(10, 161)  # characters of usual sentences
LONG = range(25, 41)  # words of long ones
LIMIT = 500  # sentences of each kind and language


def story_sentences(path: Path, languages: Collection[str]) -> dict[str, list[Said]]:
    """Sentences of the documents kept for validation, evenly from the whole of them: usual ones, and long ones.

    Raises CorpusError for a line that is no document (see `docs/training.md`).
    """
    codes = language_codes(languages)
    usual: dict[str, dict[str, None]] = defaultdict(dict)
    long: dict[str, dict[str, None]] = defaultdict(dict)
    for story in stories(path):
        for sentence in story.sentences if story.split == "valid" and story.lang in codes else ():
            if len(sentence) in USUAL:
                usual[codes[story.lang]][sentence] = None
            if len(sentence.split()) in LONG:
                long[codes[story.lang]][sentence] = None
    return {"stories": evenly(usual), "long sentences": evenly(long)}


def evenly(kinds: dict[str, dict[str, None]]) -> list[Said]:
    found = []
    for lang, sentences in kinds.items():
        own = list(sentences)
        n = min(LIMIT, len(own))
        found += [(lang, own[i * len(own) // n]) for i in range(n)]
    return found
