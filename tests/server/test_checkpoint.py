"""Checkpoints: everything comes back, damaged ones and those of other runs are refused, and nothing is changed."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import save_file

from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.training import STRATEGIES
from server.checkpoint import (
    Checkpoint,
    load_checkpoint,
    restore_strategy,
    save_checkpoint,
    strategy_state,
)
from server.reporting import CHECKPOINT_FILE_NAME
from server.training_strategy import training_strategy
from tests.server.test_continuation import start


def config(strategy="fedavg", **values):
    own = {"fedprox": {"proximal_mu": 0.1}, "q-fedavg": {"learning_rate": 0.1}}.get(strategy, {})
    return RunConfig(num_clients=10, continue_="linear-probe", continue_strategy=strategy, **{**own, **values})


def checkpoint_of(run, state=None):
    network = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "head.bias": np.zeros(2, np.float32)}
    state = state or strategy_state(training_strategy(run))
    return Checkpoint(run.to_mapping(), 3, network, [True, False], state, {"rounds": [{"accuracy": 0.1}]})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_restored_to_the_last_bit(name, tmp_path):
    run = config(name)
    strategy = training_strategy(run)
    start(strategy, rounds=3)
    save_checkpoint(tmp_path, checkpoint_of(run, strategy_state(strategy)))
    restored = training_strategy(run)
    restore_strategy(restored, load_checkpoint(tmp_path, run).strategy)
    before, after = strategy_state(strategy), strategy_state(restored)
    assert before.scalars == after.scalars
    assert before.arrays.keys() == after.arrays.keys()
    for attribute, (kind, arrays) in before.arrays.items():
        assert after.arrays[attribute][0] == kind
        assert list(after.arrays[attribute][1]) == list(arrays)
        for key, array in arrays.items():
            found = after.arrays[attribute][1][key]
            assert found.dtype == array.dtype
            assert np.array_equal(found, array)
    assert type(getattr(restored, "m_t", None)) is type(getattr(strategy, "m_t", None))
    if name in ("fedadam", "fedyogi"):
        assert {"m_t", "v_t"} <= set(after.arrays)
    if name == "fedavgm":
        assert {"momentum_vector", "current_arrays"} <= set(after.arrays)
        assert isinstance(restored.current_arrays, ArrayRecord)


def test_a_strategy_of_ones_own_is_kept_too():
    class Mine(FedAvg):
        def __init__(self):
            super().__init__()
            self.centre = np.ones(2)
            self.calls = 4
            self.history = [np.zeros(1), np.ones(3)]
            self.record = ArrayRecord({"b": Array(np.zeros(2)), "a": Array(np.ones(2))})
            self.empty = []

    mine, restored = Mine(), Mine()
    mine.centre, mine.calls = mine.centre * 7, 9
    restore_strategy(restored, strategy_state(mine))
    assert restored.centre.tolist() == [7, 7]
    assert restored.calls == 9
    assert [array.tolist() for array in restored.history] == [[0], [1, 1, 1]]
    assert list(restored.record) == ["b", "a"]
    assert restored.train_metrics_aggr_fn is mine.train_metrics_aggr_fn


def test_everything_comes_back(tmp_path):
    run = config(seed=4)
    written = checkpoint_of(run)
    save_checkpoint(tmp_path / "new", written)
    read = load_checkpoint(tmp_path / "new", run)
    assert (read.config, read.rounds_done, read.present, read.course) == (
        json.loads(json.dumps(written.config)),
        3,
        [True, False],
        written.course,
    )
    assert list(read.network) == list(written.network)
    assert all(np.array_equal(read.network[name], written.network[name]) for name in written.network)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CHECKPOINT_FILE_NAME]


def test_where_there_is_none_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path, config()) is None


def test_it_may_be_gone_on_with_on_another_machine(tmp_path):
    run = config()
    save_checkpoint(tmp_path, checkpoint_of(run))
    elsewhere = run.replaced(num_cpus=4, num_gpus=0.5, ray_address="10.0.0.1:6379", clients_per_node=3)
    assert load_checkpoint(tmp_path, elsewhere).rounds_done == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": "resnet18"}, "its backbone is 'tf_efficientnet_lite0', and not 'resnet18'"),
        ({"seed": 9}, "its seed is 0, and not 9"),
        ({"learning_rate": 0.1}, "its learning-rate is 0.0, and not 0.1"),
    ],
)
def test_one_of_another_run_is_refused(tmp_path, change, sentence):
    run = config()
    save_checkpoint(tmp_path, checkpoint_of(run))
    before = (tmp_path / CHECKPOINT_FILE_NAME).read_bytes()
    with pytest.raises(UserError, match=sentence):
        load_checkpoint(tmp_path, run.replaced(**change))
    assert (tmp_path / CHECKPOINT_FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_one_is_refused(tmp_path, length):
    run = config()
    save_checkpoint(tmp_path, checkpoint_of(run))
    path = tmp_path / CHECKPOINT_FILE_NAME
    path.write_bytes(path.read_bytes()[:length])
    before = path.read_bytes()
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path, run)
    assert path.read_bytes() == before


def test_another_file_is_refused(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / CHECKPOINT_FILE_NAME)
    with pytest.raises(UserError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path, config())
