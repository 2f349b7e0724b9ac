"""SONAR-LLM's objective (arXiv 2508.05305, section 3): the words of the next sentence, through the frozen decoder."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..device import best_dtype
from ..errors import TrainingError
from ..lcm.model import Batch, ConceptModel
from ..lcm.sonar_llm import SonarLLM
from ..spaces.builtin import EOS, BuiltinSpace
from ..spaces.transformer import PAD
from .documents import Documents
from .objective import Shortlist, TokenLoss

GROUPS = 4  # in which sentences of like length are decoded, so that little is padding
FREQUENT, DRAWN = 3000, 1000  # pieces in each step's softmax: those of the text's most, and a draw of the others


class Words:
    """The loss, asked for `sentences` of a batch, drawn anew each time: a decoder costs more than a concept model."""

    def __init__(self, space: BuiltinSpace, documents: Documents, sentences: int = 64) -> None:
        if documents.said is None:
            raise TrainingError("The documents come without their words, which SONAR-LLM learns.")
        self.documents, self.said, self.sentences = documents, documents.said, sentences
        self.languages = torch.from_numpy(documents.said.langs.astype(np.int64))
        self.decoder = copy.deepcopy(space.decoder).requires_grad_(False)
        counts = np.bincount(documents.said.flat, minlength=self.decoder.dims.vocabulary)
        self.shortlist = Shortlist(counts, FREQUENT, DRAWN)

    def to(self, device: torch.device) -> Words:
        """The decoder where the model is, in the precision that multiplies fastest there."""
        self.decoder.to(device, best_dtype(device))
        return self

    def loss(self, model: ConceptModel, batch: Batch, rows: np.ndarray, real: np.ndarray, read: Tensor) -> Tensor:
        """Mean cross-entropy (nats) of the tokens of some sentences, given what stands before each, `read` [N, T, D].

        `rows` and `real` are what `collate` gave. What is drawn comes from torch's CPU generator.
        """
        assert isinstance(model, SonarLLM)
        predicted = model.normalizer.denormalize(model.predictions(Batch(read, batch.real)))
        places = np.flatnonzero(real)
        places = places[torch.randperm(len(places))[: self.sentences].numpy()]
        said = rows.ravel()[places]
        order = np.argsort(self.said.lengths[said], kind="stable")
        concepts = predicted.flatten(0, 1)[torch.from_numpy(places[order]).to(read.device)]
        concepts = concepts * (model.norm / concepts.norm(dim=-1, keepdim=True).clamp_min(1e-6))
        states, wanted = [], []
        for part in np.array_split(np.arange(len(order)), min(GROUPS, len(order))):
            found, tokens = self.states(concepts[part[0] : part[-1] + 1], said[order[part]])
            states.append(found)
            wanted.append(tokens)
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        pieces, shift, targets = self.shortlist.draw(torch.cat(wanted), generator)
        device = read.device
        weight = functional.embedding(pieces.to(device), self.decoder.embed.weight)
        return TokenLoss.apply(torch.cat(states), weight, shift.to(device), targets.to(device))

    def states(self, concepts: Tensor, said: np.ndarray) -> tuple[Tensor, Tensor]:
        """The decoder's hidden states [tokens, width] for sentences `said`, and the tokens, on the CPU."""
        device = concepts.device
        targets = torch.from_numpy(self.said.rows(said).padded(after=[EOS]))
        real = targets != PAD
        inputs = targets[:, :-1].masked_fill(targets[:, :-1] == EOS, PAD)
        conditions = self.decoder.condition(concepts.to(self.decoder.embed.weight.dtype))
        states = self.decoder.states(inputs.to(device), conditions, self.languages[said].to(device))
        places = real.flatten().nonzero()[:, 0]
        return states.flatten(0, 1).index_select(0, places.to(device)), targets[real]
