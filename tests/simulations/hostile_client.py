"""A ClientApp that answers at once, and badly where its node-config says so, in the real one's place."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

CLASSES, DIM = 3, 256
LARGE_BYTES = 2 * 10**8


def upload(site):
    """Class means as honest nodes send them."""
    generator = np.random.default_rng(site)
    means = (
        generator.standard_normal((CLASSES, DIM)).astype(np.float32) + np.arange(CLASSES, dtype=np.float32)[:, None]
    )
    return {
        "class-ids": np.arange(CLASSES, dtype=np.uint8),
        "counts": np.full(CLASSES, 10 + site, np.uint8),
        "means": means,
    }


def spoil(arrays, how):
    if how == "nan":
        arrays["means"][0, 0] = np.nan
    elif how == "infinite":
        arrays["means"][1] = np.inf
    elif how == "dimension":
        arrays["means"] = arrays["means"][:, :-1]
    elif how == "class-range":
        arrays["class-ids"][0] = 200
    elif how == "negative":
        arrays["counts"] = -arrays["counts"].astype(np.int16)
    elif how == "absurd":
        arrays["counts"] = np.full(CLASSES, 10**15)
    elif how == "scale":
        arrays["means"] *= 1000
    elif how == "bulk":
        rows = LARGE_BYTES // (4 * DIM)
        arrays["class-ids"] = np.zeros(rows, np.uint8)
        arrays["counts"] = np.ones(rows, np.uint8)
        arrays["means"] = np.ones((rows, DIM), np.float32)
    elif how == "texts":
        arrays["means"] = np.full((CLASSES, DIM), "mean")
    return arrays


def act(config, how):
    """Do what is not an answer."""
    folder = Path(config["data"])
    with (folder / "asked.txt").open("a") as file:
        file.write("statistics\n")
    if how == "slow":
        time.sleep(10**6)
    if how == "dies":
        os.kill(int((folder / "supernode.pid").read_text()), signal.SIGKILL)
        time.sleep(10**6)
    if how == "raises":
        raise RuntimeError("the disk is full")


@app.query("introduction")
def introduce(message, context):
    (Path(context.node_config["data"]) / "introduced.txt").touch()
    record = ConfigRecord({"name": context.node_config["name"]})
    return Message(RecordDict({"node": record}), reply_to=message)


@app.query("statistics")
def statistics(message, context):
    config = context.node_config
    how = str(config.get("misbehave", ""))
    act(config, how)
    (client,) = message.content.config_records["hosted"]["clients"]
    arrays = {name: Array(array) for name, array in spoil(upload(int(config["site"])), how).items()}
    if how == "corrupt":
        arrays["means"] = Array(
            "float32", (CLASSES, DIM), "numpy.ndarray", b"\x93NUMPY and then nothing of the kind"
        )
    ours = str(config["fingerprint"])
    fingerprint = {"backbone": "0" * 64, "transform": f"{ours}-l2"}.get(how, ours)
    node = ConfigRecord({"samples": 30, "withheld": 0, "backbone": fingerprint})
    reply = RecordDict({f"{client}:statistics": ArrayRecord(arrays), f"{client}:node": node})
    return Message(reply, reply_to=message)


@app.evaluate()
def evaluate(message, context):
    replies = RecordDict()
    for client in message.content.config_records["hosted"]["clients"]:
        replies[f"{client}:metrics"] = MetricRecord({"accuracy": 0.5, "num-examples": 10})
    return Message(replies, reply_to=message)
