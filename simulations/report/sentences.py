"""What the numbers of a comparison say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from fedcof.methods.role import Role
from simulations.report.methods_and_keys import (
    method_styles,
    role_of,
    same_federation,
    same_upload,
)
from simulations.report.seed_averages import SeedAverage, accuracy_of, with_known_accuracy


def reading(averages: Sequence[SeedAverage]) -> list[str]:
    """Say in sentences what the numbers say.

    Parameters
    ----------
    averages : sequence of SeedAverage
        All settings of a comparison; those whose accuracy nobody knows are compared with nothing.

    Returns
    -------
    list of str
        One sentence a comparison that the runs allow.
    """
    known = with_known_accuracy(averages)
    sentences = []
    for means in (average for average in known if role_of(average.method) is Role.MEANS_ALONE):
        rivals = [a for a in known if role_of(a.method) is Role.REBUILT and _same_seeds(a, means)]
        rivals = [a for a in rivals if same_upload(a.runs[0].config, means.runs[0].config)]
        # Where clients failed in one of them, what reached the server was not the same.
        rivals = [a for a in rivals if a.average_of("clients") == means.average_of("clients")]
        if rivals:
            sentences.append(_beside_class_means(means, rivals))
    for ceiling in (average for average in known if role_of(average.method) is Role.CEILING):
        rivals = [a for a in known if _same_seeds(a, ceiling)]
        rivals = [a for a in rivals if same_federation(a.runs[0].config, ceiling.runs[0].config)]
        peers = [average for average in rivals if average.method == ceiling.method]
        if ceiling is not max(peers, key=accuracy_of):
            continue
        rivals = [average for average in rivals if role_of(average.method) is Role.REBUILT]
        if rivals:
            sentences.append(_beside_ceiling(ceiling, rivals))
    return list(dict.fromkeys(sentences))


def _same_seeds(one: SeedAverage, other: SeedAverage) -> bool:
    return {run.seed for run in one.runs} == {run.seed for run in other.runs}


def _beside_class_means(means: SeedAverage, rivals: Sequence[SeedAverage]) -> str:
    points = sorted(_points(rival, means) for rival in rivals)
    upload = f" ({means.label})" if means.values_label else ""
    if len(rivals) > 1 and points[0] != points[-1]:
        return (
            f"{len(rivals)} settings of FedCOF are {points[0]:+.1f} to {points[-1]:+.1f} points from FedNCM "
            f"on the same upload{upload}."
        )
    return f"FedCOF is {_more_or_less(points[0])} FedNCM on the same upload{upload}."


def _beside_ceiling(ceiling: SeedAverage, rivals: Sequence[SeedAverage]) -> str:
    """Compare with the best FedCOF on the same federation; of equally good ones, the one that sends least."""
    best = max(rivals, key=lambda average: (round(accuracy_of(average), 4), -average.average_of("uplink_bytes")))
    choice = f"the best of {len(rivals)} settings of FedCOF here" if len(rivals) > 1 else "FedCOF"
    title = method_styles([ceiling.method])[ceiling.method].title
    name = f"{title[0].upper()}{title[1:]}{_in_brackets(ceiling)}"
    sentence = f"{name} is {_more_or_less(_points(ceiling, best))} {choice}{_in_brackets(best)}"
    sent = [average.average_of("uplink_bytes") for average in (ceiling, best)]
    if not all(sent):
        return f"{sentence}."
    ratio = sent[0] / sent[1]
    return f"{sentence}, and sends {ratio:.0f} times as much." if ratio >= 2 else f"{sentence}."


def _in_brackets(average: SeedAverage) -> str:
    return f" ({average.values_label})" if average.values_label else ""


def _points(one: SeedAverage, other: SeedAverage) -> float:
    """Percentage points between two accuracies, as far as they are said."""
    return round((accuracy_of(one) - accuracy_of(other)) * 100, 1)


def _more_or_less(points: float) -> str:
    if points == 0:
        return "as accurate (to 0.1 points) as"
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'} accurate than"
