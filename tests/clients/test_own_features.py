"""A node whose data are features: what it answers, to whom, and by the same rules as one with images."""

import os

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict

from clients.app import evaluation_of_client, statistics_of_client, training_of_client
from clients.data_state import own_data_state
from clients.refusal import Refusal
from fedcof import UserError
from fedcof.embedding.transform import transformed
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig
from fedcof.wire.encoding import decode_class_means
from server.records import sent_in

DIM = 4
ENCODER = "acme-text-embedder 2.1"
DEFAULT = RunConfig(dataset="nodes", classes="a,b,c", encoder=ENCODER, feature_dim=DIM)
CONFIG = DEFAULT.replaced(upload="paper", feature_transform="none")
FEATURES = np.random.default_rng(0).standard_normal((7, DIM)).astype(np.float32)
LABELS = ["a"] * 4 + ["b"] * 2 + ["c"]


@pytest.fixture
def node(tmp_path):
    """A node with features of four samples of a, two of b and one of c."""
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "features.npy", FEATURES)
    np.save(tmp_path / "data" / "labels.npy", LABELS)

    def context(config=CONFIG, **node_config):
        settings = {"name": "clinic", "data": str(tmp_path / "data"), "state": str(tmp_path / "state")}
        settings |= {"encoder": ENCODER, "smallest-count": 1}
        settings |= {key.replace("_", "-"): value for key, value in node_config.items()}
        settings = {key: value for key, value in settings.items() if value is not None}
        return Context(1, 1, settings, RecordDict(), config.to_mapping())

    return context


def ask(context):
    reply = statistics_of_client(0, RecordDict(), context)
    arrays = sent_in(reply).arrays
    return arrays, dict(reply.config_records["node"])


def asking(**values):
    return RunConfig.from_mapping({**CONFIG.to_mapping(), **values})


def test_its_class_means_are_those_of_its_features(node):
    arrays, said = ask(node())
    np.testing.assert_allclose(arrays["means"][0], FEATURES[:4].mean(axis=0), rtol=1e-6)
    assert arrays["counts"].tolist() == [4, 2, 1]
    assert (said["samples"], said["withheld"], said["backbone"]) == (7, 0, ENCODER)


def test_by_default_they_are_transformed_first_and_no_row_is_of_fewer_than_its_owner_allows(node):
    arrays, said = ask(node(DEFAULT, smallest_count=2))
    rows = decode_class_means(arrays)
    assert rows.counts.min() >= 2
    rooted = transformed(torch.from_numpy(FEATURES), "power")
    for class_id, held in ((0, slice(4)), (1, slice(4, 6))):
        own = rows.class_ids == class_id
        count = rows.counts[own].sum()
        mean = (rows.counts[own, None] * rows.means[own]).sum(dim=0) / count
        # A class's mean is rounded to steps whose variance is told, and is off by half of one at most.
        half_a_step = (3 * rows.noise[own] * rows.counts[own] / count).sqrt().max()
        torch.testing.assert_close(mean, rooted[held].mean(dim=0), rtol=0, atol=1.001 * float(half_a_step))
    assert (rows.counts.sum(), said["samples"], said["withheld"]) == (6, 6, 1)


def test_small_classes_are_withheld_and_groups_are_cells(node, tmp_path):
    arrays, said = ask(node(smallest_count=2))
    assert (arrays["counts"].tolist(), said["samples"], said["withheld"]) == ([4, 2], 6, 1)
    gram, said = ask(node(asking(method="fed3r"), smallest_count=2, allow_statistics="gram"))
    np.testing.assert_allclose(gram["sums"][0], FEATURES[:4].sum(axis=0), rtol=1e-5)
    assert said["withheld"] == 1
    many = asking(groups=1000)
    assert ask(node(many, smallest_count=2, state=str(tmp_path / "other")))[0]["counts"].tolist() == [2, 2, 2]


def test_equal_features_are_samples_each(node, tmp_path):
    np.save(tmp_path / "data" / "features.npy", np.ones((7, DIM), np.float32))
    assert ask(node(smallest_count=2))[0]["counts"].tolist() == [4, 2]


def test_a_sample_that_is_taken_away_is_in_no_difference(node, tmp_path):
    ask(node(smallest_count=2))
    np.save(tmp_path / "data" / "features.npy", FEATURES[1:])
    np.save(tmp_path / "data" / "labels.npy", LABELS[1:])
    assert ask(node(smallest_count=2))[0]["counts"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("asked", "declared", "sentence"),
    [
        (
            {},
            "acme-text-embedder 2.0",
            "features are of the encoder 'acme-text-embedder 2.0', but those of 'acme",
        ),
        ({}, None, f"features of the encoder '{ENCODER}' were asked for, but its node-config declares no encoder"),
        ({"encoder": "", "feature-dim": 0}, ENCODER, f"has features, of the encoder '{ENCODER}', but images were"),
        ({"continue": "fine-tune"}, ENCODER, "continue=fine-tune needs images, but it has features"),
        ({"continue": "adapters"}, ENCODER, "continue=adapters needs images, but it has features"),
    ],
)
@pytest.mark.parametrize("act", [statistics_of_client, evaluation_of_client, training_of_client])
def test_what_is_not_for_its_features_is_refused(node, asked, declared, sentence, act):
    content = RecordDict({"config": ConfigRecord({**asked, "server-round": 1})})
    with pytest.raises(Refusal, match=sentence):
        act(0, content, node(encoder=declared, allow_training=True, allow_evaluation=True))


@pytest.mark.parametrize("encoder", ["two\nlines", "x" * 201, " blank", "\x1b[2J"])
def test_an_encoder_that_is_no_line_is_one_sentence(node, encoder):
    with pytest.raises(UserError, match="must be a text of up to 200 printable characters") as error:
        ask(node(encoder=encoder))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="must be a text of up to 200 printable"):
        asking(encoder=encoder)


def test_limits_on_images_are_not_for_features(node):
    """The keys of a backbone have their defaults in such a run, which mean nothing."""
    assert ask(node(allow_backbones="resnet18", largest_image_size=1))[0]["counts"].sum() == 7
    with pytest.raises(Refusal, match="a batch-size of 64, at most 8"):
        ask(node(largest_batch_size=8))


def test_another_dimension_is_told_to_the_owner(node):
    with pytest.raises(UserError, match="have 4 dimensions, but the run's have 5"):
        ask(node(asking(**{"feature-dim": 5})))


def test_the_rule_of_the_run_is_one_sentence():
    with pytest.raises(UserError, match="feature-dim is 0 with the encoder 'e'"):
        RunConfig(dataset="nodes", classes="a,b", encoder="e")
    with pytest.raises(UserError, match="encoder is e, but it must be"):
        RunConfig(dataset="digits", encoder="e", feature_dim=3)
    with pytest.raises(UserError, match="feature-dim is 3, but it must be 0"):
        RunConfig(dataset="nodes", classes="a,b", feature_dim=3)
    for training in ("adapters", "fine-tune"):
        with pytest.raises(UserError, match=f"continue={training} needs images, but there are features of"):
            RunConfig(dataset="nodes", classes="a,b", encoder="e", feature_dim=3, continue_=training)


def network_record():
    network = Network(3, DIM).draw_head(0)
    arrays = ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})
    return network, RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})


def test_a_probe_is_trained_and_evaluated_on_features(node):
    network, content = network_record()
    probing = asking(**{"continue": "linear-probe"})
    metrics = training_of_client(0, content, node(probing, allow_training=True)).metric_records["metrics"]
    assert metrics["num-examples"] == 7
    found = evaluation_of_client(0, content, node(probing, allow_evaluation=True)).metric_records["metrics"]
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    right = np.argmax(FEATURES @ weight.T + bias, axis=1) == [ord(label) - ord("a") for label in LABELS]
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["num-examples"] == 7


def test_a_change_of_the_features_shows(node, tmp_path):
    config = node().node_config
    seen = {own_data_state(config), own_data_state({**config, "encoder": "another"})}
    for name in ("features", "labels"):
        os.utime(tmp_path / "data" / f"{name}.npy", ns=(1, 1))
        seen.add(own_data_state(config))
    assert len(seen) == 4
    # What lies beside the features is no part of them.
    (tmp_path / "data" / "notes.txt").write_text("x")
    assert own_data_state(config) in seen
    assert own_data_state({**config, "data": str(tmp_path / "nowhere")}) == ""
