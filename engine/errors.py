"""The errors a person can cause. Each message is one sentence: what happened and what to do."""


class ConceptscapeError(Exception):
    """Any expected failure; the page shows its message as a toast, the command line on stderr with exit code 2."""


class TextError(ConceptscapeError):
    """The text can't be used: empty, too long, or not text."""


class LanguageError(ConceptscapeError):
    """A language that the concept space does not have."""


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
    """The person stopped it."""

    def __init__(self) -> None:
        super().__init__("Stopped; nothing was changed.")
