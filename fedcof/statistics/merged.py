"""Several uploads of one client as one: what it would have sent, had it sent all rows together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedcof.statistics.class_means import ClassMeanRows, ClassMeans


def merged(uploads: Sequence[ClassMeanRows]) -> ClassMeanRows:
    """Put a client's uploads together in the order in which one upload has its rows.

    Parameters
    ----------
    uploads : sequence of ClassMeanRows
        At least one, of one dimension, in the order in which they were sent.

    Returns
    -------
    ClassMeanRows
        All rows by class, and within a class in the order in which they were sent. One upload alone is given back
        as it is; of several the means are decoded.
    """
    with_rows = [upload for upload in uploads if upload.num_rows]
    if len(with_rows) <= 1:
        return (with_rows or list(uploads))[0]
    class_ids = torch.cat([upload.class_ids for upload in with_rows])
    by_class = torch.argsort(class_ids, stable=True)
    noises = [upload.noise for upload in with_rows]
    noise = None
    if any(one is not None for one in noises):
        noise = torch.cat(
            [
                torch.zeros(upload.num_rows, dtype=torch.float64) if one is None else one.to(torch.float64)
                for upload, one in zip(with_rows, noises, strict=True)
            ]
        )[by_class]
    return ClassMeans(
        class_ids=class_ids[by_class],
        counts=torch.cat([upload.counts for upload in with_rows])[by_class],
        means=torch.cat([upload.means for upload in with_rows])[by_class],
        noise=noise,
    )
