"""What a server asks a node to do."""

from __future__ import annotations

from enum import Enum


class Act(Enum):
    """What a message asks for."""

    STATISTICS = "statistics"
    TRAINING = "training"
    EVALUATION = "evaluation"
