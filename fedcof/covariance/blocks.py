"""Rows of many uploads, read in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from fedcof.statistics.class_means import ClassMeanRows

ROWS_PER_BLOCK = 4096


Block = list[tuple[ClassMeanRows, slice]]


def as_sequence(uploads: ClassMeanRows | Sequence[ClassMeanRows]) -> Sequence[ClassMeanRows]:
    """Take one upload for a sequence of one."""
    return uploads if isinstance(uploads, Sequence) else [uploads]


def row_blocks(uploads: Sequence[ClassMeanRows]) -> Iterator[Block]:
    """Put the rows of uploads together, in order, into blocks of at most ``ROWS_PER_BLOCK`` rows."""
    block: Block = []
    room = ROWS_PER_BLOCK
    for upload in uploads:
        start = 0
        while start < upload.num_rows:
            stop = min(start + room, upload.num_rows)
            block.append((upload, slice(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield block
                block, room = [], ROWS_PER_BLOCK
    if block:
        yield block


def decode_block(block: Block, buffers: dict[torch.dtype, Tensor], exact: bool = False) -> Tensor:
    """Decode a block's means into a buffer that the next block of the same type uses again."""
    exact = exact or any(upload.dtype == torch.float64 for upload, _ in block)
    dtype = torch.float64 if exact else torch.float32
    num_rows = sum(part.stop - part.start for _, part in block)
    if dtype not in buffers or len(buffers[dtype]) < num_rows:
        buffers[dtype] = torch.empty(num_rows, block[0][0].feature_dim, dtype=dtype)
    rows = buffers[dtype][:num_rows]
    return torch.cat([upload.rows(part) for upload, part in block], out=rows)


def classes_of_block(block: Block) -> tuple[Tensor, Tensor]:
    """Classes (int64) and counts (float64) of a block's rows."""
    ids = torch.cat([upload.class_ids[part] for upload, part in block])
    return ids, torch.cat([upload.counts[part] for upload, part in block]).to(torch.float64)


def noise_of_block(block: Block) -> Tensor:
    """Noise variance of a block's rows, float64."""
    return torch.cat(
        [
            torch.zeros(part.stop - part.start, dtype=torch.float64)
            if (noise := upload.noise) is None
            else noise[part].to(torch.float64)
            for upload, part in block
        ]
    )


def class_sums(rows: Tensor, ids: Tensor, counts: Tensor, num_classes: int) -> Tensor:
    """Sum of n_r times the rows of each class: shape (C, d), in the rows' type."""
    by_class = torch.argsort(ids, stable=True)
    sizes = torch.bincount(ids, minlength=num_classes)
    weights = counts[by_class].to(rows.dtype)
    starts = sizes.cumsum(0) - sizes
    return embedding_bag(by_class, rows, starts, mode="sum", per_sample_weights=weights)
