"""The trackers by name, and those that a run asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry
from server.callbacks import Callback, Tolerated

if TYPE_CHECKING:
    from fedcof.run.config import RunConfig
    from server.trackers.tracker import Tracker

TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    "fedcof.trackers",
    {
        "tensorboard": "server.trackers.tensorboard:TensorBoard",
        "wandb": "server.trackers.weights_and_biases:WeightsAndBiases",
        "mlflow": "server.trackers.mlflow:MLflow",
    },
    "server.trackers.tracker:check_tracker",
)


def check_trackers(config: RunConfig) -> None:
    """Check that there are the trackers that a run asks for, and that each can work on this machine.

    Parameters
    ----------
    config : RunConfig
        The run.

    Raises
    ------
    UserError
        If there is none of a name, or it lacks something.
    """
    for name in config.execution.tracker_names:
        TRACKERS.get(name).check()


def trackers_of(config: RunConfig) -> list[Callback]:
    """Make the trackers that a run asks for.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    list of Callback
        One each, whose errors cost no run.

    Raises
    ------
    UserError
        If there is none of a name.
    """
    return [Tolerated(name, TRACKERS.get(name)()) for name in config.execution.tracker_names]
