"""The benchmark of merges: the runs of a simulation in one process, trained once for all rules, and its picture."""

import json
from dataclasses import asdict

import pytest
from PIL import Image

from simulations.benchmarks import in_process
from simulations.benchmarks.merging import measured
from simulations.benchmarks.merging_plot import plot

SETTINGS = ["num-clients=3", "partition=iid", "continue-rounds=2", "learning-rate=0.05"]


@pytest.fixture
def trainings(monkeypatch):
    """Count what clients were made to answer."""
    asked = []
    answered = in_process.InProcessGrid._answer

    def answer(self, message):
        known = len(self._trained)
        reply = answered(self, message)
        if message.metadata.message_type == "train":
            asked.append(len(self._trained) - known or (self._digest(message) == ""))
        return reply

    monkeypatch.setattr(in_process.InProcessGrid, "_answer", answer)
    return asked


def test_what_clients_train_first_is_trained_once_for_all_rules(image_folder, trainings, tmp_path):
    settings = [
        f"dataset=folder:{image_folder}",
        "backbone=test_efficientnet",
        "weights=none",
        "image-size=32",
        *SETTINGS,
    ]
    rows = list(measured("digits", settings, ["fedcof"], ["head"], ["mean", "iso-c", "ties", "core-space"], [0]))
    mean, iso, ties, core = rows
    assert len({row.accuracies[0] for row in (mean, iso, ties)}) == 1
    assert all(len(row.accuracies) == 3 for row in (mean, iso, ties))
    assert mean.bytes_of_round == pytest.approx(ties.bytes_of_round, rel=0.01)
    assert "core-space merges adapters" in core.refused
    # Three first rounds, of which one was computed, and three second rounds; the refused run comes after its first.
    assert trainings.count(1) == 1 + 3
    lines = [json.loads(json.dumps(asdict(row))) for row in rows]
    plot(lines, tmp_path / "merging.png")
    assert Image.open(tmp_path / "merging.png").size[0] > 500
