"""The Flower ClientApp: what answers a message is imported when the first one of its kind comes.

Flower loads the ClientApp before it starts Ray, and torch takes seconds to import: Ray starts meanwhile. A node
with data of its own imports no more than its refusal, or the repetition of an answer, takes.
"""

from __future__ import annotations

from importlib import import_module
from threading import Thread

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.act import Act
from clients.hosting import answer, introduce
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
def send_statistics(message: Message, context: Context) -> Message:
    """Send a client's statistics."""
    return _answer(Act.STATISTICS, message, context)


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """Train on a client's samples."""
    return _answer(Act.TRAINING, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate a classifier on a client's samples."""
    return _answer(Act.EVALUATION, message, context)


def _answer(act: Act, message: Message, context: Context) -> Message:
    """Have a message answered by :mod:`clients.app`, if a node of somebody's own does not settle it at once."""
    if DATA not in context.node_config:
        from clients import app as answers

        return answers.app(message, context)

    def handler(client: int, content: RecordDict, context: Context) -> RecordDict:
        from clients.first_look import first_look

        settled = first_look(act, content, context)
        if settled is not None:
            return settled
        from clients.app import HANDLERS

        return HANDLERS[act](client, content, context)

    return answer(handler, message, context)
