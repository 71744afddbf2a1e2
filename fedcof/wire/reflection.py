"""The reflection that turns a class's rows into its mean and pure within-class noise, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect(rows: Tensor, class_ids: Tensor, counts: Tensor) -> Tensor:
    """Reflect each run of rows of one class, in place, between sqrt(n_r / N_c) and the first unit vector.

    Householder's reflection is its own inverse, so it serves both ends.
    """
    classes, run_of_row, sizes = torch.unique_consecutive(class_ids, return_inverse=True, return_counts=True)
    if len(classes) == len(rows):
        return rows
    counts = counts.to(torch.float64)
    totals = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, run_of_row, counts)
    direction = (counts / totals[run_of_row]).sqrt()
    firsts = sizes.cumsum(0) - sizes
    first = direction[firsts]
    # w - 1 for the first, written so that no digits cancel: the others' squares add up to 1 - w^2.
    others = (totals - counts[firsts]) / totals
    direction[firsts] = -others / (1 + first)
    squares = others + direction[firsts].square()
    scale = torch.where(squares > 0, 2 / squares.clamp(min=1e-300), 0.0)[run_of_row]
    column, scaled = direction.to(rows.dtype)[:, None], (scale * direction).to(rows.dtype)[:, None]
    along = torch.zeros(len(classes), rows.shape[1], dtype=rows.dtype).index_add_(0, run_of_row, rows * column)
    return rows.sub_(scaled * along[run_of_row])
