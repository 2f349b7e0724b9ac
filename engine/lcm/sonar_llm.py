"""SONAR-LLM: Base-LCM's network, trained on the words of the next sentence instead of on its concept.

Dragunov et al. 2025, arXiv 2508.05305: the predicted concept is decoded by the space's frozen decoder, and the loss is
the cross-entropy of the true sentence's tokens. So the network looks for a concept that is decoded well, where the mean
of all that may follow lies between sentences.
"""

from __future__ import annotations

from .base import BaseLCM


class SonarLLM(BaseLCM):
    """SONAR-LLM; it reads, predicts and draws as Base-LCM does, whose weights it can start from."""

    kind = "sonar-llm"
    title = "SONAR-LLM"
    words = True
