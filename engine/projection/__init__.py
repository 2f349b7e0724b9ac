"""The map: concepts to points in the plane, and points back to concepts.

Two maps, one interface. A `Landscape` was fitted once on reference sentences and never moves. A `DocumentMap`
is fitted by umap-learn to the concepts of one document. Both have `coordinates`, `project` and `invert`.
"""

from .document_map import FEWEST, DocumentMap
from .landscape import LANDSCAPE, SCALES, Density, Label, Landscape, Placement
from .references import Reference, Source

__all__ = [
    "FEWEST",
    "LANDSCAPE",
    "SCALES",
    "Density",
    "DocumentMap",
    "Label",
    "Landscape",
    "Placement",
    "Reference",
    "Source",
]
