"""Which backbone the class statistics would choose, and whether test images agree."""

from __future__ import annotations

from collections.abc import Sequence

from fedcof.embedding.section import EmbeddingSection
from fedcof.run.results import RunResult
from simulations.report.seed_averages import SeedAverage, averages_over_seeds

_BACKBONE, _WEIGHTS = EmbeddingSection.key_of("backbone").name, EmbeddingSection.key_of("weights").name
SCORES = {
    "label_correlation": "label correlation",
    "leave_one_out_likelihood": "leave-one-out likelihood",
    "class_information": "class information",
}


def backbone_sentences(averages: Sequence[SeedAverage]) -> list[str]:
    """Say which of several backbones each score picks, and whether it is the most accurate.

    Parameters
    ----------
    averages : sequence of SeedAverage
        All settings of a comparison. Those that differ in nothing but the backbone, its weights and the seed are
        put beside one another.

    Returns
    -------
    list of str
        One sentence for each setting that several backbones were tried in, and each score that all of them have.
    """
    groups: dict[str, list[SeedAverage]] = {}
    for average in averages:
        if _BACKBONE in average.values:
            groups.setdefault(_elsewhere(average), []).append(average)
    chosen = [
        (setting, rivals, score)
        for setting, rivals in groups.items()
        for score in SCORES
        if len(rivals) > 1 and all(rival.average_if_known(score) is not None for rival in rivals)
    ]
    several = len({setting for setting, _, _ in chosen}) > 1
    return [_sentence(rivals, score, f" ({setting})" if several else "") for setting, rivals, score in chosen]


def backbone_sentences_of(results: Sequence[RunResult]) -> list[str]:
    """Say it of single runs; see :func:`backbone_sentences`."""
    return backbone_sentences(averages_over_seeds(list(results)))


def _elsewhere(average: SeedAverage) -> str:
    """Name the setting without its backbone."""
    values = [f"{key} {value}" for key, value in average.values.items() if key not in (_BACKBONE, _WEIGHTS)]
    return ", ".join([average.method, *values])


def _sentence(rivals: Sequence[SeedAverage], score: str, setting: str) -> str:
    def value(rival: SeedAverage) -> float:
        return rival.average_if_known(score) or 0.0

    def name(rival: SeedAverage) -> str:
        backbone = str(rival.values[_BACKBONE])
        shared = sum(other.values[_BACKBONE] == backbone for other in rivals) > 1
        return f"{backbone} with weights {rival.values.get(_WEIGHTS)}" if shared else backbone

    ranked = sorted(rivals, key=value, reverse=True)
    values = ", ".join(f"{value(rival):.4f} {name(rival)}" for rival in ranked)
    said = f"By {SCORES[score]}{setting} the backbone is {name(ranked[0])} ({values})"
    accuracies = [rival.accuracy for rival in ranked if rival.accuracy is not None]
    if len(accuracies) < len(ranked):
        return f"{said}; whether it is the most accurate is unknown."
    best = max(range(len(ranked)), key=accuracies.__getitem__)
    if accuracies[0] == accuracies[best]:
        return f"{said}, which is the most accurate, with {accuracies[0] * 100:.2f} %."
    return (
        f"{said}, with an accuracy of {accuracies[0] * 100:.2f} %; the most accurate is {name(ranked[best])}, with "
        f"{accuracies[best] * 100:.2f} %."
    )
