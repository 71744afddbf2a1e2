"""A run that ends as if its process were killed, at one of its replies."""

from server.callbacks import Callback


class BrokenOffError(Exception):
    """Stands for a process that is killed."""


class BreakOff(Callback):
    """Ends a run at the reply of this number; never if it is None."""

    def __init__(self, break_at):
        self.replies, self.break_at = 0, break_at

    def on_reply(self, client):
        self.replies += 1
        if self.replies == self.break_at:
            raise BrokenOffError
