"""Schedules: what a file may say, what is refused in which sentence, and when each sample comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.schedule import NEVER, Schedule, schedule_of
from fedcof.data.schedule_file import Told, read_schedule
from fedcof.run.config import RunConfig

NAMES = ["cat", "dog", "horse", "ship"]


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "schedule.toml"
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def dataset(tmp_path):
    """Features of ten classes on disk."""
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}_features.npy", np.random.default_rng(0).standard_normal((40, 3), np.float32))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(40) % 10)
    return f"features:{tmp_path}"


def test_a_file_says_who_and_what_comes_when(write):
    text = """
    steps = 5
    [[join]]
    step = 2
    clients = [0, "3-5"]
    [[join]]
    step = 3
    clients = [1]
    [[leave]]
    step = 4
    clients = [3]
    [[arrive]]
    step = 2
    classes = ["dog", 3]
    [samples]
    parts = 2
    order = "listed"
    """
    joins = {0: 2, 3: 2, 4: 2, 5: 2, 1: 3}
    assert read_schedule(write(text), 6, NAMES) == Told(5, joins, {3: 4}, {1: 2, 3: 2}, 2, by_seed=False)
    assert read_schedule(write(""), 6, NAMES) == Told()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[joins]]\nstep = 1", "Unknown 'joins' in the schedule .*: did you mean join"),
        (
            "[[join]]\nstep = 1\nclient = [1]",
            r"mean clients\? \[\[join\]\] has step, clients",
        ),
        ("[samples]\npart = 2", r"did you mean parts\? \[samples\] has parts, order"),
        ('[samples]\norder = "random"', "the order of samples is 'random': write one of seed, listed"),
        ("[samples]\nparts = 0", "parts is 0: give a whole number, at least 1"),
        ("samples = 2", r"samples is no table: write \[samples\]"),
        ("steps = true", "steps is True: give a whole number"),
        ("[join]\nstep = 1", r"join is no list of tables: write \[\[join\]\] before each"),
        ("[[join]]\nclients = [1]", "lacks its step or clients"),
        ("[[leave]]\nstep = 2\nclients = 1", "lacks its step or clients: give both, clients as a list"),
        ("[[leave]]\nstep = 0\nclients = [1]", "step is 0: give a whole number, at least 1"),
        ("[[leave]]\nstep = 2\nclients = [6]", 'no client: give numbers from 0 to 5, or "FIRST-LAST"'),
        ('[[leave]]\nstep = 2\nclients = ["4-6"]', "'4-6' names no client"),
        ('[[leave]]\nstep = 2\nclients = ["5-4"]', "'5-4' names no client"),
        ("[[join]]\nstep = 2\nclients = [-1]", "-1 names no client"),
        (
            "[[join]]\nstep = 2\nclients = [1]\n[[join]]\nstep = 3\nclients = [1]",
            "client 1 stands twice",
        ),
        ('[[arrive]]\nstep = 2\nclasses = ["hoarse"]', "'hoarse' is no class: did you mean horse"),
        ("[[arrive]]\nstep = 2\nclasses = [4]", "4 is no class: give names, or numbers from 0 to 3"),
        ('[[arrive]]\nstep = 2\nclasses = ["cat", 0]', "class 0 stands twice"),
        ("steps =", "is not a TOML file .*: mend that line"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(write, text, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        read_schedule(write(text), 6, NAMES)
    assert "schedule.toml" in str(raised.value)


def test_a_file_that_there_is_not_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing.toml cannot be used"):
        read_schedule(str(tmp_path / "missing.toml"), 6, NAMES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[[leave]]\nstep = 2\nclients = [1]\n[[join]]\nstep = 2\nclients = [1]",
            "leaves at step 2, but joins at step 2",
        ),
        ('[[leave]]\nstep = 3\nclients = ["0-3"]', "no client is there at step 3"),
        ('[[join]]\nstep = 2\nclients = ["0-3"]', "no client is there at step 1"),
        ("steps = 2\n[samples]\nparts = 3", "has 2 steps, but something happens at step 3: raise steps"),
        ("[[arrive]]\nstep = 2\nclasses = [0]", "Both class-steps and the schedule"),
    ],
)
def test_what_does_not_go_together_is_refused(write, dataset, text, sentence):
    together = {"class_steps": 2} if "arrive" in text else {}
    config = RunConfig(dataset=dataset, num_clients=4, schedule=write(text), **together)
    with pytest.raises(UserError, match=sentence):
        schedule_of(config)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"epsilon": 1.0, "clip_norm": 1.0, "method": "fedncm"},
            "epsilon is 1.0, but it must be 0",
        ),
        ({"continue_": "linear-probe"}, "continue is linear-probe, but it must be none"),
        ({"fraction": 0.5, "init_rounds": 2}, "fraction is 0.5, but it must be 1"),
        ({"init_rounds": 2}, "init-rounds is 2, but it must be 1"),
        ({"text_prior": "names"}, "text-prior is names, but it must be none"),
        ({"diagnose": True}, "diagnose is True, but it must be false"),
        ({"method": "fed3r"}, "class-steps is 3, but it must be 0 for fed3r"),
        ({"method": "oracle"}, "class-steps is 3, but it must be 0 for oracle"),
        ({"dataset": "nodes", "classes": "a,b"}, "nodes with data of their own come, go"),
    ],
)
def test_keys_that_have_no_meaning_over_steps_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        RunConfig(class_steps=3, **values)


def test_an_order_of_classes_needs_steps():
    with pytest.raises(UserError, match="class-order is listed, but it must be seed"):
        RunConfig(class_order="listed")


@pytest.mark.parametrize("order", ["seed", "listed"])
def test_classes_are_dealt_to_steps_as_evenly_as_can_be(dataset, order):
    arrives = schedule_of(RunConfig(dataset=dataset, class_steps=4, class_order=order)).arrives
    assert sorted(np.bincount(arrives)[1:].tolist()) == [2, 2, 3, 3]
    assert (arrives.tolist() == sorted(arrives.tolist())) == (order == "listed")
    other = schedule_of(RunConfig(dataset=dataset, class_steps=4, class_order=order, seed=1)).arrives
    assert np.array_equal(arrives, other) == (order == "listed")
    with pytest.raises(UserError, match="class-steps is 11, but there are 10 classes"):
        schedule_of(RunConfig(dataset=dataset, class_steps=11))


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(2, 7),
    st.sampled_from([None, 0, 5]),
)
def test_samples_come_once_in_parts_from_when_client_and_class_are_there(labels, parts, joins, leaves, seed):
    arrives = np.array([1, 1, 2, 3])
    labels = np.array(labels, dtype=np.int64)
    schedule = Schedule(6, np.array([joins]), np.array([joins + leaves]), arrives, parts, seed)
    found = schedule.step_of_samples(0, labels)
    for class_id in range(4):
        own, first = found[labels == class_id], max(joins, arrives[class_id])
        sizes = np.bincount(np.where(own == NEVER, 0, own), minlength=12)
        expected = [sum(i * parts // max(len(own), 1) == part for i in range(len(own))) for part in range(parts)]
        for part, size in enumerate(expected):
            if first + part < joins + leaves:
                assert sizes[first + part] == size
        if seed is None:
            came = own[own != NEVER]
            assert (np.diff(came) >= 0).all()
    assert np.array_equal(found, schedule.step_of_samples(0, labels))


def test_who_is_there_is_there():
    schedule = Schedule(3, np.array([1, 2, 1]), np.array([4, 4, 3]), np.ones(2, np.int64))
    assert [schedule.here(step).tolist() for step in (1, 2, 3)] == [[0, 2], [0, 1, 2], [0, 1]]
    assert [schedule.leaving(step).tolist() for step in (1, 2, 3)] == [[], [], [2]]
