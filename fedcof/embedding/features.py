"""Embedding images in batches, on the device and in the precision that suit the machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import getLogger

import datasets
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fedcof.embedding.backbones import Backbone
from fedcof.embedding.device import AUTO, chosen_device, chosen_precision
from fedcof.embedding.images import rgb_images
from fedcof.errors import UserError

# A loading process takes seconds to start, so it has to have thousands of images to load.
FEWEST_IMAGES_FOR_WORKERS = 10_000
MOST_WORKERS = 8

logger = getLogger(__name__)

Progress = Callable[[int], None]


def extract_features(
    backbone: Backbone,
    images: datasets.Dataset,
    batch_size: int = 64,
    device: str = AUTO,
    progress: Progress | None = None,
    precision: str = AUTO,
) -> Tensor:
    """Embed images, in their order.

    An image's features do not depend on the images beside it beyond float rounding. On a CPU in float32
    (tf_efficientnet_lite0 at 96 px) batches of 16 and of 64 gave equal bits; batches of 1, 2, 3, 7 and 130 differed
    from them by at most 3e-6 of the largest feature.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : datasets.Dataset
        A split with an ``image`` column.
    batch_size : int
        Images embedded at once. On a GPU that has not the memory it is halved until it fits.
    device : str
        Name of a torch device, or ``auto`` for a GPU if there is one.
    progress : callable, optional
        Called after every batch with its number of images.
    precision : {"auto", "float32", "bfloat16", "float16"}
        What the backbone computes in; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere.

    Returns
    -------
    Tensor of shape (n, d), float32
        On the CPU.

    Raises
    ------
    UserError
        If an image cannot be read, the device or the precision does not exist, one image alone does not fit the
        GPU, or a feature is not finite.
    """
    target = chosen_device(device)
    features = torch.empty(len(images), backbone.feature_dim)
    for start, batch in embedded_batches(backbone, images, batch_size, target, chosen_precision(precision, target)):
        features[start : start + len(batch)] = batch
        if progress:
            progress(len(batch))
    return features


class _TransformedBatches(Dataset[Tensor | UserError]):
    """Batches of a split as the backbone's input; an item is a batch, so that one slice of the table is decoded."""

    def __init__(
        self, transform: Callable[[Image.Image], Tensor], images: datasets.Dataset, batches: Sequence[range]
    ) -> None:
        self.transform, self.images, self.batches = transform, images, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor | UserError:
        try:
            return torch.stack([self.transform(image) for image in rgb_images(self.images, self.batches[number])])
        except UserError as error:
            # Raised in a loading process it would arrive with a traceback in its sentence.
            return error


class _Embedder:
    """Runs a backbone on a device, in parts as large as the device's memory allows."""

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype, batch_size: int) -> None:
        self.name, self.module = backbone.name, backbone.module
        self.device, self.dtype, self.part_size = device, dtype, batch_size

    def __call__(self, batch: Tensor) -> Tensor:
        """Embed a batch (n, 3, height, width): features (n, d) float32 on the CPU."""
        while True:
            try:
                features = torch.cat([self._embed(part) for part in torch.split(batch, self.part_size)])
                break
            except torch.OutOfMemoryError as error:
                self._halve(error, len(batch))
        if not torch.isfinite(features).all():
            raise UserError(
                f"The backbone {self.name} gives features that are not finite in {self.dtype}: use other weights "
                "or precision float32."
            )
        return features

    def _embed(self, part: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features: Tensor = self.module(part.to(self.device, non_blocking=True))
        return features.to("cpu", torch.float32)

    def _halve(self, error: torch.OutOfMemoryError, batch_size: int) -> None:
        if min(self.part_size, batch_size) <= 1:
            raise UserError(
                f"One image does not fit into the memory of {self.device} with the backbone {self.name}: free some "
                "there, choose a smaller image-size or backbone, or use the CPU."
            ) from error
        self.part_size = min(self.part_size, batch_size) // 2
        logger.warning("%s is out of memory: batches of %d images from here on.", self.device, self.part_size)
        torch.cuda.empty_cache()


def embedded_batches(
    backbone: Backbone,
    images: datasets.Dataset,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    parts: Sequence[range] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Embed batch by batch.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : datasets.Dataset
        A split with an ``image`` column.
    batch_size : int
        Images embedded at once, or fewer where the device's memory is small.
    device : torch.device
        Where to compute.
    dtype : torch.dtype
        In what to compute.
    parts : sequence of range, optional
        Which rows to embed, instead of all; each part's first is its first batch's first.

    Yields
    ------
    tuple of (int, Tensor)
        Number of the batch's first image, and its features (batch, d) float32 on the CPU.

    Raises
    ------
    UserError
        If an image cannot be read, the device has no room for one, or a feature is not finite.
    """
    batches = _batches_of([range(len(images))] if parts is None else parts, batch_size)
    num_workers = _num_workers(device, sum(map(len, batches)))
    loader = DataLoader(
        _TransformedBatches(backbone.transform, images, batches),
        batch_size=None,
        num_workers=num_workers,
        # A forked copy of a process that runs threads, as torch, CUDA and Ray do, can hang.
        multiprocessing_context="spawn" if num_workers else None,
        pin_memory=device.type == "cuda",
    )
    with _on_device(backbone.module, device):
        embed = _Embedder(backbone, device, dtype, batch_size)
        for rows, batch in zip(batches, loader, strict=True):
            if isinstance(batch, UserError):
                raise batch
            with torch.inference_mode():
                features = embed(batch)
            yield rows.start, features


def _batches_of(parts: Sequence[range], batch_size: int) -> list[range]:
    """Cut runs of rows into batches, of which the last of a run may be smaller."""
    return [part[start : start + batch_size] for part in parts for start in range(0, len(part), batch_size)]


@contextmanager
def _on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Bring a module to a device and take it back to the CPU, so that no GPU memory stays occupied."""
    if device.type == "cpu":
        yield
        return
    try:
        module.to(device)
        yield
    finally:
        module.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _num_workers(device: torch.device, num_images: int) -> int:
    """Choose how many processes load images while the device embeds.

    On a CPU they only take the cores from the backbone (measured: loading is 2 % of the time). Where torch has been
    told to keep to one thread, as in a Ray worker, or the process may have no children, there are none.
    """
    if device.type == "cpu" or num_images < FEWEST_IMAGES_FOR_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(MOST_WORKERS, torch.get_num_threads() - 1)
