"""The Flower ClientApp: what answers a message is imported when the first one of its kind comes.

Flower loads the ClientApp before it starts Ray, and torch takes seconds to import: Ray starts meanwhile.
"""

from __future__ import annotations

from importlib import import_module
from threading import Thread

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.hosting import introduce
from fedcof.run.protocol import DATA, INTRODUCTION, STATISTICS

app = ClientApp()


@app.query(INTRODUCTION)
def introduce_and_prepare(message: Message, context: Context) -> Message:
    """Say who this node is, and import what answers come from while the server waits for the others."""
    # A node with data of its own starts a new process for every message.
    if DATA not in context.node_config:
        Thread(target=import_module, args=["clients.app"], daemon=True).start()
    return introduce(message, context)


@app.query(STATISTICS)
@app.train()
@app.evaluate()
def answer(message: Message, context: Context) -> Message:
    """Have a message answered by :mod:`clients.app`."""
    from clients import app as answers

    return answers.app(message, context)
