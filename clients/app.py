"""The Flower ClientApp: what a client answers, from its own samples."""

from __future__ import annotations

import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.hosting import answer, introduce
from fedcof import class_means
from fedcof.configuration import RunConfig
from fedcof.encoding import encode_class_means
from fedcof.protocol import CONFIG, INTRODUCTION, STATISTICS
from fedcof.virtual_clients import client_samples

app = ClientApp()
app.query(INTRODUCTION)(introduce)


@app.query(STATISTICS)
def send_statistics(message: Message, context: Context) -> Message:
    """Send the class means of this node's client, or of each client it hosts."""
    return answer(statistics_of_client, message, context)


def statistics_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Compute what one client uploads.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request; its ``config`` record overrides the node's run-config.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        One ArrayRecord ``statistics`` with ``class-ids`` (R,), ``counts`` (R,) and ``means`` (R, d).
    """
    config = _run_config(content, context)
    features, labels = client_samples(config, client)
    upload = class_means(features, labels, config.groups, _generator(config.seed, client))
    arrays = encode_class_means(upload, config.encoding)
    return RecordDict({STATISTICS: ArrayRecord({name: Array(array) for name, array in arrays.items()})})


def _run_config(content: RecordDict, context: Context) -> RunConfig:
    """Take the keys that are ours: a strategy may put keys of its own beside them."""
    values = {**context.run_config, **content.config_records.get(CONFIG, {})}
    known = RunConfig.defaults()
    return RunConfig.from_mapping({key: value for key, value in values.items() if key in known})


def _generator(seed: int, client: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + client)
