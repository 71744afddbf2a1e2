"""A Flower Grid without Flower's network: it runs a ClientApp in this process and answers in an odd order."""

import random
from collections import Counter

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedcof.run.protocol import NUM_PARTITIONS, PARTITION_ID


class InMemoryGrid(Grid):
    """As many nodes as ``partitions``, with ids that say nothing of their partition.

    ``dead`` partitions never answer; ``failing`` ones answer with Flower's error; nodes register one at a time.
    """

    def __init__(self, client_app, num_nodes, run_config=None, seed=0, dead=(), failing=(), node_config=None):
        self.random = random.Random(seed)
        ids = self.random.sample(range(10**6, 10**7), num_nodes)
        self.partition_of_node = dict(zip(ids, range(num_nodes), strict=True))
        self.client_app, self.dead, self.failing = client_app, dead, failing
        self.run_config = run_config or {}
        self.node_config = node_config or (lambda partition: {PARTITION_ID: partition, NUM_PARTITIONS: num_nodes})
        self.registered = 0
        self.unanswered = {}
        self.most_unanswered = 0
        self.messages_by_type = Counter()

    def set_run(self, run): ...

    @property
    def run(self):
        return None

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        self.registered = min(3 * self.registered + 1, len(self.partition_of_node))
        return set(list(self.partition_of_node)[: self.registered])

    def push_messages(self, messages):
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{sum(self.messages_by_type.values())}"
            self.messages_by_type[message.metadata.message_type] += 1
            self.unanswered[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        self.most_unanswered = max(self.most_unanswered, len(self.unanswered))
        return ids

    def pull_messages(self, message_ids):
        ready = [i for i in message_ids if i in self.unanswered and self._partition(i) not in self.dead]
        chosen = self.random.sample(ready, min(len(ready), 1 + self.random.randrange(3)))
        return [self._answer(self.unanswered.pop(i), i) for i in chosen]

    def send_and_receive(self, messages, *, timeout=None):
        ids = self.push_messages(messages)
        replies = []
        while len(replies) < len([i for i in ids if i in self.unanswered]) + len(replies):
            replies += self.pull_messages(ids)
        return replies

    def _partition(self, message_id):
        return self.partition_of_node[self.unanswered[message_id].metadata.dst_node_id]

    def _answer(self, message, message_id):
        partition = self.partition_of_node[message.metadata.dst_node_id]
        if partition in self.failing and "introduction" not in message.metadata.message_type:
            return Message(Error(2, "Traceback ...\nRuntimeError: the disk is full"), reply_to=message)
        context = Context(
            run_id=1,
            node_id=message.metadata.dst_node_id,
            node_config=self.node_config(partition),
            state=RecordDict(),
            run_config=self.run_config,
        )
        return self.client_app(message, context)
