"""What a node does when something goes wrong: too much asked for, a full disk, errors that nobody foresaw."""

import errno
import json
import os
import resource
import signal
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients import hosting, limits
from clients.answers import Answer, Answers, Question
from clients.hosting import answer, introduce
from clients.limits import memory_taken
from clients.node_state import NodeState
from clients.policy import NodePolicy
from clients.refusal import Refusal
from fedcof.errors import UserError
from fedcof.run.config import RunConfig

SECRET = "/srv/images/Erika Mustermann.png"
CONFIG = RunConfig(dataset="nodes", classes="a,b")


@pytest.fixture(autouse=True)
def task_identity(monkeypatch):
    """What stamps a reply in a process that Flower has started."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def context(tmp_path):
    def of(**policy):
        settings = {"name": "clinic", "data": str(tmp_path / "data"), "state": str(tmp_path / "state")}
        settings |= {key.replace("_", "-"): value for key, value in policy.items()}
        return Context(run_id=1, node_id=1, node_config=settings, state=RecordDict(), run_config={})

    return of


def said(handler, context, hosted):
    """What a server hears, both where it asks for a client by number and where it asks the node."""
    content = RecordDict({"hosted": ConfigRecord({"clients": [0]})}) if hosted else RecordDict()
    reply = answer(handler, Message(content, 1, "query.statistics"), context)
    return reply.content["0:error"]["reason"] if hosted else reply.error.reason


@pytest.mark.parametrize("hosted", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"cannot read {SECRET}"),
        OSError(errno.ENOSPC, "No space left on device", SECRET),
        UserError(f"The image {SECRET} cannot be read."),
        KeyError(SECRET),
        type(f"Error{'x' * 10**4}", (Exception,), {})(SECRET),
    ],
    ids=lambda error: type(error).__name__[:20],
)
def test_a_server_hears_no_path_and_no_content_of_an_error_that_nobody_foresaw(context, hosted, error, caplog):
    def fails(client, content, context):
        raise error

    heard = said(fails, context(), hosted)
    assert "Mustermann" not in heard
    assert "/" not in heard
    assert "its own log says why" in heard
    assert "Mustermann" in caplog.text


def test_an_introduction_that_fails_tells_no_path(context, monkeypatch, caplog):
    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device", SECRET)

    monkeypatch.setattr(hosting, "own_data_state", fails)
    reply = introduce(Message(RecordDict(), 1, "query.introduction"), context())
    assert reply.has_error()
    assert "/" not in reply.error.reason
    assert "OSError" in reply.error.reason
    assert "Mustermann" in caplog.text


@pytest.mark.parametrize("hosted", [True, False])
def test_an_answer_that_takes_too_long_is_given_up(context, hosted):
    def works_for_ever(client, content, context):
        while True:
            time.sleep(0.01)

    heard = said(works_for_ever, context(longest_answer=0.001), hosted)
    assert heard == "the policy of clinic does not allow so long an answer, at most 0.001 minutes"


def test_an_answer_that_takes_too_much_memory_is_given_up(context, monkeypatch):
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.01)
    held = []

    def fills_memory(client, content, context):
        while len(held) < 200:
            held.append(np.ones(10**6))
            time.sleep(0.005)
        return RecordDict()

    most = round(memory_taken() / limits.GIGABYTE + 0.2, 3)
    heard = said(fills_memory, context(largest_memory=most), True)
    assert heard == f"the policy of clinic does not allow an answer of so much memory, at most {most:g} GB"
    assert len(held) < 150


def test_what_keeps_to_the_limits_is_answered_and_leaves_no_alarm(context):
    before = signal.getsignal(signal.SIGALRM)

    def works(client, content, context):
        assert signal.getitimer(signal.ITIMER_REAL)[1] == limits.LOOK_SECONDS
        time.sleep(3 * limits.LOOK_SECONDS)
        return RecordDict({"arrays": ConfigRecord({"x": 1})})

    message = Message(RecordDict(), 1, "query.statistics")
    assert "arrays" in answer(works, message, context()).content
    assert "arrays" in answer(works, message, context(longest_answer=0, largest_memory=0)).content
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[1] == 0


def count_on_a_full_disk(policy, most_bytes):
    """Answer in a process of which no file may be longer; gives its exit status, 3 for a refusal."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            Answers(policy).count(CONFIG)
            status = 0
        except Refusal:
            status = 3
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_on_a_full_disk_the_record_of_answers_stays_and_later_answers_work(tmp_path):
    policy = NodePolicy("clinic", state=NodeState(tmp_path / "state"))
    record = tmp_path / "state" / "answers.json"
    Answers(policy).count(CONFIG)
    before = record.read_bytes()
    assert count_on_a_full_disk(policy, len(before) + 10) == 3
    assert record.read_bytes() == before
    assert count_on_a_full_disk(policy, 10**6) == 0
    assert len(json.loads(record.read_text())) == 2
    assert [path.name for path in record.parent.iterdir() if path.name.startswith(".")] == []


def test_an_answer_that_could_not_be_noted_is_not_given_uncounted_later(tmp_path, monkeypatch):
    policy, made = NodePolicy("clinic", state=NodeState(tmp_path / "state")), []
    asked = Question.of(CONFIG, policy), "d" * 64, CONFIG

    def make():
        made.append(len(made))
        return Answer({"means": np.full(2, len(made))}, "tag", 5, 0, "f")

    write = NodeState.write

    def full(self, name, content):
        if name == "answers.json":
            raise Refusal("it cannot write down what it answers, and so answers nothing")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(NodeState, "write", full)
        with pytest.raises(Refusal, match="cannot write down"):
            Answers(policy).first(*asked, make)
    given = [Answers(policy).first(*asked, make).arrays["means"].tolist() for _ in range(2)]
    assert given == [[2, 2], [2, 2]]
    assert len(json.loads((tmp_path / "state" / "answers.json").read_text())) == 1
