"""One upload more among many that are kept, and solved: against the solve of the same uploads in memory alone.

On a machine that does other work too the time of the clock says little of either, so the processor's time is taken
beside it, and of each the least of some repeats, in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.table import Table

from fedcof.run.config import RunConfig
from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.codec import Sent
from fedcof.wire.encoding import encode_class_means
from server.resolving import solved_from
from server.run_strategy import strategy_of
from server.upload_store import UploadStore
from simulations.terminal import console

ENCODER = "drawn at random"
PER_PACK = 2000


@dataclass(frozen=True)
class Size:
    """One case.

    Attributes
    ----------
    num_uploads, rows_per_upload, num_classes, feature_dim : int
        How many uploads are kept, their rows, C and d.
    encoding : {"float32", "coded"}
        How they were sent.
    packed : bool
        Whether in packs, as a simulation's, or one file each, as nodes'.
    head, estimator : str
        What is solved.
    repeats : int
        How often each time is taken; the least counts.
    """

    num_uploads: int = 10_000
    rows_per_upload: int = 10
    num_classes: int = 100
    feature_dim: int = 512
    encoding: str = "float32"
    packed: bool = True
    head: str = "ridge"
    estimator: str = "per-class"
    repeats: int = 5


SIZES = [
    Size(),
    Size(packed=False),
    Size(estimator="pooled"),
    Size(head="quadratic"),
    Size(encoding="coded"),
]


def benchmark_federation(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Measure each size in a process of its own.

    Parameters
    ----------
    sizes : sequence of Size
        The cases.

    Returns
    -------
    list of dict
        The fields of each size and, in seconds, ``t_solve`` (uploads in memory, added and solved), ``t_first``
        (the first solve of kept ones, which decodes all), ``t_one_more`` (one upload more is written, and all are
        solved from disk), and ``ratio``, the last over the first; ``cpu_solve``, ``cpu_one_more`` and
        ``cpu_ratio`` are the same of the processor.

    Raises
    ------
    subprocess.CalledProcessError
        If a measurement fails.
    """
    results = []
    for size in sizes:
        command = [sys.executable, "-m", "simulations.benchmarks.federation", "--one", json.dumps(asdict(size))]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(process.stdout))
    return results


def measure(size: Size) -> dict[str, Any]:
    """Measure one case in this process; see :func:`benchmark_federation`."""
    with TemporaryDirectory() as folder:
        config = _config(size, Path(folder))
        store = UploadStore(Path(folder), config)
        shape = size.num_classes, size.feature_dim
        centres = np.random.default_rng(0).normal(0.5, 0.5, shape).astype(np.float32)
        strategy = strategy_of(config)
        uploads = []
        for number in range(size.num_uploads):
            sent = _upload(size, centres, number)
            uploads.append((_name(number), sent, strategy.read_upload(sent)))
        _keep(size, store, uploads)

        def alone() -> None:
            fresh = strategy_of(config)
            for number, (_, _, upload) in enumerate(uploads):
                fresh.aggregator.add(upload, number)
            fresh.solve()

        first = _seconds(lambda: solved_from(store))[0]
        solves, more = [], []
        for _ in range(size.repeats):
            number = len(uploads)
            sent = _upload(size, centres, number)
            read = strategy.read_upload(sent)
            arrived = (_name(number), sent, read)

            def one_more(arrived: tuple[str, Sent, Any] = arrived) -> None:
                if size.packed:
                    store.keep_many([arrived])
                else:
                    store.keep(*arrived[:2], statistics=arrived[2])
                solved_from(store)

            more.append(_seconds(one_more))
            uploads.append(arrived)
            solves.append(_seconds(alone))
    (solve, cpu_solve), (longer, cpu_longer) = (map(min, zip(*times, strict=True)) for times in (solves, more))
    return {
        **asdict(size),
        "t_solve": solve,
        "t_first": first,
        "t_one_more": longer,
        "ratio": longer / solve,
        "cpu_solve": cpu_solve,
        "cpu_one_more": cpu_longer,
        "cpu_ratio": cpu_longer / cpu_solve,
    }


def _config(size: Size, folder: Path) -> RunConfig:
    names = ",".join(f"class {number}" for number in range(size.num_classes))
    return RunConfig(
        dataset="nodes",
        classes=names,
        encoder=ENCODER,
        feature_dim=size.feature_dim,
        num_clients=size.num_uploads,
        head=size.head,
        estimator=size.estimator,
        upload="given",
        encoding=size.encoding,
        feature_transform="none",
    )


def _name(number: int) -> str:
    return f"site-{number:06d}"


def _keep(size: Size, store: UploadStore, uploads: Sequence[tuple[str, Sent, Any]]) -> None:
    if size.packed:
        for first in range(0, len(uploads), PER_PACK):
            store.keep_many(uploads[first : first + PER_PACK])
        return
    for name, sent, read in uploads:
        store.keep(name, sent, statistics=read)


def _upload(size: Size, centres: np.ndarray[Any, Any], number: int) -> Sent:
    """Draw an upload whose rows scatter around their class, far from the origin as features are."""
    generator = np.random.default_rng(number)
    class_ids = np.sort(generator.permutation(size.num_classes)[: size.rows_per_upload])
    counts = generator.integers(1, 4, len(class_ids))
    noise = generator.standard_normal((len(class_ids), size.feature_dim), dtype=np.float32)
    means = centres[class_ids] + noise / np.sqrt(counts, dtype=np.float32)[:, None]
    step = 0.3 if size.encoding == "coded" else None
    parts = (torch.from_numpy(part) for part in (class_ids, counts, means.astype(np.float32)))
    arrays = encode_class_means(ClassMeans(*parts), size.encoding, number, step)
    return Sent(arrays, f"class-means.{size.encoding}")


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Take the time of the clock and of the processor."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """Make the table, in seconds."""
    table = Table()
    table.add_column("case", no_wrap=True)
    for heading in ("solve alone", "first, all decoded", "one more", "ratio", "ratio of CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        kept = "packs" if result["packed"] else "files"
        case = f"{result['num_uploads']} {result['encoding']} {kept}, {result['estimator']} {result['head']}"
        seconds = (f"{result[field]:.2f}" for field in ("t_solve", "t_first", "t_one_more", "ratio", "cpu_ratio"))
        table.add_row(case, *seconds)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or with ``--json`` the figures."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.federation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--one", metavar="SIZE", help="measure this one size, a JSON object, in this process")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(Size(**json.loads(options.one)))))
        return
    results = benchmark_federation(SIZES)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        console.print(results_table(results))


if __name__ == "__main__":
    main()
