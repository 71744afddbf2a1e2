"""How many replies a run takes from clients, as far as that is known before it."""

from __future__ import annotations

import math

from fedcof.data.schedule import clients_with_something_new
from fedcof.run.config import RunConfig


def expected_replies(config: RunConfig) -> int:
    """Count the replies of a run in which every client that is asked answers.

    Parameters
    ----------
    config : RunConfig
        The run; if its federation changes over steps, its clients and labels are looked up.

    Returns
    -------
    int
        Replies, at most: a client that is drawn by chance for several rounds is asked once.

    Raises
    ------
    UserError
        If the file of a schedule is no such file, or does not fit the federation.
    """
    training = config.training
    collecting = _uploads(config) if config.method.chosen.asks_clients else 0
    if not training.follows:
        return collecting
    anew = config.data.num_clients if training.solves_anew else 0
    return collecting + training.rounds * config.clients_in_a_round + anew


def _uploads(config: RunConfig) -> int:
    if config.data.in_steps:
        return sum(map(len, clients_with_something_new(config).values()))
    clients, participation = config.data.num_clients, config.participation
    return min(clients, math.ceil(participation.fraction * clients) * participation.init_rounds)
