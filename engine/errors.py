"""The errors a person can cause. Each message is one sentence: what happened and what to do."""

LONGEST = 300  # characters of a message: what a toast can hold, and more than any sentence written here needs


def elided(message: str) -> str:
    """A message of at most LONGEST characters: of a longer one the middle is left out, since what happened stands at
    its beginning and what to do at its end."""
    half = (LONGEST - 1) // 2
    return message if len(message) <= LONGEST else f"{message[:half]}…{message[-half:]}"


class ConceptscapeError(Exception):
    """Any expected failure; the page shows its message as a toast, the command line on stderr with exit code 2.

    What is quoted in a message may have any length and hold halves of characters (lone surrogates); the message has
    LONGEST characters at most, and escapes instead of halves.
    """

    def __init__(self, message: str) -> None:
        super().__init__(elided(message.encode(errors="backslashreplace").decode()))


class TextError(ConceptscapeError):
    """The text can't be used: empty, too long, or not text."""


class LanguageError(ConceptscapeError):
    """A language that the concept space does not have."""


class DocumentError(ConceptscapeError):
    """A document that can't be shown, stored and edited as it is."""


class WeightsError(ConceptscapeError):
    """A weights file is missing, damaged, or made for something else."""


class VectorError(ConceptscapeError):
    """Vectors of the wrong shape, or with values that are not finite."""


class SeedError(ConceptscapeError):
    """A seed that no random number can be drawn from."""


class EditError(ConceptscapeError):
    """An edit that the document does not allow."""


class StoreError(ConceptscapeError):
    """The database can't be opened, read or written."""


class ConflictError(StoreError):
    """The document was saved from elsewhere since it was opened."""


class MovedError(StoreError):
    """The database was deleted, moved or replaced while it was open; it can be saved to another file."""


class CorpusError(ConceptscapeError):
    """A line of a training corpus that can't be used."""


class SheetError(ConceptscapeError):
    """A reading sheet, or the key beside it, that can't be made or counted."""


class TrainingError(ConceptscapeError):
    """Training can't go on."""


class Cancelled(ConceptscapeError):
    """The person stopped it; `kept` says what is left of the work."""

    def __init__(self, kept: str = "nothing was changed") -> None:
        super().__init__(f"Stopped; {kept}.")
