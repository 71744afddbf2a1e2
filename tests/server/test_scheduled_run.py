"""Federations that change over steps, with the real ClientApp, beside those that always were so."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from clients.app import app as client_app
from fedcof import ClassMeans, FedCOF, UserError
from fedcof.data.problem import labels_of
from fedcof.data.schedule import clients_with_something_new, new_samples, schedule_of
from fedcof.data.virtual_clients import client_indices
from fedcof.heads.classifiers import load_classifier
from fedcof.run.config import RunConfig
from fedcof.run.replies import expected_replies
from fedcof.run.results import append_result, load_results
from server.callbacks import Callback
from server.evaluation import rightly_classified
from server.federated_run import FederatedRun
from server.federation import Federation
from server.run import execute
from server.scheduled_run import ScheduledRun
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 8, 6, 8
# Every estimator and head whose classifier is solved by another path.
WAYS = [
    {"head": "ridge"},
    {"head": "ridge", "estimator": "pooled"},
    {"head": "quadratic"},
    {"head": "lda", "shrinkage": "ledoit-wolf"},
    {"method": "fedncm"},
]
BY_CLIENT = ["float32", "float16", "int8", "int4", "coded"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of six classes that overlap."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 1.2
    for split, count in (("train", 960), ("test", 300)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM)) * (1 + np.arange(DIM) / 4)
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


@pytest.fixture
def schedule(tmp_path):
    def write(text):
        path = tmp_path / f"schedule-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return str(path)

    return write


def config_of(dataset, **values):
    settings = {"num_clients": CLIENTS, "alpha": 2.0, "upload": "given", "broadcast": False}
    return RunConfig(dataset=dataset, **{**settings, **values})


class WatchedRun(ScheduledRun):
    """One that keeps the classifier of every step."""

    def _after_collecting(self):
        self.heads = [*getattr(self, "heads", []), self.strategy.solved()]
        return super()._after_collecting()


def grid_of(config, nodes=3):
    return InMemoryGrid(client_app, nodes, run_config=config.to_mapping(), seed=nodes)


def run(config, folder):
    watched = WatchedRun(Federation(grid_of(config), CLIENTS), config, folder)
    watched.execute()
    return watched


def solved(config, folder, nodes=3):
    """A run's result and the classifier that it has saved."""
    result = execute(Federation(grid_of(config, nodes), CLIENTS), config, folder, "run")
    return result, load_classifier(folder / result.head)


def class_counts(dataset, clients):
    labels = np.load(f"{dataset.partition(':')[2]}/train_labels.npy")
    held = client_indices(config_of(dataset))
    return torch.tensor(sum(np.bincount(labels[held[client]], minlength=CLASSES) for client in clients))


def are_equal(one, other):
    tensors = one.tensors(), other.tensors()
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]
    )


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_classes_that_arrive_in_steps_come_to_the_joint_classifier(dataset, tmp_path, way):
    joint, together = solved(config_of(dataset, **way), tmp_path / "joint")
    result, last = solved(config_of(dataset, class_steps=3, **way), tmp_path / "steps", nodes=CLIENTS)
    assert are_equal(last, together)
    assert result.accuracy == joint.accuracy == result.steps[-1].accuracy
    assert [step.classes for step in result.steps] == [2, 4, 6]


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_shorter_rows_of_classes_in_steps_are_as_good_as_the_joint_ones(dataset, tmp_path, encoding):
    _, together = solved(config_of(dataset, encoding=encoding), tmp_path / "joint")
    _, last = solved(config_of(dataset, encoding=encoding, class_steps=3), tmp_path / "steps")
    # The dither of an upload is drawn for all of its rows, so those of fewer are rounded otherwise.
    assert are_equal(last, together) == (encoding == "float16")
    config = config_of(dataset)
    right = [int(rightly_classified(head, config).sum()) for head in (last, together)]
    assert abs(right[0] - right[1]) <= 9


@pytest.mark.parametrize("encoding", BY_CLIENT)
def test_who_joins_late_is_as_if_it_had_always_been_there(dataset, schedule, tmp_path, encoding):
    late = schedule('[[join]]\nstep = 2\nclients = [0, "4-5"]\n[[join]]\nstep = 3\nclients = [2]')
    _, together = solved(config_of(dataset, encoding=encoding), tmp_path / "joint")
    result, last = solved(config_of(dataset, encoding=encoding, schedule=late), tmp_path / "late")
    assert are_equal(last, together)
    assert [step.clients for step in result.steps] == [4, 7, 8]
    assert [step.uploads for step in result.steps] == [4, 3, 1]


def test_the_best_upload_of_who_joins_late_is_the_same(dataset, schedule, tmp_path):
    late = schedule("[[join]]\nstep = 2\nclients = [3]")
    _, together = solved(config_of(dataset, upload="best"), tmp_path / "joint")
    _, last = solved(config_of(dataset, upload="best", schedule=late), tmp_path / "late")
    assert are_equal(last, together)


@pytest.mark.parametrize("encoding", BY_CLIENT)
@pytest.mark.parametrize("way", WAYS[:3], ids=str)
def test_who_has_left_was_never_there(dataset, schedule, tmp_path, encoding, way):
    gone = schedule("[[leave]]\nstep = 3\nclients = [1, 6]\n[[join]]\nstep = 2\nclients = [1]")
    never = schedule("[[join]]\nstep = 2\nclients = [1, 6]")
    left = run(config_of(dataset, encoding=encoding, schedule=gone, **way), tmp_path / "gone")
    without = run(config_of(dataset, encoding=encoding, schedule=never, **way), tmp_path / "never")
    assert [(step.clients, step.left) for step in left.steps] == [(7, 0), (8, 0), (6, 2)]
    # After its first step, before these two had joined.
    assert are_equal(left.heads[-1], without.heads[0])
    assert not are_equal(left.heads[-1], left.heads[-2])
    assert torch.equal(left.strategy.class_samples, class_counts(dataset, set(range(CLIENTS)) - {1, 6}))


@pytest.mark.parametrize("order", ["seed", "listed"])
def test_samples_in_parts_are_rows_of_their_own(dataset, schedule, tmp_path, order):
    parts = schedule(f'[samples]\nparts = 3\norder = "{order}"')
    config = config_of(dataset, head="ridge", feature_transform="none", schedule=parts)
    found = run(config, tmp_path)
    features, labels = (np.load(f"{dataset.partition(':')[2]}/train_{kind}.npy") for kind in ("features", "labels"))
    expected, held = FedCOF(CLASSES, DIM), []
    for client, samples in enumerate(client_indices(config)):
        of_steps = [new_samples(config, client, step) for step in (1, 2, 3)]
        assert np.array_equal(np.sort(np.concatenate(of_steps)), samples)
        cells = [(c, step, own[labels[own] == c]) for c in range(CLASSES) for step, own in enumerate(of_steps)]
        sizes = np.array([len(rows) for _, _, rows in cells]).reshape(CLASSES, 3)
        assert (sizes.max(axis=1) - sizes.min(axis=1) <= 1).all()
        rows = [(c, step, len(own), features[own].astype(np.float64).mean(0)) for c, step, own in cells if len(own)]
        means = torch.tensor(np.array([row[3] for row in rows])).float()
        expected.add(ClassMeans([row[0] for row in rows], [row[2] for row in rows], means), client)
        held.append(of_steps[0])
    assert are_equal(found.heads[-1], expected.solve())
    assert all((np.diff(own) > 0).all() for own in held)
    if order == "listed":
        assert max(held[0]) < max(client_indices(config)[0])


def test_only_what_is_new_is_asked_for(dataset, schedule, tmp_path):
    late = schedule(
        "[[join]]\nstep = 2\nclients = [5]\n[[join]]\nstep = 4\nclients = [7]\n[[leave]]\nstep=3\nclients=[0]"
    )
    config = config_of(dataset, schedule=late)
    found = run(config, tmp_path)
    asked = {}
    for occasion, traffic in found.ledger.entries():
        assert occasion.message == "query.statistics"
        asked.setdefault(occasion.round, {})[occasion.client] = traffic.uplink
    assert {step: sorted(clients) for step, clients in asked.items()} == {1: [0, 1, 2, 3, 4, 6], 2: [5], 4: [7]}
    together = FederatedRun(Federation(grid_of(config_of(dataset)), CLIENTS), config_of(dataset), tmp_path)
    together.execute()
    # A client's one upload costs what it costs where all are asked together, whenever it joins.
    alone = {occasion.client: traffic.uplink for occasion, traffic in together.ledger.entries()}
    assert {client: bytes_ for step in asked.values() for client, bytes_ in step.items()} == alone
    assert [step.uplink_bytes for step in found.steps] == [
        sum(sum(asked.get(past, {}).values()) for past in range(1, step + 1)) for step in (1, 2, 3, 4)
    ]


def test_steps_are_kept_with_the_result_and_count_old_and_new_apart(dataset, tmp_path):
    config = config_of(dataset, class_steps=3, class_order="listed")
    result, last = solved(config, tmp_path)
    append_result(tmp_path, result)
    assert load_results(tmp_path)[0].steps == result.steps
    final, labels = result.steps[-1], labels_of(config, "test")
    right = rightly_classified(last, config).numpy()
    assert final.accuracy == pytest.approx(right.mean())
    assert final.old_accuracy == pytest.approx(right[labels < 4].mean())
    assert final.new_accuracy == pytest.approx(right[labels >= 4].mean())
    assert final.average_accuracy == pytest.approx(np.mean([step.accuracy for step in result.steps]))
    assert result.steps[0].old_accuracy is result.steps[0].forgetting is None
    assert all(one.uplink_bytes < other.uplink_bytes for one, other in pairwise(result.steps))


def test_who_drops_out_is_missing_at_each_step_as_in_the_joint_run(dataset, tmp_path):
    missing = {"dropout": 0.4, "quorum": 0.1, "seed": 1}
    _, together = solved(config_of(dataset, **missing), tmp_path / "joint")
    result, last = solved(config_of(dataset, class_steps=2, **missing), tmp_path / "steps")
    assert 0 < result.clients_rejected < CLIENTS
    assert are_equal(last, together)
    with pytest.raises(UserError, match="fewer than the quorum"):
        run(config_of(dataset, class_steps=2, **{**missing, "quorum": 1.0}), tmp_path / "all")


def test_only_who_is_still_there_gets_the_classifier(dataset, schedule, tmp_path):
    gone = schedule("[[leave]]\nstep = 2\nclients = [2]")
    found = run(config_of(dataset, schedule=gone, broadcast=True), tmp_path)
    sent_to = [occasion.client for occasion, _ in found.ledger.entries() if occasion.message == "evaluate"]
    assert sent_to == [0, 1, 3, 4, 5, 6, 7]


def test_steps_without_a_sample_are_refused_in_a_sentence(dataset, schedule, tmp_path):
    empty = schedule("[[arrive]]\nstep = 2\nclasses = [0, 1, 2, 3, 4, 5]")
    with pytest.raises(UserError, match="At step 1 nobody who is there has sent a class mean"):
        run(config_of(dataset, schedule=empty), tmp_path)


def test_the_schedule_is_kept_with_the_result_and_no_other_goes_on_in_its_folder(dataset, schedule, tmp_path):
    text = "[[leave]]\nstep = 2\nclients = [2]\n# \u00e4 comment"
    config = config_of(dataset, schedule=schedule(text))
    run(config, tmp_path / "run")
    assert (tmp_path / "run" / "schedule.toml").read_text(encoding="utf-8") == text
    run(config, tmp_path / "run")
    other = config_of(dataset, schedule=schedule(text + "\n"))
    with pytest.raises(UserError, match=r"is not the one that the run in .* was begun with, .* kept there as"):
        run(other, tmp_path / "run")


@pytest.mark.parametrize(
    "text", ["[[leave]]\nstep = 2\nclients = [2]", '[[join]]\nstep = 3\nclients = ["1-4"]', "[samples]\nparts = 3"]
)
def test_so_many_replies_come_as_were_expected(dataset, schedule, tmp_path, text):
    config, replies = config_of(dataset, schedule=schedule(text)), []

    class Counting(Callback):
        def on_reply(self, client):
            replies.append(client)

    ScheduledRun(Federation(grid_of(config), CLIENTS), config, tmp_path, [Counting()]).execute()
    assert len(replies) == expected_replies(config)


def test_clients_are_asked_when_they_have_something_new(dataset):
    config = config_of(dataset, class_steps=6, alpha=0.05)
    labels, schedule = labels_of(config, "train"), schedule_of(config)
    for step, clients in clients_with_something_new(config).items():
        arrived = set(np.flatnonzero(schedule.arrives == step).tolist())
        held = [set(labels[own].tolist()) for own in client_indices(config)]
        assert clients == [client for client, classes in enumerate(held) if classes & arrived]
