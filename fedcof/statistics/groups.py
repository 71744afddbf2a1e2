r"""How many means of a class a client sends, so that the server has rows enough to see how they scatter.

A covariance of dimension d needs rows; K_c of them, one for each client that holds class c, may be two, or one. A
client that divides its samples of a class into g random groups sends g rows in place of one, each a mean with the
class's covariance over its own count, so the estimator takes them as it takes other clients' rows. The server would
have about K = clients * (classes a client holds) / C rows a class; a client that takes itself for typical knows K
without asking, and so

.. math:: g = \lceil 64 / K \rceil

gives about 64 rows a class, whoever holds what. Measured on CIFAR-100 and digits, half as many cost a point at two
clients, and twice as many add half a point or less.
"""

from __future__ import annotations

import math

from fedcof.errors import UserError

AUTOMATIC = 0
ROWS_PER_CLASS = 64


def automatic_groups(num_clients: int, num_classes: int, classes_held: int) -> int:
    """Choose how many groups a client divides its samples of each class into.

    Parameters
    ----------
    num_clients : int
        Clients in the federation.
    num_classes : int
        Number of classes C of the whole federation.
    classes_held : int
        Classes of which this client has a sample.

    Returns
    -------
    int
        At least 1; a class with fewer samples is divided into as many as it has.

    Raises
    ------
    UserError
        If there is no client or no class.
    """
    if num_clients < 1 or num_classes < 1:
        raise UserError(
            f"Groups cannot be chosen for {num_clients} clients and {num_classes} classes: give at least one of "
            "each."
        )
    rows_per_class = num_clients * classes_held / num_classes
    return math.ceil(ROWS_PER_CLASS / max(rows_per_class, 1.0))
