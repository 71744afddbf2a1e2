"""What version 0.1.0 wrote before uploads had tags: its kept uploads and results are read as they were meant."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from fedcof.statistics.moments import FeatureMoments
from server.one_shot import OneShotStrategy
from server.run_strategy import strategy_of
from server.upload_store import UploadStore, kept_configs

EARLIER = Path(__file__).with_name("earlier")
NODES = {"dataset": "nodes", "classes": "a,b,c", "num_clients": 3, "shrinkage": 0.1}
# What there was before there was a choice.
NODES |= {"feature_transform": "none", "upload": "given"}


def strategy_for(config):
    return OneShotStrategy(config.method, 3, 6)


@pytest.mark.parametrize("encoding", ["float32", "int8", "int4", "coded"])
def test_kept_class_means_are_found_and_read_to_the_last_bit(encoding):
    config = RunConfig(**NODES, encoding=encoding, head="ridge")
    store = UploadStore(EARLIER, config)
    assert store.names() == ["site-0", "site-1", "site-2"]
    strategy = strategy_for(config)
    for number, name in enumerate(store.names()):
        sent = store.read(name)
        assert sent.tag == ""
        strategy.aggregator.add(strategy.read_upload(sent), number)
    expected = load_file(EARLIER / "weights.safetensors")[encoding]
    torch.testing.assert_close(strategy.solve().weight, expected, rtol=1e-6, atol=1e-6)


def test_kept_moments_are_found_and_read():
    config = RunConfig(**NODES, method="fed3r")
    store = UploadStore(EARLIER, config)
    uploads = [strategy_for(config).read_upload(store.read(name)) for name in store.names()]
    assert [type(upload) for upload in uploads] == [FeatureMoments] * 3
    assert uploads[0].counts.tolist() == [10, 10, 10]


def test_what_was_asked_otherwise_is_not_taken_for_it():
    assert len(kept_configs(EARLIER)) == 6
    today = {"feature_transform": "power"}, {"upload": "best"}, {"upload": "paper"}
    private = {"epsilon": 4.0, "clip_norm": 9.0}
    for other in ({"groups": 2}, {"seed": 1}, {"encoding": "float16"}, private, *today):
        assert UploadStore(EARLIER, RunConfig(**{**NODES, **other})).names() == []
    # The promise and what only the server looks at belong together as they did.
    private = {"epsilon": 8.0, "clip_norm": 9.0}
    for same in ({"head": "lda"}, {"num_clients": 9}, {"num_cpus": 4}, {**private, "subtract_noise": False}):
        assert UploadStore(EARLIER, RunConfig(**{**NODES, **same})).names() != []


def test_results_are_read_and_their_runs_known():
    runs = load_results(EARLIER)
    assert [run.method for run in runs] == ["fedncm", "fedcof", "fed3r", "oracle"]
    assert [run.accuracy for run in runs] == [0.5335, 0.597, 0.6094, 0.6117]
    for run in runs:
        config = RunConfig.from_mapping(run.config)
        assert config.method.name == run.method
        assert (config.wire.upload, config.embedding.feature_transform) == ("given", "none")
        # It was the default, so to methods without a head it says nothing, now that another is.
        assert config.method.head == ("ridge" if config.method.chosen.takes_head else "quadratic")
        assert run.shrinkage is run.label_correlation is run.leave_one_out_likelihood is None
    assert strategy_of(RunConfig.from_mapping(runs[1].config)).quorum == 0.8
