"""The Flower ClientApp: what a client answers, from its own samples."""

from __future__ import annotations

import random

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.hosting import answer, introduce
from fedcof import LinearClassifier, UserError, class_means, feature_moments
from fedcof.configuration import RunConfig
from fedcof.encoding import encode_class_means, encode_feature_moments
from fedcof.protocol import ARRAYS, CONFIG, INTRODUCTION, METRICS, NUM_EXAMPLES, STATISTICS
from fedcof.virtual_clients import client_samples

app = ClientApp()
app.query(INTRODUCTION)(introduce)


@app.query(STATISTICS)
def send_statistics(message: Message, context: Context) -> Message:
    """Send the class means of this node's client, or of each client it hosts."""
    return answer(statistics_of_client, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the classifier on the samples of this node's client, or of each client it hosts."""
    return answer(evaluation_of_client, message, context)


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
        One ArrayRecord ``statistics`` with the arrays that :mod:`fedcof.encoding` makes of the method's statistics.

    Raises
    ------
    UserError
        If the client is one of those that the run-config has drop out.
    """
    config = _run_config(content, context)
    seed = _client_seed(config.seed, client)
    if config.dropout and random.Random(seed).random() < config.dropout:
        raise UserError(f"it dropped out, as every client does with probability {config.dropout:g}")
    features, labels = client_samples(config, client)
    if config.method == "fed3r":
        arrays = encode_feature_moments(feature_moments(features, labels))
    else:
        upload = class_means(features, labels, config.groups, torch.Generator().manual_seed(seed))
        arrays = encode_class_means(upload, config.encoding, seed)
    return RecordDict({STATISTICS: ArrayRecord({name: Array(array) for name, array in arrays.items()})})


def evaluation_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Evaluate a classifier on one client's own samples.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request, with the classifier's arrays ``weight`` (C, d), ``bias`` (C,) and ``present`` (C,).
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        One MetricRecord ``metrics`` with ``accuracy`` (0 to 1) and ``num-examples``.
    """
    features, labels = client_samples(_run_config(content, context), client)
    record = content.array_records[ARRAYS]
    weight, bias, present = (torch.from_numpy(record[name].numpy()) for name in ("weight", "bias", "present"))
    right = int((LinearClassifier(weight, bias, present).predict(features) == labels).sum())
    accuracy = right / max(len(labels), 1)
    return RecordDict({METRICS: MetricRecord({"accuracy": accuracy, NUM_EXAMPLES: len(labels)})})


def _run_config(content: RecordDict, context: Context) -> RunConfig:
    """Take the keys that are ours: a strategy may put keys of its own beside them."""
    values = {**context.run_config, **content.config_records.get(CONFIG, {})}
    known = RunConfig.defaults()
    return RunConfig.from_mapping({key: value for key, value in values.items() if key in known})


def _client_seed(seed: int, client: int) -> int:
    """Make a seed of 32 bits that no two clients of a run share."""
    return (seed * 1_000_003 + client) % 2**32
