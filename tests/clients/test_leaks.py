"""What a server can make of all that a node answers: no sample of 471 is a combination of what it is sent."""

from itertools import product

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, RecordDict
from PIL import Image
from sklearn.datasets import load_digits

from clients.app import evaluation_of_client, statistics_of_client
from clients.refusal import Refusal
from clients.samples import held_here
from fedcof.run.config import RunConfig
from fedcof.wire.registry import CODECS
from server.records import sent_in

SAMPLES = 471
SEEDS = 2
CONFIG = RunConfig(
    dataset="nodes",
    classes=",".join("0123456789"),
    backbone="test_efficientnet",
    weights="none",
    image_size=32,
)
UNLIMITED = {"answers-per-day": 0, "answers-in-total": 0}
# An exact combination misses by rounding alone; a guess at a mean's sample by a tenth and more.
RECOVERED = 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first 471 of scikit-learn's digits, a folder for each class."""
    folder, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for number in range(SAMPLES):
        place = folder / str(digits.target[number])
        place.mkdir(exist_ok=True)
        Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).save(place / f"{number:04d}.png")
    return folder


@pytest.fixture
def node(data, tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path_factory.getbasetemp() / "features-of-digits"))

    def context(state="state", **policy):
        settings = {"name": "clinic", "data": str(data), "state": str(tmp_path / state)}
        settings |= {key.replace("_", "-"): value for key, value in policy.items()}
        run_config = CONFIG.to_mapping()
        return Context(run_id=1, node_id=1, node_config=settings, state=RecordDict(), run_config=run_config)

    return context


def questions():
    """Ask for all that changes what is summed up: groups, shares held out, seeds, sizes of the federation."""
    for groups, share, seed in product([1, 2, 3, 5, 8, 50, 10**6], [0.0, 0.03, 0.1, 0.3], range(SEEDS)):
        yield {"groups": groups, "client-test-share": share, "seed": seed}
    yield from ({"groups": 0, "num-clients": clients} for clients in range(2, 30, 3))


def answers_to(asked, context):
    """Sums over samples, by class, of all answers until the node refuses; and how many it gave."""
    sums, given = {}, 0
    for values in asked:
        content = RecordDict({"config": ConfigRecord(values)})
        try:
            reply = statistics_of_client(0, content, context)
        except Refusal:
            break
        given += 1
        sent = sent_in(reply)
        means = CODECS.get(sent.tag).decode(sent.arrays)
        for label, count, mean in zip(means.class_ids.tolist(), means.counts, means.means, strict=True):
            sums.setdefault(label, []).append(count * mean.double())
    return sums, given


def recovered(sums, held):
    """Count samples that are a combination of the sums of their class."""
    found = 0
    for label, vectors in sums.items():
        basis = torch.linalg.qr(torch.unique(torch.stack(vectors), dim=0).T).Q
        samples = held.features[held.labels == label].double()
        missed = samples - samples @ basis @ basis.T
        found += int((missed.norm(dim=1) < RECOVERED * samples.norm(dim=1)).sum())
    return found


@pytest.mark.parametrize(("limits", "most"), [({"answers-in-total": 10}, 10), ({}, 20), (UNLIMITED, 200)])
def test_no_sample_is_recovered_from_a_node_with_the_default_policy(node, limits, most):
    held = held_here(CONFIG, 0, node("seen", **{"smallest_count": 1}))
    assert len(held.labels) == SAMPLES
    sums, given = answers_to(questions(), node(**limits))
    # To ask again with another seed is to ask the same.
    assert 10 <= given <= SEEDS * most
    assert sum(map(len, sums.values())) > 100
    assert recovered(sums, held) == 0


def test_without_a_least_size_samples_are_recovered(node):
    """So that the test above could fail."""
    held = held_here(CONFIG, 0, node("seen", **{"smallest_count": 1}))
    sums, _ = answers_to(questions(), node(**UNLIMITED, **{"smallest-count": 1, "largest-groups": 10**6}))
    assert recovered(sums, held) > SAMPLES / 2


def test_a_head_of_the_servers_making_is_not_evaluated(node):
    arrays = RecordDict({"config": ConfigRecord({})})
    with pytest.raises(Refusal, match="does not allow evaluation"):
        evaluation_of_client(0, arrays, node())
