"""What a node settles at once: nothing is embedded, and no framework imported, for a refusal or a repetition."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

import clients.own_data
from clients.act import Act
from clients.app import statistics_of_client
from clients.client_app import app
from clients.first_look import first_look
from clients.refusal import Refusal
from fedcof import UserError
from fedcof.embedding import backbones, features
from fedcof.embedding.trained import trained_fingerprint
from fedcof.heads.trainable import Network
from fedcof.methods.registry import METHODS
from fedcof.run.config import RunConfig
from server.records import sent_in

CONFIG = RunConfig(
    dataset="nodes", classes="a,b", backbone="test_efficientnet", weights="none", image_size=32, feature_cache=False
)
HEAVY = {"torch", "timm", "datasets", "torchvision", "pandas", "sklearn"}


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node with three images of a and two of b."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    generator = np.random.default_rng(0)
    for name, count in (("a", 3), ("b", 2)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 255, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")

    def context(config=CONFIG, **node_config):
        settings = {"name": "clinic", "data": str(tmp_path / "data"), "state": str(tmp_path / "state")}
        settings |= {"smallest-count": 1}
        settings |= {key.replace("_", "-"): value for key, value in node_config.items()}
        return Context(1, 1, settings, RecordDict(), config.to_mapping())

    return context


@pytest.fixture
def embedded(monkeypatch):
    """Count how often a node embeds."""
    calls = []

    def count(*arguments, **settings):
        calls.append(arguments)
        return extract(*arguments, **settings)

    extract = features.extract_features
    monkeypatch.setattr(features, "extract_features", count)
    return calls


def asking(**values):
    return RunConfig.from_mapping({**CONFIG.to_mapping(), **{k.replace("_", "-"): v for k, v in values.items()}})


def send(context, kind="query.statistics", **values):
    content = RecordDict({"config": ConfigRecord({**values, "server-round": 1})})
    return app(Message(content, 1, kind), context)


def arrays_in(reply):
    return sent_in(reply.content).arrays


def forbid(monkeypatch):
    """Neither a backbone nor an image is to be looked at from here on."""

    def fail(*arguments, **settings):
        raise AssertionError("looked at a backbone or an image")

    monkeypatch.setattr(backbones, "load_backbone", fail)
    monkeypatch.setattr(clients.own_data, "own_images", fail)
    monkeypatch.setattr(features, "extract_features", fail)
    backbones.shared_backbone.cache_clear()


def test_an_answer_is_repeated_without_a_look_at_an_image_or_a_backbone(node, embedded, monkeypatch):
    first = send(node())
    assert len(embedded) == 1
    forbid(monkeypatch)
    again = send(node(), seed=7)
    assert again.has_content()
    assert all(np.array_equal(array, arrays_in(first)[name]) for name, array in arrays_in(again).items())
    assert dict(again.content.config_records["node"]) == dict(first.content.config_records["node"])
    # Another question would be looked at.
    assert "AssertionError" in send(node(), **{"image-size": 33}).error.reason


@pytest.mark.parametrize(
    ("kind", "asked", "limits", "reason"),
    [
        ("query.statistics", {"method": "fed3r"}, {}, "does not allow gram statistics, only class-means"),
        ("query.statistics", {"image-size": 513}, {}, "does not allow an image-size of 513"),
        (
            "query.statistics",
            {"image-size": 33},
            {"answers_per_day": 1},
            "another answer, 1 within 24 hours",
        ),
        (
            "query.statistics",
            {"image-size": 33},
            {"answers_in_total": 1},
            "another answer, 1 in all",
        ),
        ("query.statistics", {"epsilon": 1.0, "clip-norm": 5.0}, {"answers_in_total": 1}, "1 in all"),
        ("train", {}, {}, "does not allow training"),
        ("train", {}, {"allow_training": True, "answers_in_total": 1}, "another answer, 1 in all"),
        ("evaluate", {}, {}, "does not allow evaluation"),
        ("evaluate", {}, {"allow_evaluation": True, "answers_per_day": 1}, "1 within 24 hours"),
    ],
)
def test_what_is_refused_costs_no_look_at_an_image_or_a_backbone(node, monkeypatch, kind, asked, limits, reason):
    send(node())
    forbid(monkeypatch)
    assert reason in send(node(**limits), kind, **asked).error.reason


def test_a_repetition_that_only_the_samples_tell_is_given_though_there_is_no_room(node, embedded, tmp_path):
    first = send(node(answers_in_total=1))
    os.utime(tmp_path / "data" / "a" / "0.png", ns=(1, 1))
    again = send(node(answers_in_total=1))
    assert all(np.array_equal(array, arrays_in(first)[name]) for name, array in arrays_in(again).items())
    assert len(embedded) == 1
    # By now the node knows the files as they are.
    question = first_look(Act.STATISTICS, RecordDict(), node(answers_in_total=1))
    assert question is not None


def test_changed_images_are_another_answer(node, embedded, tmp_path):
    first = send(node(), upload="paper")
    (tmp_path / "data" / "a" / "3.png").write_bytes((tmp_path / "data" / "b" / "0.png").read_bytes())
    assert arrays_in(send(node(), upload="paper"))["counts"].tolist() == [4, 2]
    assert arrays_in(first)["counts"].tolist() == [3, 2]
    assert len(embedded) == 2
    assert "does not allow another answer" in send(node(answers_in_total=2), **{"image-size": 33}).error.reason


def test_a_stricter_owner_repeats_no_answer_from_before(node, embedded):
    assert arrays_in(send(node(), groups=3))["counts"].tolist() == [1, 1, 1, 1, 1]
    assert arrays_in(send(node(largest_groups=1), groups=3))["counts"].tolist() == [3, 2]
    assert arrays_in(send(node(smallest_count=2), groups=3))["counts"].tolist() == [3, 2]
    assert len(embedded) == 3


def test_an_answer_of_an_earlier_version_is_repeated_after_a_look(node, embedded, tmp_path):
    send(node())
    file = tmp_path / "state" / "clinic" / "answers.json"
    noted = json.loads(file.read_text())
    file.write_text(json.dumps([{key: one[key] for key in ("at", "digest", "epsilon", "delta")} for one in noted]))
    assert first_look(Act.STATISTICS, RecordDict(), node(answers_in_total=1)) is None
    assert send(node(answers_in_total=1)).has_content()
    assert len(embedded) == 1


def test_what_cannot_be_told_from_outside_is_looked_at(node, embedded, monkeypatch):
    """Of weights from the hub nobody knows without the hub whether they are the same."""
    monkeypatch.setattr("clients.first_look.stamp_of", lambda config: "")
    send(node())
    assert first_look(Act.STATISTICS, RecordDict(), node()) is None
    assert send(node()).has_content()
    assert len(embedded) == 1


def test_who_asks_meanwhile_does_not_wait_and_gets_the_first_answer(node, embedded, monkeypatch, tmp_path):
    """The second is asked while the first embeds, and is done before it."""
    replies = []
    extract = features.extract_features

    def ask_within(*arguments, **settings):
        monkeypatch.setattr(features, "extract_features", extract)
        replies.append(statistics_of_client(0, RecordDict(), node()))
        return extract(*arguments, **settings)

    monkeypatch.setattr(features, "extract_features", ask_within)
    replies.append(statistics_of_client(0, RecordDict(), node()))
    assert len(embedded) == 2
    assert len(json.loads((tmp_path / "state" / "clinic" / "answers.json").read_text())) == 1
    first, second = (sent_in(reply).arrays for reply in replies)
    assert all(np.array_equal(array, second[name]) for name, array in first.items())


IN_A_PROCESS = """
import json, sys
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
for name in ("_run_id", "_task_id", "_node_id"):
    setattr(TaskIdentity, name, 1)
from clients.client_app import app
node_config, run_config, asked = json.loads(sys.argv[1])
replies = []
for kind, values, more in asked:
    content = RecordDict({"config": ConfigRecord({**values, "server-round": 1})})
    reply = app(Message(content, 1, kind), Context(1, 1, {**node_config, **more}, RecordDict(), run_config))
    replies.append(reply.error.reason if reply.has_error() else "answered")
print(json.dumps([replies, sorted(sys.modules)]))
"""


def test_nothing_heavy_is_imported_for_what_is_settled_at_once(node):
    send(node())
    asked = [
        ("query.statistics", {}, {}),
        ("query.statistics", {"seed": 4}, {}),
        ("query.statistics", {"method": "fedncm"}, {}),
        ("query.statistics", {"method": "fed3r"}, {}),
        ("query.statistics", {"encoding": "int8"}, {"answers-per-day": 1}),
        ("query.statistics", {"epsilon": 1.0, "clip-norm": 5.0}, {"answers-in-total": 1}),
        ("train", {}, {}),
        ("evaluate", {}, {"allow-evaluation": True, "answers-per-day": 1}),
    ]
    given = json.dumps([node().node_config, CONFIG.to_mapping(), asked])
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, given], capture_output=True, text=True, check=True, timeout=120
    )
    replies, modules = json.loads(done.stdout.splitlines()[-1])
    assert replies[:3] == ["answered"] * 3
    assert [reply.split("does not allow ")[1].split(",")[0] for reply in replies[3:]] == [
        "gram statistics",
        "another answer",
        "another answer",
        "training",
        "another answer",
    ]
    assert not HEAVY & set(modules)


def request_with(config, arrays):
    network = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"config": ConfigRecord({**config.for_message(), "server-round": 9}), "network": network})


@pytest.fixture
def trained():
    """A network that training has left as it was, and one that it has changed."""
    backbone = backbones.shared_backbone("test_efficientnet", 32, "none").module
    network = Network(2, 256, backbone).draw_head(0)
    one = {name: array.copy() for name, array in network.to_arrays().items()}
    name = next(name for name in one if name.endswith("conv_stem.weight"))
    return one, {**one, name: one[name] * 1.5}


def test_what_is_asked_of_a_trained_network_is_an_answer_of_its_own(node, trained, embedded):
    """Counted, kept and repeated by the network that it is asked with."""
    config = CONFIG.replaced(continue_="fine-tune")
    one, other = trained
    here = {"allow_training": True, "answers_in_total": 3}
    first = statistics_of_client(0, RecordDict(), node(config, **here))
    answers = [
        statistics_of_client(0, request_with(config, arrays), node(config, **here)) for arrays in (one, other)
    ]
    fingerprints = [answer.config_records["node"]["backbone"] for answer in (first, *answers)]
    assert fingerprints[1:] == [trained_fingerprint(fingerprints[0], arrays) for arrays in (one, other)]
    assert len(set(fingerprints)) == 3
    sent = [sent_in(answer).arrays for answer in (first, *answers)]
    # The first is the frozen backbone's weights by another way.
    assert all(np.array_equal(array, sent[1][name]) for name, array in sent[0].items())
    assert not all(np.array_equal(array, sent[2][name]) for name, array in sent[0].items())
    done = len(embedded)
    again = first_look(Act.STATISTICS, request_with(config, one), node(config, **here))
    assert all(np.array_equal(array, sent[1][name]) for name, array in sent_in(again).arrays.items())
    assert len(embedded) == done
    third = {name: array + 1 for name, array in one.items()}
    with pytest.raises(Refusal, match="another answer"):
        statistics_of_client(0, request_with(config, third), node(config, **here))


def test_only_who_trains_embeds_with_what_the_server_sends(node, trained):
    config = CONFIG.replaced(continue_="fine-tune")
    for ask in (lambda *given: first_look(Act.STATISTICS, *given), lambda *given: statistics_of_client(0, *given)):
        with pytest.raises(Refusal, match="does not allow training"):
            ask(request_with(config, trained[0]), node(config))
    with pytest.raises(Refusal, match="gram statistics"):
        method = CONFIG.replaced(continue_="fine-tune", method="fed3r")
        first_look(Act.STATISTICS, request_with(method, trained[0]), node(method, allow_training=True))


def test_a_network_of_other_shapes_or_beside_no_fine_tuning_is_refused(node, trained):
    config = CONFIG.replaced(continue_="fine-tune")
    short = {name: array for name, array in trained[0].items() if not name.endswith("conv_stem.weight")}
    with pytest.raises(UserError, match="conv_stem.weight is missing"):
        statistics_of_client(0, request_with(config, short), node(config, allow_training=True))
    with pytest.raises(UserError, match="no backbone trains"):
        statistics_of_client(0, request_with(CONFIG, trained[0]), node(CONFIG, allow_training=True))


def test_a_kind_that_is_known_early_is_the_methods_own():
    needed = {"random": {"continue_": "linear-probe"}, "zero-shot": {"text_prior": "names"}}
    for name in METHODS.names():
        assert RunConfig(method=name, **needed.get(name, {})).method.kind == METHODS.get(name).kind


def test_a_refusal_is_the_same_wherever_it_is_made(node):
    with pytest.raises(Refusal) as early:
        first_look(Act.STATISTICS, RecordDict(), node(asking(method="fed3r")))
    with pytest.raises(Refusal) as late:
        statistics_of_client(0, RecordDict(), node(asking(method="fed3r")))
    assert str(early.value) == str(late.value)
