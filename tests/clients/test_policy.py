"""What a node's owner lets a server ask, by itself and in the ClientApp's answers."""

import json
import logging
import time

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from PIL import Image

from clients.app import evaluation_of_client, statistics_of_client, training_of_client
from clients.policy import NodePolicy
from clients.refusal import Refusal, told
from clients.samples import held_here
from fedcof import ClassMeans, UserError, feature_moments
from fedcof.data.problem import problem_of
from fedcof.heads.trainable import Network
from fedcof.methods.class_means import ClassMeansMethod
from fedcof.run.config import RunConfig
from fedcof.wire.encoding import decode_class_means
from fedcof.wire.gram import MOMENTS
from server.records import sent_in
from tests.fedcof.data.zoo import damaged_within, shortened

VALUES = {"dataset": "nodes", "classes": "a,b,c", "backbone": "test_efficientnet", "weights": "none"}
CONFIG = RunConfig.from_mapping({**VALUES, "image-size": 32})
PAPER = CONFIG.replaced(upload="paper")


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node with four images of a, two of b and one of c."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name, count in (("a", 4), ("b", 2), ("c", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 255, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")

    def context(config=CONFIG, **node_config):
        settings = {"data": str(tmp_path / "data"), "name": "clinic", "state": str(tmp_path / "state")}
        settings |= {"smallest-count": 1}
        settings |= {key.replace("_", "-"): value for key, value in node_config.items()}
        return Context(
            run_id=1, node_id=1, node_config=settings, state=RecordDict(), run_config=config.to_mapping()
        )

    return context


def ask(context):
    reply = statistics_of_client(0, RecordDict(), context)
    return sent_in(reply).arrays, dict(reply.config_records["node"])


def samples_of_classes(arrays):
    """Samples behind all rows of each class, up to the last that there is."""
    rows = decode_class_means(arrays)
    return torch.bincount(rows.class_ids, weights=rows.counts).int().tolist()


def test_by_default_a_node_sends_class_means_and_no_more(node):
    for config in (PAPER, CONFIG):
        arrays, said = ask(node(config))
        assert samples_of_classes(arrays) == [4, 2, 1]
        assert (said["samples"], said["withheld"]) == (7, 0)
        digest, _, transform = said["backbone"].partition("-")
        assert (len(digest), transform) == (64, "power")
    with pytest.raises(Refusal, match="policy of clinic does not allow evaluation"):
        evaluation_of_client(0, RecordDict(), node())
    gram = RunConfig.from_mapping({**CONFIG.to_mapping(), "method": "fed3r"})
    with pytest.raises(UserError, match="policy of clinic does not allow gram statistics, only class-means"):
        ask(node(gram))
    with pytest.raises(UserError, match="does not allow training, set allow-training"):
        train(node)


def train(node, **node_config):
    config = RunConfig.from_mapping({**CONFIG.to_mapping(), "continue": "linear-probe"})
    problem = problem_of(config)
    network = Network(problem.num_classes, problem.feature_dim).draw_head(0)
    arrays = ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    return training_of_client(0, content, node(config, **node_config))


def test_what_is_allowed_is_done(node):
    gram = RunConfig.from_mapping({**CONFIG.to_mapping(), "method": "fed3r"})
    assert "gram" in ask(node(gram, allow_statistics="class-means,gram"))[0]
    assert train(node, allow_training=True).metric_records["metrics"]["num-examples"] == 7


def test_means_of_few_samples_are_withheld_and_counted(node):
    for config in (PAPER, CONFIG):
        arrays, said = ask(node(config, smallest_count=2))
        assert decode_class_means(arrays).counts.min() >= 2
        assert samples_of_classes(arrays) == [4, 2]
        assert (said["samples"], said["withheld"]) == (6, 1)
        arrays, said = ask(node(config, smallest_count=100))
        assert decode_class_means(arrays).means.shape == (0, 256)
        assert (said["samples"], said["withheld"]) == (0, 3)


def test_samples_of_small_classes_are_in_no_number_that_mixes_classes(node, tmp_path):
    """A Gram matrix holds every sample, so a class that must not be seen has to be left out before it is taken."""
    held = held_here(CONFIG, 0, node())
    features, labels = held.features, held.labels
    gram = RunConfig.from_mapping({**CONFIG.to_mapping(), "method": "fed3r"})
    for smallest, classes, withheld in ((1, 3, 0), (2, 2, 1), (3, 1, 2), (5, 0, 3)):
        state = str(tmp_path / f"state-{smallest}")
        arrays, said = ask(node(gram, allow_statistics="gram", smallest_count=smallest, state=state))
        sent = labels < classes
        expected = MOMENTS.encode(feature_moments(features[sent], labels[sent]), 0)
        assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
        assert (said["samples"], said["withheld"]) == (len(labels[sent]), withheld)


def test_with_privacy_rows_are_withheld_by_their_noisy_counts_after_one_release(node):
    releases = []

    def count(self, *arguments):
        releases.append(arguments)
        return measured(self, *arguments)

    measured = ClassMeansMethod.measure_privately
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassMeansMethod, "measure_privately", count)
        arrays, said = ask(node(private(epsilon=1000.0), smallest_count=2))
    assert len(releases) == 1
    assert (arrays["counts"] >= 2).all()
    assert len(arrays["counts"]) + said["withheld"] <= 3


def test_other_backbones_are_refused(node):
    with pytest.raises(UserError, match="does not allow the backbone test_efficientnet, only resnet18, vit"):
        ask(node(allow_backbones="resnet18, vit"))
    ask(node(allow_backbones="resnet18,test_efficientnet"))


def other(size):
    """A question that has another answer."""
    return RunConfig.from_mapping({**CONFIG.to_mapping(), "image-size": size})


def test_only_so_many_different_answers_a_day_and_in_all(node, tmp_path):
    limits = {"answers_per_day": 2, "answers_in_total": 3}
    for size in (32, 33, 32, 33):
        ask(node(other(size), **limits))
    with pytest.raises(Refusal, match="does not allow another answer, 2 within 24 hours"):
        ask(node(other(34), **limits))
    file = tmp_path / "state" / "clinic" / "answers.json"
    noted = json.loads(file.read_text())
    assert len(noted) == 2
    file.write_text(json.dumps([{**one, "at": time.time() - 25 * 60 * 60} for one in noted]))
    ask(node(other(34), **limits))
    with pytest.raises(Refusal, match="does not allow another answer, 3 in all"):
        ask(node(other(35), **limits))
    ask(node(other(34), **limits))


def test_answers_of_an_earlier_version_count(node, tmp_path):
    file = tmp_path / "state" / "clinic" / "answers.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([time.time()]))
    ask(node(answers_per_day=2))
    with pytest.raises(Refusal, match="2 within 24 hours"):
        ask(node(other(33), answers_per_day=2))


@pytest.mark.parametrize("content", ["", "[{", '{"at":'])
def test_a_damaged_record_is_not_forgotten(node, tmp_path, content):
    ask(node())
    file = tmp_path / "state" / "clinic" / "answers.json"
    file.write_text(content)
    with pytest.raises(Refusal, match="record of what it has answered is damaged"):
        ask(node(other(33)))


def test_what_a_node_keeps_is_its_owners_alone(node, tmp_path):
    ask(node())
    folder = tmp_path / "state" / "clinic"
    assert folder.stat().st_mode & 0o077 == 0
    assert {path.name for path in folder.iterdir()} >= {"secret", "cells.json", "answers.json"}


def private(**values):
    return RunConfig.from_mapping({**CONFIG.to_mapping(), "epsilon": 4, "clip-norm": 5, **values})


def test_only_runs_with_enough_privacy_are_answered(node, tmp_path):
    limits = {"largest_epsilon": 4, "allow_training": True, "allow_evaluation": True}
    ask(node(private(), **limits))
    with pytest.raises(
        UserError, match="does not allow an answer without privacy, an epsilon of at most 4 and a del"
    ):
        ask(node(**limits))
    with pytest.raises(
        UserError, match="does not allow an epsilon of 5 with a delta of 1e-05, an epsilon of at mos"
    ):
        ask(node(private(epsilon=5), **limits))
    with pytest.raises(UserError, match="does not allow an epsilon of 4 with a delta of 0.001"):
        ask(node(private(delta=1e-3), **limits))
    ask(node(private(delta=1e-3), **limits, largest_delta=1e-3, state=str(tmp_path / "other")))
    with pytest.raises(UserError, match="does not allow an answer without privacy"):
        train(node, **limits)
    with pytest.raises(UserError, match="does not allow an answer without privacy"):
        evaluation_of_client(0, RecordDict(), node(**limits))


def test_what_a_node_says_of_a_private_upload_is_noisy_too(node):
    """Neither its samples, nor how many rows are withheld, nor their number is of the true counts."""
    arrays, said = ask(node(private(epsilon=0.1)))
    assert said["samples"] == arrays["counts"].sum()
    assert said["withheld"] == 0
    arrays, said = ask(node(private(epsilon=50), smallest_count=4))
    assert arrays["counts"].tolist() == [count for count in arrays["counts"] if count >= 4]
    assert said["samples"] >= arrays["counts"].sum()


def test_noise_on_a_node_is_its_own_and_drawn_once(node, tmp_path):
    """The server knows the run's seed, and must neither make a node's noise of it, nor average it away."""
    first, again, elsewhere = (
        ask(node(private(epsilon=50, seed=seed), state=str(tmp_path / state)))[0]["means"]
        for seed, state in ((0, "one"), (7, "one"), (0, "another"))
    )
    assert first.shape[0]
    assert np.array_equal(first, again)
    assert first.shape != elsewhere.shape or not np.allclose(first, elsewhere)


def test_promises_add_up(node):
    limits = {"largest_epsilon": 4, "largest_delta": 1e-5}
    halves = [private(epsilon=2, delta=5e-6, **{"clip-norm": norm}) for norm in (5, 6, 7)]
    for config in (halves[0], halves[1], halves[0]):
        ask(node(config, **limits))
    with pytest.raises(Refusal, match="does not allow another private answer, an epsilon of 4"):
        ask(node(halves[2], **limits))


def test_a_refused_upload_is_not_counted(node, tmp_path):
    with pytest.raises(UserError):
        ask(node(allow_backbones="resnet18", answers_per_day=1))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("node_config", "sentence"),
    [
        ({"allow_statistics": "everything"}, "allow-statistics is everything: set it to class-means or gram"),
        ({"allow_training": "maybe"}, "allow-training is 'maybe': set it to true or false"),
        ({"smallest_count": 0}, "smallest-count is 0: set it to a whole number from 1"),
        ({"largest_groups": "all"}, "largest-groups is 'all': set it to a whole number from 1"),
        ({"allow_evaluation": 1}, "allow-evaluation is 1: set it to true or false"),
        ({"longest_answer": "-1"}, "longest-answer is '-1': set it to a number from 0"),
        ({"answers_per_day": "two"}, "answers-per-day is 'two'"),
        ({"largest_epsilon": "little"}, "largest-epsilon is 'little': set it to a number from 0"),
        ({"largest_delta": "inf"}, "largest-delta is 'inf': set it to a number from 0"),
        ({"data": "nowhere"}, "There are no images at nowhere"),
    ],
)
def test_a_wrong_node_config_is_one_sentence(node, node_config, sentence):
    with pytest.raises(UserError, match=sentence):
        ask(node(**node_config))


def test_an_empty_node_says_so(node, tmp_path):
    (tmp_path / "nothing").mkdir()
    for config in (PAPER, CONFIG):
        arrays, said = ask(node(config, data=str(tmp_path / "nothing")))
        assert decode_class_means(arrays).means.shape == (0, 256)
        assert said["samples"] == 0


def test_a_node_keeps_the_names_of_bad_images_to_itself(node, tmp_path, caplog):
    """The server learns how many there are; the node's owner finds them in its log and beside its answers."""
    secret = tmp_path / "data" / "a" / "Erika Mustermann.png"
    secret.write_bytes(shortened((tmp_path / "data" / "a" / "0.png").read_bytes()))
    hidden = tmp_path / "data" / "b" / "1.png"
    logging.getLogger("flwr").addHandler(caplog.handler)
    try:
        with pytest.raises(UserError, match="^1 of its images cannot be used") as error:
            ask(node())
        assert "Mustermann" not in str(error.value)
        assert "Mustermann" in caplog.text
        assert "Mustermann" in (tmp_path / "state" / "clinic" / "left_out.csv").read_text()
        skipping = RunConfig.from_mapping({**CONFIG.to_mapping(), "bad-images": "skip"})
        assert samples_of_classes(ask(node(skipping))[0]) == [4, 2, 1]
        # One that only decoding shows to be damaged.
        hidden.write_bytes(damaged_within(hidden.read_bytes()))
        assert samples_of_classes(ask(node(skipping, data=f"{tmp_path}/./data"))[0]) == [4, 1, 1]
    finally:
        logging.getLogger("flwr").removeHandler(caplog.handler)
    assert "2 broken" in caplog.text


def test_a_simulated_client_has_no_policy_and_says_nothing_of_its_node(node):
    policy = NodePolicy.of({})
    means = ClassMeans(torch.tensor([0, 1]), torch.tensor([1, 5]), torch.zeros(2, 3))
    assert means.withhold(policy.smallest_count)[1] == 1
    assert (policy.statistics, policy.training, policy.evaluation) == (("class-means",), False, False)
    assert (policy.smallest_count, policy.answers_per_day, policy.answers_in_total) == (5, 20, 100)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"image-size": 513}, "does not allow an image-size of 513, at most 512"),
        ({"batch-size": 257}, "does not allow a batch-size of 257, at most 256"),
        ({"backbone": "local-dir:/etc"}, "a backbone from a place of the server's choice"),
        ({"backbone": "hf-hub:somebody/model"}, "a backbone from a place of the server's choice"),
        ({"dataset": "folder:/etc", "classes": ""}, "it answers for its own data alone"),
        ({"dataset": "digits", "classes": ""}, "it answers for its own data alone"),
        ({"weights": "/etc/hostname"}, "weights from a file were asked for"),
        ({"weights": "relative.pth"}, "weights from a file were asked for"),
    ],
)
@pytest.mark.parametrize("act", [statistics_of_client, evaluation_of_client, training_of_client])
def test_a_server_names_no_place_and_no_size_of_its_choice(node, asked, sentence, act):
    content = RecordDict({"config": ConfigRecord({**asked, "server-round": 1})})
    with pytest.raises(Refusal, match=sentence):
        act(0, content, node(allow_training=True, allow_evaluation=True))


def test_names_of_classes_are_never_read_from_a_file(node, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a\nb\nc\n")
    with pytest.raises(UserError) as error:
        ask(node(RunConfig.from_mapping({**CONFIG.to_mapping(), "classes": str(secret)})))
    assert "b" not in str(error.value).replace(str(secret), "").split()


def test_what_a_server_hears_of_an_error_names_no_path_and_quotes_nothing():
    assert (
        told(Refusal("the policy of clinic does not allow training"))
        == "the policy of clinic does not allow training"
    )
    for error in (
        UserError("The image /data/patient-7.png cannot be read."),
        KeyError("patient-7"),
        OSError(2, "x", "/p"),
    ):
        assert "patient-7" not in told(error)
        assert "/" not in told(error)
        assert type(error).__name__ in told(error)


def test_more_groups_than_the_owner_allows_are_not_made(node):
    many = RunConfig.from_mapping({**CONFIG.to_mapping(), "groups": 10**6})
    assert ask(node(many, largest_groups=2, smallest_count=2))[0]["counts"].tolist() == [2, 2, 2]
    assert ask(node(many, largest_groups=1, smallest_count=2))[0]["counts"].tolist() == [4, 2]
    assert decode_class_means(ask(node(largest_groups=1, smallest_count=2))[0]).counts.tolist() == [4, 2]
