"""What a paper says of the accuracy of a run, where the run is one of its own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fedcof.data.section import DataSection
from fedcof.embedding.section import RANDOM, EmbeddingSection
from fedcof.methods.section import MethodSection
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult
from simulations.report.methods_and_keys import is_telling, unused_keys
from simulations.scenario import load_scenario, paper_figures, scenario_names

_CLASSES = "classes"
_WEIGHTS = EmbeddingSection.key_of("weights").name
# A copy of a dataset may have other columns, and a copy of a backbone's weights may lie anywhere.
_OF_A_COPY = {DataSection.key_of(name).name for name in ("image_column", "label_column", "partition_column")}


def paper_accuracy(run: RunResult) -> float | None:
    """Look up the accuracy that a paper has for a run.

    Parameters
    ----------
    run : RunResult
        Any.

    Returns
    -------
    float or None
        From 0 to 1, over the paper's seeds. None unless the run agrees, in all that its accuracy may depend on,
        with a scenario of a paper's figures, wherever its dataset and weights came from; of the dataset the number
        of classes is looked at.
    """
    for values, figures in _figures():
        if run.method in figures and len(run.class_names) == figures[_CLASSES] and _agrees(run, values):
            return figures[run.method] / 100
    return None


@lru_cache(maxsize=1)
def _figures() -> list[tuple[dict[str, object], dict[str, float]]]:
    known = ((load_scenario(name), paper_figures(name)) for name in scenario_names())
    return [(values, figures) for values, figures in known if figures]


def _agrees(run: RunResult, values: dict[str, object]) -> bool:
    own: dict[str, Any] = {**MethodSection.named(name=run.method), **DataSection.named(seed=run.seed)}
    published = {name: key.published for name, key in RunConfig.declared().items() if key.published is not None}
    paper = {**RunConfig.defaults(), **values, **published, **own}
    found = {**RunConfig.defaults(), **run.config, **own}
    ignored = _OF_A_COPY | unused_keys(found)
    ignored |= {name for name, known in RunConfig.declared().items() if known.place or not is_telling(name)}
    same = all(found[key] == paper.get(key) for key in found if key not in ignored)
    return same and found[_WEIGHTS] != RANDOM
