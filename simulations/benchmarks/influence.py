"""What each client has done, by downdating, against one solve: 1,000 clients at the size of CIFAR-100's features.

Both are timed in one process, whose ratio holds on a machine that does other work too; the times themselves do not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from fedcof import ClassMeans, FedCOF
from fedcof.methods.influence import influence
from simulations.terminal import console


@dataclass(frozen=True)
class Size:
    """One case.

    Attributes
    ----------
    num_clients, classes_per_client : int
        K, and rows of each client.
    num_classes, feature_dim : int
        C and d.
    estimator : {"per-class", "pooled"}
        See :class:`fedcof.FedCOF`.
    shrinkage : float or str
        See :class:`fedcof.FedCOF`.
    repeats : int
        How often each time is taken; the least counts.
    """

    num_clients: int = 1000
    classes_per_client: int = 10
    num_classes: int = 100
    feature_dim: int = 1280
    estimator: str = "per-class"
    shrinkage: float | str = "leave-one-out"
    repeats: int = 3


SIZES = [Size(), Size(estimator="pooled", shrinkage=0.1)]


def measure(size: Size) -> dict[str, Any]:
    """Measure one case.

    Parameters
    ----------
    size : Size
        The case.

    Returns
    -------
    dict
        The fields of the size and, in seconds, ``t_solve`` (taking the uploads in and solving ridge) and
        ``t_influence`` (of all clients, on 1,000 of their class means), and ``ratio``, the second over the first.
    """
    uploads = list(_uploads(size))

    def filled() -> FedCOF:
        sizes = size.num_classes, size.feature_dim
        aggregator = FedCOF(*sizes, size.estimator, size.shrinkage, keeps_uploads=True)
        for upload in uploads:
            aggregator.add(upload)
        return aggregator

    aggregator = filled()
    solves, influences = [], []
    for _ in range(size.repeats):
        solves.append(_seconds(lambda: filled().solve()))
        influences.append(_seconds(lambda: influence(aggregator)))
    return {
        **asdict(size),
        "t_solve": min(solves),
        "t_influence": min(influences),
        "ratio": min(influences) / min(solves),
    }


def _uploads(size: Size) -> Iterator[ClassMeans]:
    """Draw uploads whose rows scatter around their class, far from the origin as features are."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0.5, 0.5, (size.num_classes, size.feature_dim)).astype(np.float32)
    for _ in range(size.num_clients):
        ids = np.sort(generator.permutation(size.num_classes)[: size.classes_per_client])
        counts = generator.integers(1, 40, len(ids))
        noise = generator.standard_normal((len(ids), size.feature_dim), dtype=np.float32)
        means = centres[ids] + noise / np.sqrt(counts, dtype=np.float32)[:, None]
        yield ClassMeans(torch.from_numpy(ids), torch.from_numpy(counts), torch.from_numpy(means))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """Make the table, in seconds."""
    table = Table()
    for heading in ("clients", "scatter", "shrunk by", "solve s", "influence s", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        size = Size(**{name: result[name] for name in Size.__dataclass_fields__})
        told = str(size.num_clients), size.estimator, str(size.shrinkage)
        table.add_row(*told, *(f"{result[field]:.2f}" for field in ("t_solve", "t_influence", "ratio")))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or with ``--json`` the figures."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.influence", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    results = [measure(size) for size in SIZES]
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        console.print(results_table(results))


if __name__ == "__main__":
    main()
