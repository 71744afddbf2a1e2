"""The one-shot strategy that a run-config names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fedcof.data.class_names import prior_of
from fedcof.data.clip_features import projection_of
from fedcof.data.problem import problem_of
from fedcof.methods.method import FederatedMethod
from fedcof.run.config import RunConfig
from server.continuation import Continuation
from server.intake import NodeRules
from server.one_shot import OneShotStrategy


def strategy_of(
    config: RunConfig,
    on_reply: Callable[[], None] = lambda: None,
    then: Continuation | None = None,
    backbone: nn.Module | None = None,
    rules: NodeRules | None = None,
    kind: Callable[..., OneShotStrategy] = OneShotStrategy,
) -> OneShotStrategy:
    """Make the strategy that a run-config names.

    Parameters
    ----------
    config : RunConfig
        The run.
    on_reply : callable
        Called after every client's reply.
    then : Continuation, optional
        What goes on after it.
    backbone : Module, optional
        What is then trained with the head.
    rules : NodeRules, optional
        For nodes with data of their own.
    kind : callable
        Makes the strategy of a one-shot strategy's arguments.

    Returns
    -------
    OneShotStrategy
        Ready to start.
    """
    problem, method = problem_of(config), config.method.chosen
    assert isinstance(method, FederatedMethod)
    return kind(
        config.method.for_linear() if then else config.method,
        problem.num_classes,
        problem.feature_dim,
        quorum=config.participation.quorum,
        fraction=config.participation.fraction,
        seed=config.data.seed,
        broadcast=config.participation.broadcast,
        on_reply=on_reply,
        then=then,
        init_rounds=config.participation.rounds_to_ask,
        backbone=backbone,
        privacy=method.promise(config.privacy),
        subtract_noise=config.privacy.subtract_noise,
        projection=projection_of(config),
        prior=prior_of(config),
        rules=rules,
    )
