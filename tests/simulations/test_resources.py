"""What a simulated SuperNode gets: shares of a GPU by its memory, tested with memory that was never measured."""

import pytest
import torch

from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from simulations.gpu_measuring import measured_gpu_memory
from simulations.gpu_memory import GpuMemory, gpu_share
from simulations.resources import client_resources

GIB = 2**30


def config(**values):
    return RunConfig.from_mapping({key.replace("_", "-"): value for key, value in values.items()})


def refuse(*_):
    raise AssertionError("measured where nothing is embedded, or the share was given")


@pytest.mark.parametrize(
    ("needed", "free", "share"), [(1, 80, 1 / 64), (9, 80, 1 / 8), (30, 80, 1 / 2), (80, 80, 1), (100, 80, 1)]
)
def test_a_gpu_is_shared_among_as_many_as_fit(needed, free, share):
    assert gpu_share(GpuMemory(needed * GIB, free * GIB)) == share
    assert share == 1 or needed / share <= free


def test_the_share_is_measured_for_clients_that_embed():
    asked = []

    def measure(*arguments):
        asked.append(arguments)
        return GpuMemory(10 * GIB, 24 * GIB)

    resources = client_resources(config(feature_cache=False, num_cpus=2, batch_size=32), 7, measure)
    assert (resources.num_supernodes, resources.client_num_cpus, resources.client_num_gpus) == (7, 2, 0.5)
    assert asked == [("tf_efficientnet_lite0", 64, "pretrained", 32)]


def test_without_a_gpu_none_is_asked_for():
    assert client_resources(config(feature_cache=False), 3, lambda *_: None).client_num_gpus == 0


@pytest.mark.parametrize(
    "values",
    [{}, {"dataset": "features:x", "feature_cache": False}, {"method": "oracle", "feature_cache": False}],
)
def test_clients_that_read_features_get_no_gpu(values):
    assert client_resources(config(**values), 3, refuse).client_num_gpus == 0


@pytest.mark.parametrize("share", [0, 0.25, 1, 2])
def test_a_share_that_is_given_is_taken(share):
    assert client_resources(config(feature_cache=False, num_gpus=share), 3, refuse).client_num_gpus == share


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"num_gpus": 1.5}, "num-gpus"),
        ({"num_gpus": -0.5}, "num-gpus"),
        ({"num_cpus": 0}, "num-cpus"),
        ({"ray_address": "ray://host:10001"}, "HOST:PORT"),
        ({"ray_address": "host"}, "HOST:PORT"),
    ],
)
def test_impossible_resources_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence):
        config(**values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_is_measured_without_a_gpu():
    assert measured_gpu_memory("tf_efficientnet_lite0", 64, "none", 4) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_real_gpu_is_measured():
    memory = measured_gpu_memory("tf_efficientnet_lite0", 64, "none", 4)
    assert 0 < memory.needed < memory.free
