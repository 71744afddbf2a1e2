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
from server.keeping import Keeper
from server.one_shot import OneShotStrategy


def strategy_of(
    config: RunConfig,
    on_reply: Callable[[int], object] = lambda client: None,
    then: Continuation | None = None,
    backbone: nn.Module | None = None,
    rules: NodeRules | None = None,
    keeper: Keeper | None = None,
    make: Callable[..., OneShotStrategy] = OneShotStrategy,
) -> OneShotStrategy:
    """Make the strategy that a run-config names.

    Parameters
    ----------
    config : RunConfig
        The run.
    on_reply : callable
        Called with the client after every reply.
    then : Continuation, optional
        What goes on after it.
    backbone : Module, optional
        What is then trained with the head, or the adapters of it that the run-config names.
    rules : NodeRules, optional
        For nodes with data of their own.
    keeper : Keeper, optional
        Keeps the uploads of a simulation.
    make : callable
        What is made; it takes what the class does.

    Returns
    -------
    OneShotStrategy
        Ready to start.
    """
    problem, method = problem_of(config), config.method.chosen
    assert isinstance(method, FederatedMethod)
    return make(
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
        adapters=config.training.adapters(config.data.seed),
        privacy=method.promise(config.privacy),
        subtract_noise=config.privacy.subtract_noise,
        projection=projection_of(config),
        prior=prior_of(config),
        rules=rules,
        keeper=keeper,
    )
