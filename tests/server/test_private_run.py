"""Whole runs with privacy in memory, with the real ClientApp: what the strategy makes is what the library makes."""

import numpy as np
import pytest
import torch

from clients.app import app as client_app
from fedcof import Fed3R, FedCOF, FedNCM, UserError
from fedcof.data.virtual_clients import client_samples
from fedcof.methods.noise_corrected import NoiseCorrected
from fedcof.privacy.correction import PrivateRows
from fedcof.privacy.noise import SeededNoise
from fedcof.privacy.release import private_class_means, private_feature_moments
from fedcof.run.config import RunConfig
from fedcof.wire.encoding import decode_class_means, encode_class_means
from server.federated_run import FederatedRun
from server.federation import Federation
from server.upload_store import UploadStore
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 6, 4, 8


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of four classes that overlap a little."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 2
    for split, count in (("train", 1200), ("test", 400)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM))
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def config_of(dataset, **values):
    privacy = {"epsilon": 4.0, "clip_norm": 5.0, "num_clients": CLIENTS, "partition": "iid"}
    return RunConfig(dataset=dataset, **{**privacy, **values})


def run(config, folder):
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    federated = FederatedRun(Federation(grid, CLIENTS), config, folder)
    return federated, federated.execute()


def by_hand(config):
    # The quadratic head gives way to a linear one.
    privacy, head = config.method.chosen.promise(config.privacy), config.method.for_linear().head
    if config.method.name == "fed3r":
        aggregator = Fed3R(CLASSES, DIM, gram_noise=privacy.gram_noise)
    else:
        aggregator = (
            FedNCM(CLASSES, DIM)
            if config.method.name == "fedncm"
            else FedCOF(CLASSES, DIM, shrinkage=config.method.shrinkage, head=head)
        )
    # Only vectors that are scaled to unit length have a length to correct.
    has_lengths = config.method.name != "fedcof" or head == "ridge"
    corrects = config.privacy.subtract_noise and has_lengths
    corrected = NoiseCorrected(aggregator, privacy) if corrects else aggregator
    for client in range(CLIENTS):
        samples = client_samples(config, client)
        source = SeededNoise(config.data.seed, client)
        if config.method.name == "fed3r":
            corrected.add(private_feature_moments(*samples, CLASSES, privacy, source), client)
            continue
        sent = private_class_means(*samples, CLASSES, privacy, source, config.wire.groups)
        received = decode_class_means(encode_class_means(sent, config.wire.encoding, client))
        corrected.add(PrivateRows.of(received, privacy) if config.privacy.subtract_noise else received, client)
    return corrected.solve()


@pytest.mark.parametrize("subtract_noise", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        {"method": "fedncm"},
        {"method": "fedcof"},
        {"method": "fedcof", "head": "ridge"},
        {"method": "fedcof", "head": "ridge", "encoding": "int8", "groups": 2},
        {"method": "fed3r"},
    ],
)
def test_a_private_run_is_the_librarys(dataset, tmp_path, values, subtract_noise):
    config = config_of(dataset, subtract_noise=subtract_noise, **values)
    federated, classifier = run(config, tmp_path)
    assert federated.clients == CLIENTS
    assert federated.rounds[-1].accuracy > 0.7
    expected = by_hand(config)
    assert type(classifier) is type(expected)
    features = torch.randn(50, DIM, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(classifier.raw_scores(features), expected.raw_scores(features), rtol=1e-4, atol=1e-4)


def test_privacy_is_felt_and_little_of_it_less(dataset, tmp_path):
    # Clipped far above the features' length, so that the noise costs more than a sample or two.
    accuracies = [
        run(config_of(dataset, epsilon=epsilon, clip_norm=20.0), tmp_path / str(epsilon))[0].rounds[-1].accuracy
        for epsilon in (1.0, 8.0)
    ]
    assert accuracies[0] < accuracies[1]


def test_clients_asked_in_several_rounds_release_once_each(dataset, tmp_path):
    config = config_of(dataset, method="fedncm", init_rounds=2, fraction=0.5)
    federated, classifier = run(config, tmp_path)
    assert [entry.clients for entry in federated.rounds] == [3, 6]
    torch.testing.assert_close(classifier.weight, by_hand(config).weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", [{}, {"head": "ridge"}, {"subtract_noise": False}])
def test_noise_that_hides_every_class_is_one_sentence(dataset, tmp_path, values):
    with pytest.raises(UserError, match="withheld every class, because at an epsilon of 0.05 the noise hides"):
        run(config_of(dataset, epsilon=0.05, **values), tmp_path)


def test_uploads_of_other_privacy_are_kept_apart(dataset, tmp_path):
    configs = [
        RunConfig(dataset=dataset),
        *(config_of(dataset, epsilon=e, clip_norm=c) for e, c in ((1, 5), (2, 5), (2, 6))),
    ]
    assert len({UploadStore(tmp_path, config).folder for config in configs}) == 4
