"""Wrong uploads and a federation: left out by name, with a reason, in a run and when it is solved again."""

from dataclasses import asdict

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.clientapp import ClientApp

import fedcof
from clients.hosting import answer, introduce
from fedcof import UserError
from fedcof.methods.section import MethodSection
from fedcof.wire.encoding import encode_class_means
from server.federation import Federation
from server.one_shot import OneShotStrategy
from server.resolving import solve_again
from tests.attacks import CLASSES, attacked, digits_of_clients, flipped_labels
from tests.server.in_memory_grid import InMemoryGrid

DIM, CLIENTS = 64, 10


def app_of(uploads):
    app = ClientApp()
    app.query("introduction")(introduce)

    def statistics(client, content, context):
        arrays = encode_class_means(uploads[client])
        return RecordDict({"statistics": ArrayRecord({key: Array(array) for key, array in arrays.items()})})

    @app.query("statistics")
    def handle(message, context):
        return answer(statistics, message, context)

    return app


def run(uploads, rounds=1, **keys):
    federation = Federation(InMemoryGrid(app_of(uploads), CLIENTS), CLIENTS)
    section = MethodSection(name="fedcof", head="ridge", **keys)
    strategy = OneShotStrategy(section, CLASSES, DIM, quorum=0.5, fraction=1 / rounds, init_rounds=rounds)
    strategy.start(federation, num_rounds=rounds, train_config=ConfigRecord({}))
    return strategy


@pytest.mark.parametrize("rounds", [1, 2])
def test_who_is_screened_is_rejected_and_counts_for_nothing(rounds):
    uploads, _, _ = digits_of_clients(CLIENTS)
    strategy = run(attacked(uploads, flipped_labels, {2, 7}), rounds, robust="screen")
    assert sorted(strategy.rejected) == [2, 7]
    assert strategy.rejected[2].startswith("its class means are ")
    assert strategy.num_accepted == CLIENTS - 2
    expected = fedcof.FedCOF(CLASSES, DIM)
    samples, size = torch.zeros(CLASSES, dtype=torch.int64), 0
    for client, upload in uploads.items():
        if client not in (2, 7):
            expected.add(upload, client)
            samples.index_add_(0, upload.class_ids, upload.counts)
            size += sum(array.nbytes for array in encode_class_means(upload).values())
    assert torch.equal(strategy.solved().weight, expected.solve().weight)
    assert torch.equal(strategy.class_samples, samples)
    assert strategy.expected_uplink_bytes == size


def test_too_few_who_agree_miss_the_quorum():
    uploads, _, _ = digits_of_clients(CLIENTS)
    wrong = attacked(uploads, flipped_labels, {2, 7, 8})
    federation = Federation(InMemoryGrid(app_of(wrong), CLIENTS), CLIENTS)
    strategy = OneShotStrategy(MethodSection(robust="screen"), CLASSES, DIM, quorum=0.8)
    with pytest.raises(UserError, match="Only 7 of 10 clients .*client 2: its class means are"):
        strategy.start(federation, train_config=ConfigRecord({}))


def test_without_a_rule_all_count():
    uploads, _, _ = digits_of_clients(CLIENTS)
    strategy = run(attacked(uploads, flipped_labels, {2, 7}))
    assert strategy.rejected == {}
    assert strategy.num_accepted == CLIENTS


def test_kept_uploads_of_nodes_are_solved_again_without_who_is_wrong(tmp_path, monkeypatch):
    from tests.server import test_nodes
    from tests.simulations import hostile_client

    honest = hostile_client.upload

    def upload(site):
        arrays = honest(site)
        return arrays | ({"means": arrays["means"][::-1].copy()} if site == 1 else {})

    # Of three classes in 256 dimensions 0, 1 and 2 apart.
    monkeypatch.setattr(hostile_client, "upload", upload)
    monkeypatch.setattr("server.resolving.fingerprint_of", lambda config: "")
    monkeypatch.setattr("server.resolving.features_of", lambda config: torch.zeros(0, hostile_client.DIM))
    for module in ("server.resolving", "server.run_strategy", "server.run"):
        monkeypatch.setattr(f"{module}.problem_of", lambda config: Problem)
    test_nodes.run(tmp_path)
    all_of_them = solve_again(tmp_path / "out", {}, "all")
    screened = solve_again(tmp_path / "out", {"robust": "screen", "influence": True}, "screened")
    assert (all_of_them.clients, all_of_them.rejected, all_of_them.influence) == (5, {}, [])
    assert (screened.clients, screened.clients_rejected, list(screened.rejected)) == (4, 1, ["1"])
    outcomes = {node.name: node.outcome for node in screened.nodes}
    assert outcomes["site-1"] == f"left out: {screened.rejected['1']}"
    assert outcomes["site-0"] == "accepted, from an earlier run"
    assert sorted(asdict(one)["client"] for one in screened.influence) == ["site-0", "site-2", "site-3", "site-4"]


class Problem:
    num_classes, feature_dim, class_names, left_out = 3, 256, ("a", "b", "c"), ()
