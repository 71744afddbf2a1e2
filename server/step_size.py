"""The step size of training, which the server tells clients where the uploads say what it is."""

from __future__ import annotations

from logging import getLogger

from flwr.app import ConfigRecord

from fedcof.run.training import TrainingSection

logger = getLogger("flwr")


def with_step_of_head(
    train_config: ConfigRecord | None, squared_length: float, num_classes: int, feature_dim: int
) -> ConfigRecord | None:
    """Put the step size of the head into what clients are told, where it is left to follow from the features.

    Parameters
    ----------
    train_config : ConfigRecord, optional
        What clients are told; without it, or without the key, they go by their own run-config.
    squared_length : float
        Mean squared length of the feature vectors, as the uploads tell it; 0 where there were none, and each client
        then goes by its own features.
    num_classes, feature_dim : int
        Number of classes C and dimension d.

    Returns
    -------
    ConfigRecord or None
        The same, or a copy with the step size.
    """
    name = TrainingSection.key_of("learning_rate").name
    if train_config is None or name not in train_config or not squared_length:
        return train_config
    section = TrainingSection.unchecked(train_config)
    if section.learning_rate:
        return train_config
    step = section.step_of_head(squared_length, num_classes, feature_dim)
    logger.info("Step size of the head: %g, for a mean squared length of %g", step, squared_length)
    return ConfigRecord({**train_config, name: step})
