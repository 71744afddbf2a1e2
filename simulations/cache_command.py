"""What ``fedcof cache`` does: list and clear the kept features, copies of tables and partitions."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedcof.data.problem import problem_notes_dir
from fedcof.data.table_cache import clear_tables, list_tables, table_cache_dir
from fedcof.data.virtual_clients import partition_cache_dir
from fedcof.embedding.feature_cache import clear_cache, list_cache
from fedcof.embedding.feature_table import feature_cache_dir
from simulations.terminal import TextTable, console, say


def show_cache() -> None:
    """Print what the cache holds."""
    table = TextTable(["backbone", "images", "dimension", "MB", "complete"], [])
    for entry in list_cache(feature_cache_dir()):
        images = entry.num_images if entry.complete else f"{entry.num_kept} of {entry.num_images}"
        complete = "yes" if entry.complete else "no"
        size = f"{entry.num_bytes / 1e6:.1f}"
        table.add_texts(entry.backbone, images, entry.feature_dim, size, complete)
    console.print(table)
    copies, folder = list_tables(table_cache_dir()), feature_cache_dir().parent
    for copy in copies:
        say(f"A copy of {copy.num_rows} rows of {copy.kind}: {copy.num_bytes / 1e6:.1f} MB in {copy.folder.name}")
    say(f"{len(copies)} table(s), {len(_partitions())} partition(s); all of it is in {folder}")


def empty_cache() -> None:
    """Delete what the cache holds, apart from what another process is writing."""
    freed = clear_cache(feature_cache_dir()) + clear_tables(table_cache_dir())
    freed += sum(path.stat().st_size for path in _partitions())
    shutil.rmtree(partition_cache_dir(), ignore_errors=True)
    shutil.rmtree(problem_notes_dir(), ignore_errors=True)
    say(f"Freed {freed / 1e6:.1f} MB in {feature_cache_dir().parent}")


def _partitions() -> list[Path]:
    return sorted(partition_cache_dir().glob("*.npz"))
