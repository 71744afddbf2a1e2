"""Metrics that clients send, taken for what they can be: strangers may send anything."""

from __future__ import annotations

import math

from flwr.app import Message, MetricRecord

from fedcof.run.protocol import METRICS, NUM_EXAMPLES
from fedcof.statistics.validation import MOST_SAMPLES

ACCURACY, LOSS = "accuracy", "loss"


def metrics_of(reply: Message, name: str, most_examples: int = MOST_SAMPLES) -> tuple[MetricRecord | None, str]:
    """Read one number and the samples that it is of from a client's reply.

    Parameters
    ----------
    reply : Message
        A reply without an error.
    name : str
        The metric; an accuracy has to be from 0 to 1.
    most_examples : int
        As many samples as the client can have.

    Returns
    -------
    tuple of (MetricRecord or None, str)
        That metric and ``num-examples``, and nothing else that was sent; or None, and a clause that says why.
    """
    record = reply.content.metric_records.get(METRICS, MetricRecord())
    value, examples = record.get(name), record.get(NUM_EXAMPLES)
    if not isinstance(examples, int) or not 0 <= examples <= most_examples:
        return None, f"it says that it has {_short(examples)} samples, where it can have up to {most_examples}"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None, f"its {name} is {_short(value)}, which is no finite number"
    if name == ACCURACY and not 0 <= value <= 1:
        return None, f"its accuracy is {value:g}, which is not from 0 to 1"
    return MetricRecord({name: float(value), NUM_EXAMPLES: examples}), ""


def _short(value: object) -> str:
    return "a list" if isinstance(value, list) else repr(value)
