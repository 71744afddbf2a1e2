"""Messages out, replies in: a few in flight, delivered in the order of the messages, or as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate, compress
from operator import and_, not_

from flwr.app import Message
from flwr.serverapp import Grid

LONGEST_PAUSE = 0.5


def exchange(
    grid: Grid, messages: Iterable[Message], timeout: float, window: int = 64, ordered: bool = True
) -> Iterator[tuple[Message, Message | None]]:
    """Send messages and yield each with its reply.

    In the order of the messages every sum over replies is the same whichever node answers first; but one silent
    node then holds back what the others have sent, which a crash would lose. At most ``window`` messages are
    unanswered or waiting for their turn, so memory holds that many replies and not all of them.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    messages : iterable of Message
        What to send; taken as room becomes free.
    timeout : float
        Seconds that a reply may take from when its message was sent, or from when the last reply of another came:
        while some answer, the others may only be waiting for the machine that they share.
    window : int
        Messages under way at once.
    ordered : bool
        Whether replies keep the order of the messages.

    Yields
    ------
    tuple of (Message, Message or None)
        A message and its reply; None if there was none in time.
    """
    waiting: deque[tuple[Message, str, float]] = deque()
    last_arrival = 0.0
    replies: dict[str, Message] = {}
    source = iter(messages)
    pause = 0.01
    exhausted = False
    while waiting or not exhausted:
        while not exhausted and len(waiting) < window:
            message = next(source, None)
            if message is None:
                exhausted = True
            else:
                (message_id,) = grid.push_messages([message])
                waiting.append((message, message_id, time.monotonic()))
        unanswered = [message_id for _, message_id, _ in waiting if message_id not in replies]
        arrived = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(unanswered)}
        replies.update(arrived)
        last_arrival = time.monotonic() if arrived else last_arrival
        over = [
            message_id in replies or time.monotonic() > max(sent, last_arrival) + timeout
            for _, message_id, sent in waiting
        ]
        if ordered:
            over = list(accumulate(over, and_))
        done = list(compress(waiting, over))
        waiting = deque(compress(waiting, map(not_, over)))
        for message, message_id, _ in done:
            yield message, replies.pop(message_id, None)
        pause = 0.01 if arrived else min(2 * pause, LONGEST_PAUSE)
        if waiting and not arrived:
            time.sleep(pause)
