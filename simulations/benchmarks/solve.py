"""The server's solve against its floor: one float32 product of the rows and one Cholesky solve.

Time and memory are measured in a process of their own per case; ratios of times taken in one process hold on a
machine that does other work too, the times themselves do not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from fedcof import FedCOF
from fedcof.heads.regularised import RegularisedDiscriminant
from fedcof.wire.arrays import COUNTS, DITHER, MEANS, STEPS, Arrays, num_bytes
from fedcof.wire.encoding import decode_class_means
from simulations.benchmarks.peaks import peak_of, reset_peak, resident
from simulations.terminal import console

MEGABYTE = 1e6


@dataclass(frozen=True)
class Size:
    """One case.

    Attributes
    ----------
    name : str
        What to call it.
    num_rows, num_classes, feature_dim : int
        R, C and d.
    rows_per_upload : int
        Rows of each client.
    encoding : {"float32", "int8"}
        How they were sent.
    estimator : {"per-class", "pooled"}
        See :class:`fedcof.FedCOF`.
    class_directions : int
        Those of a quadratic head; 0 for the ridge head.
    repeats : int
        How often each time is taken; the least counts.
    """

    name: str
    num_rows: int
    num_classes: int
    feature_dim: int = 1280
    rows_per_upload: int = 9
    encoding: str = "float32"
    estimator: str = "per-class"
    class_directions: int = 0
    repeats: int = 3


SIZES = [
    Size("iNaturalist", 82_822, 1203),
    Size("iNaturalist", 82_822, 1203, encoding="int8"),
    Size("iNaturalist", 82_822, 1203, encoding="int8", estimator="pooled"),
    Size("iNaturalist", 82_822, 1203, class_directions=5),
    Size("CIFAR-100", 3_400, 100, rows_per_upload=34),
    Size("CIFAR-100", 3_400, 100, rows_per_upload=34, class_directions=5),
    Size("small", 100, 10, rows_per_upload=10),
]


def benchmark_solve(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Measure the solve, each size in a process of its own.

    Parameters
    ----------
    sizes : sequence of Size
        The cases.

    Returns
    -------
    list of dict
        The fields of each size and, in seconds, ``t_product`` (float32 X^T X of all rows), ``t_cholesky_solve``
        (float64, C right-hand sides), ``t_ours`` (taking the uploads in and solving) and ``ratio``, that
        over the sum of the other two; in bytes ``upload_bytes``, ``peak_bytes`` (resident, while ours ran) and
        ``peak_over_uploads_bytes``, what of it is neither the uploads nor the process without them.

    Raises
    ------
    subprocess.CalledProcessError
        If a measurement fails.
    """
    results = []
    for size in sizes:
        command = [sys.executable, "-m", "simulations.benchmarks.solve", "--one", json.dumps(asdict(size))]
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(process.stdout))
    return results


def measure(size: Size) -> dict[str, Any]:
    """Measure one case in this process; see :func:`benchmark_solve`."""
    empty_process, upload_bytes, uploads = resident(os.getpid()), 0, []
    for arrays in _uploads(size):
        upload_bytes += num_bytes(arrays)
        uploads.append(decode_class_means(arrays))
    reset_peak()

    def solve() -> None:
        rank = size.class_directions
        head = RegularisedDiscriminant(rank=rank) if rank else "ridge"
        aggregator = FedCOF(size.num_classes, size.feature_dim, size.estimator, shrinkage=0.1, head=head)
        for upload in uploads:
            aggregator.add(upload)
        aggregator.solve()

    ours = [_seconds(solve)]
    peak = peak_of(os.getpid())
    rows = torch.cat([upload.means for upload in uploads])
    gram = torch.eye(size.feature_dim, dtype=torch.float64) + (rows[:4096].T @ rows[:4096]).to(torch.float64)
    sums = torch.randn(size.feature_dim, size.num_classes, dtype=torch.float64)
    products, systems = [], []
    for _ in range(size.repeats):
        products.append(_seconds(lambda: rows.T @ rows))
        systems.append(_seconds(lambda: torch.cholesky_solve(sums, torch.linalg.cholesky(gram))))
        ours.append(_seconds(solve))
    floor = min(products) + min(systems)
    return {
        **asdict(size),
        "t_product": min(products),
        "t_cholesky_solve": min(systems),
        "t_ours": min(ours),
        "ratio": min(ours) / floor,
        "upload_bytes": upload_bytes,
        "peak_bytes": peak,
        "peak_over_uploads_bytes": peak - empty_process - upload_bytes,
    }


def _uploads(size: Size) -> Iterator[Arrays]:
    """Draw uploads whose rows scatter around their class, far from the origin as features are."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0.5, 0.5, (size.num_classes, size.feature_dim)).astype(np.float32)
    for first in range(0, size.num_rows, size.rows_per_upload):
        yield _upload(size, centres, first, generator)


def _upload(size: Size, centres: np.ndarray[Any, Any], first: int, generator: np.random.Generator) -> Arrays:
    num_rows = min(size.rows_per_upload, size.num_rows - first)
    class_ids = generator.permutation(size.num_classes)[:num_rows]
    num_rows = len(class_ids)
    counts = generator.integers(1, 4, num_rows)
    arrays: Arrays = {"class-ids": class_ids.astype(np.uint16), COUNTS: counts.astype(np.uint8)}
    noise = generator.standard_normal((num_rows, size.feature_dim), dtype=np.float32)
    means = centres[class_ids] + noise / np.sqrt(counts, dtype=np.float32)[:, None]
    if size.encoding == "float32":
        return {**arrays, MEANS: means}
    steps = np.abs(means).max(axis=1) / np.float32(126.5)
    levels = np.rint(means / steps[:, None]).astype(np.int8)
    return {**arrays, MEANS: levels, STEPS: steps, DITHER: np.array([first], dtype=np.uint32)}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """Make the table: seconds, and megabytes of 10^6 bytes."""
    table = Table()
    table.add_column("case", no_wrap=True)
    for heading in ("X^T X s", "solve s", "ours s", "ratio", "sent MB", "more MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            f"{result['name']} {result['encoding']} {result['estimator']}{_head_of(result)}",
            *(f"{result[field]:.4f}" for field in ("t_product", "t_cholesky_solve", "t_ours")),
            f"{result['ratio']:.2f}",
            *(f"{result[field] / MEGABYTE:.1f}" for field in ("upload_bytes", "peak_over_uploads_bytes")),
        )
    return table


def _head_of(result: dict[str, Any]) -> str:
    return f" quadratic, {result['class_directions']} directions" if result["class_directions"] else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or with ``--json`` the figures."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.solve", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--one", metavar="SIZE", help="measure this one size, a JSON object, in this process")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(Size(**json.loads(options.one)))))
        return
    results = benchmark_solve(SIZES)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        console.print(results_table(results))


if __name__ == "__main__":
    main()
