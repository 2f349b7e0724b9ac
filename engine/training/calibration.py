"""What a trained concept model learns last: where documents end, where means lie, how far predictions miss."""

from __future__ import annotations

import numpy as np
import torch

from ..evaluation.lcm import auc, predictions
from ..lcm.base import BaseLCM
from ..lcm.generator import Stop, generate_all
from ..lcm.model import ConceptModel
from ..lcm.sonar_llm import SonarLLM
from .documents import Documents


def fit_means(model: SonarLLM, documents: Documents, indices: np.ndarray) -> None:
    """Let SONAR-LLM learn how means follow from its predictions, on 1,500 training documents."""
    model.slope.copy_(torch.eye(len(model.slope)))
    model.offset.zero_()
    pairs = predictions(model, documents, indices[:1500])
    parts = (np.concatenate(part) for part in zip(*pairs, strict=True))
    model.fit_means(*(model.normalizer.normalize(torch.from_numpy(part)) for part in parts))


def calibrate(model: ConceptModel, documents: Documents, indices: np.ndarray) -> dict[str, float]:
    """Set what a trained model knows about endings and about its own errors, from validation documents.

    Nearness to the end becomes a probability by logistic regression; the threshold is the one of best F1.
    """
    pairs = [
        (guess, truth)
        for i, (guess, truth) in zip(indices, predictions(model, documents, indices), strict=True)
        if documents.whole[i] and len(truth) == documents.length(int(i))
    ]
    guesses = torch.from_numpy(np.concatenate([guess for guess, _ in pairs]))
    truths = torch.from_numpy(np.concatenate([truth for _, truth in pairs]))
    ends = torch.cat([torch.arange(len(truth)) == len(truth) - 1 for _, truth in pairs])
    with torch.no_grad():
        expected = model.normalizer.normalize(guesses)
        near = model.nearness(expected).double()
        # Newton's method: two unknowns, a convex loss.
        features = torch.stack([near, torch.ones_like(near)], 1)
        fit = torch.zeros(2, dtype=torch.float64)
        for _ in range(30):
            p = torch.sigmoid(features @ fit)
            gradient = features.T @ (p - ends.double()) + 1e-3 * fit
            hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * torch.eye(2, dtype=torch.float64)
            fit -= torch.linalg.solve(hessian, gradient)
        model.end_fit.copy_(fit)
        p = model.ending(expected)
        best, threshold = 0.0, 0.5
        for candidate in np.linspace(0.05, 0.95, 91):
            said = p >= candidate
            f1 = 2 * float((said & ends).sum()) / max(float(said.sum() + ends.sum()), 1.0)
            if f1 > best:
                best, threshold = f1, float(candidate)
        model.end_threshold.fill_(threshold)
        if isinstance(model, BaseLCM):
            missed = (model.normalizer.normalize(truths) - expected)[~ends]
            covariance = missed.T @ missed / len(missed)
            # int8 storage and a lower-triangular factor get along: its rows have like lengths.
            model.spread.copy_(torch.linalg.cholesky(covariance + 1e-4 * torch.eye(len(covariance))))
    return {
        "end auc": round(auc(near[ends].numpy(), near[~ends].numpy()), 4),
        "end f1": round(best, 4),
        "end threshold": round(threshold, 3),
    }


def free_running(model: ConceptModel, documents: Documents, indices: np.ndarray) -> dict[str, float]:
    """Let the model go on from each document's first three concepts, to twice its length; how do documents end?"""
    told = [documents[int(i)][: documents.length(int(i)) - 1] for i in indices if documents.whole[i]]
    told = [own for own in told if 6 <= len(own) <= model.dims.context // 2]
    if not told:
        return {}
    most = 2 * max(map(len, told)) - 3
    made = generate_all(model, [own[:3] for own in told], most, seeds=range(len(told)), stop=Stop(repetition=2.0))
    ended = [len(new) < 2 * len(own) - 3 for own, new in zip(told, made, strict=True)]
    ratios = [min(3 + len(new), 2 * len(own)) / len(own) for own, new in zip(told, made, strict=True)]
    return {"ended by itself": round(float(np.mean(ended)), 3), "length ratio": round(float(np.mean(ratios)), 3)}
