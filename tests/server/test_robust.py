"""Wrong uploads and a federation: left out by name, with a reason, in a run and when it is solved again."""

import pyarrow as pa
import pyarrow.parquet as pq
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
from server.run import execute
from tests.attacks import CLASSES, attacked, digits_of_clients, flipped_labels
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_nodes_with_features import (
    PLAIN,
    accuracy_of,
    classifier_of,
    config_of,
    features_of,
    federation_of,
    sites,
)

__all__ = ["sites"]

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


def test_nodes_are_left_out_by_name_in_a_run_and_when_kept_uploads_are_solved_again(sites, tmp_path):
    features, labels = features_of(1)
    wrong = {"features": pa.array(list(features)), "label": [f"class {(label + 1) % 3}" for label in labels]}
    pq.write_table(pa.table(wrong), sites / "site-1.parquet")
    config = config_of(sites, test_data=str(sites / "site-4"), influence=True, **PLAIN)
    believed = execute(federation_of(sites, config), config, tmp_path, "run")
    assert believed.clients == 4
    assert sorted(found.client for found in believed.influence) == [f"site-{number}" for number in range(4)]
    assert believed.influence[0].client == "site-1"
    assert believed.influence[0].gain > 0
    again = solve_again(tmp_path / "run", {"robust": "screen"}, "again")
    assert (again.clients, again.clients_rejected, list(again.rejected)) == (3, 1, ["site-1"])
    assert [found.client for found in again.influence if found.client == "site-1"] == []
    screening = config.replaced(robust="screen")
    screened = execute(federation_of(sites, screening), screening, tmp_path, "other")
    for result in (again, screened):
        outcomes = {node.name: node.outcome for node in result.nodes}
        (reason,) = result.rejected.values()
        assert outcomes["site-1"] == f"left out: {reason}"
        assert reason.startswith("its class means are ")
        assert result.accuracy == accuracy_of(classifier_of([0, 2, 3]), 4)
        assert result.accuracy > believed.accuracy
