"""How good the models are."""

from .pairs import Pair, read_pairs, thin
from .space import evaluate_space, table
from .stories import story_sentences

__all__ = ["Pair", "evaluate_space", "read_pairs", "story_sentences", "table", "thin"]
