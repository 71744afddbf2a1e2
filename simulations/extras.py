"""Whether what a run asks for is installed, said before Flower starts."""

from __future__ import annotations

from fedcof.embedding.clip_names import check_open_clip, is_open_clip
from fedcof.embedding.section import BY_NAMES
from fedcof.embedding.sentence_encoder import check_encoder
from fedcof.run.config import RunConfig
from server.energy import check_codecarbon
from server.trackers.registry import check_trackers


def check_extras(config: RunConfig) -> None:
    """Check that the extras that a run needs are installed on this machine, and that there are its trackers.

    Parameters
    ----------
    config : RunConfig
        The run.

    Raises
    ------
    UserError
        If one is not, and how to install it; or if there is no tracker of a name.
    """
    embedding = config.embedding
    if embedding.text_prior == BY_NAMES:
        check_encoder()
    if is_open_clip(embedding.backbone) and not config.data.is_precomputed:
        check_open_clip(embedding.backbone)
    if config.execution.energy:
        check_codecarbon()
    check_trackers(config)
