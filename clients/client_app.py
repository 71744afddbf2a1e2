"""The Flower ClientApp: what answers a message is imported when the first one of its kind comes.

Flower loads the ClientApp before it starts Ray, and torch takes seconds to import: Ray starts meanwhile.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.hosting import introduce
from fedcof.run.protocol import INTRODUCTION, STATISTICS

app = ClientApp()
app.query(INTRODUCTION)(introduce)


@app.query(STATISTICS)
@app.train()
@app.evaluate()
def answer(message: Message, context: Context) -> Message:
    """Have a message answered by :mod:`clients.app`."""
    from clients import app as answers

    return answers.app(message, context)
