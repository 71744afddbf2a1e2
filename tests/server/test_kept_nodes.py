"""Uploads of nodes: whoever joins late, leaves or answers anew, the classifier is that of those who are there."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clients.client_app import app as client_app
from fedcof.data.problem import fingerprint_of
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from server.federation import Federation
from server.name_book import NameBook
from server.resolving import solve_again
from server.run import execute
from server.selection import Selection
from server.upload_store import UploadStore
from simulations.forgetting import carried_out, planned
from tests.server.in_memory_grid import InMemoryGrid

NAMES = ["ada", "bob", "cleo", "dora", "emil"]
CLASSES, DIM, ENCODER = 3, 6, "acme-tables 1.4"
CENTRES = np.random.default_rng(99).standard_normal((CLASSES, DIM)) * 2
FORMS = {
    "float32": {"upload": "given", "encoding": "float32", "groups": 4},
    "coded": {"upload": "given", "encoding": "coded", "groups": 4},
    "best": {},
}


def write_site(folder, number, count=90):
    generator = np.random.default_rng(number)
    labels = np.arange(count) % CLASSES
    folder.mkdir(parents=True, exist_ok=True)
    features = CENTRES[labels] + generator.standard_normal((count, DIM))
    np.save(folder / "features.npy", features.astype(np.float32))
    np.save(folder / "labels.npy", [f"class {label}" for label in labels])


@pytest.fixture
def sites(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(NAMES):
        write_site(tmp_path / name, number)
    return tmp_path


def config_of(names, **values):
    return RunConfig(
        dataset="nodes",
        classes="class 0,class 1,class 2",
        encoder=ENCODER,
        feature_dim=DIM,
        num_clients=len(names),
        broadcast=False,
        **values,
    )


def run(sites, names, out, waits=False, **values):
    """Execute a run with the nodes of these names; it waits for all, or as runs do for those that are not kept."""
    config = config_of(names, **values)

    def node_config(number):
        name = names[number]
        own = {"name": name, "data": str(sites / name), "state": str(sites / "state"), "encoder": ENCODER}
        return {**own, "smallest-count": 1}

    grid = InMemoryGrid(client_app, len(names), run_config=config.to_mapping(), node_config=node_config)
    store = UploadStore(sites / out, config, fingerprint_of(config))
    known = [] if waits else [name for name in store.names() if store.read(name)]
    federation = Federation(grid, max(len(names), len(known)), 1.0, known)
    append_result(sites / out, result := execute(federation, config, sites / out, ""))
    return result


def answer_anew(sites):
    """Let nodes forget what they have answered, but not their secrets, by which they group their samples."""
    for file in (sites / "state").rglob("answers.json"):
        file.unlink()


def head(folder):
    return load_file(folder / "head.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert torch.equal(array, other[name]), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("solved", [{"head": "ridge"}, {"head": "ridge", "estimator": "pooled"}, {}])
def test_join_and_leave_give_the_classifier_of_the_federation_that_always_was_so(sites, form, solved):
    values = {**FORMS[form], **solved}
    run(sites, [name for name in NAMES if name != "bob"], "late", **values)
    answer_anew(sites)
    run(sites, NAMES, "all", **values)
    answer_anew(sites)
    # Only bob is asked, and the others have other numbers than when they were.
    run(sites, NAMES, "joined", **values)
    shutil.copytree(sites / "late", sites / "joins")
    joined = run(sites, NAMES, "joins", **values)
    outcomes = {node.name: node.outcome for node in joined.nodes}
    assert [name for name in NAMES if outcomes[name] == "accepted"] == ["bob"]
    assert_same_bits(head(sites / "joins"), head(sites / "all"))
    again = solve_again(sites / "all", {}, "left", Selection(without=("bob",)))
    assert_same_bits(head(sites / "all" / "left"), head(sites / "late"))
    assert [(node.name, node.outcome) for node in again.nodes][-1] == ("bob", "left out: named by --without")


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_node_that_answers_again_with_other_data_is_as_if_it_had_always_had_that(sites, forgotten):
    run(sites, NAMES, "corrected")
    write_site(sites / "cleo", 2, count=60)
    if forgotten:
        UploadStore(sites / "corrected", config_of(NAMES)).remove("cleo")
    # Where it is waited for, it says of itself that its data has changed.
    again = run(sites, NAMES, "corrected", waits=not forgotten)
    outcomes = {node.name: node.outcome for node in again.nodes}
    assert [name for name in NAMES if outcomes[name] == "accepted"] == ["cleo"]
    answer_anew(sites)
    run(sites, NAMES, "always")
    assert_same_bits(head(sites / "corrected"), head(sites / "always"))


def test_a_node_that_is_forgotten_was_never_there(sites):
    run(sites, [name for name in NAMES if name != "bob"], "never")
    answer_anew(sites)
    run(sites, NAMES, "all")
    assert NameBook(sites / "all").belongs("bob", 5)
    plan = planned(sites / "all", "bob")
    assert [path.name for path in plan.uploads] == ["node-bob.safetensors"]
    (remade,) = carried_out(plan)
    assert (remade.equals, remade.clients, remade.was_trained) == (True, 4, False)
    assert_same_bits(head(sites / "all"), head(sites / "never"))
    (result,) = load_results(sites / "all")
    assert [node.name for node in result.nodes] == [name for name in NAMES if name != "bob"]
    assert not [path for path in (sites / "all").rglob("*") if path.is_file() and b"bob" in path.read_bytes()]
    assert NameBook(sites / "all").belongs("bob", 6)
