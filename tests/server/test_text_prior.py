"""Whole runs with what class names know, in memory; the names themselves are read in test_class_names."""

import numpy as np
import pytest
import torch

import server.run
import server.run_strategy
from clients.app import app as client_app
from fedcof import UserError
from fedcof.data.class_names import prior_of
from fedcof.data.problem import dataset_of, problem_of
from fedcof.embedding import name_prototypes
from fedcof.embedding.transform import transformed
from fedcof.heads.classifiers import load_classifier
from fedcof.heads.text_prior import TextPrior
from fedcof.methods.zero_shot import ZeroShot
from fedcof.run.config import RunConfig
from server.federation import Federation
from server.run import execute
from tests.server.in_memory_grid import InMemoryGrid

CLASSES, DIM = 6, 8


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of six classes, whose names tell where they lie."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((CLASSES, DIM))
    directions -= directions.mean(axis=0)
    for split, count in (("train", 600), ("test", 300)):
        labels = np.arange(count) % CLASSES
        features = 0.5 + 1.5 * directions[labels] + generator.standard_normal((count, DIM))
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    prototypes = torch.nn.functional.normalize(torch.tensor(directions, dtype=torch.float32), dim=1)

    def prior(config):
        section = config.method
        if not config.embedding.has_prior:
            return None
        return TextPrior(prototypes, section.prior_samples, section.prior_directions, section.unheld_risk)

    for module in (server.run, server.run_strategy):
        monkeypatch.setattr(module, "prior_of", prior)
    return f"features:{folder}"


def run(dataset, folder, **values):
    settings = {"dataset": dataset, "num_clients": 6, "feature_transform": "none", "unheld_risk": 0.05, **values}
    config = RunConfig(**settings)
    grid = InMemoryGrid(client_app, 6, run_config=config.to_mapping())
    return execute(Federation(grid, 6), config, folder, "run")


@pytest.mark.parametrize("head", ["quadratic", "ridge", "lda"])
@pytest.mark.parametrize("method", ["fedcof", "oracle"])
def test_classes_that_nobody_holds_are_named(dataset, tmp_path, method, head):
    values = {"method": method, "head": head, "unheld_classes": 0.34}
    before = run(dataset, tmp_path / "before", **values)
    after = run(dataset, tmp_path / "after", text_prior="names", **values)
    assert before.accuracy_by_samples.none.accuracy == 0
    assert after.accuracy_by_samples.none.accuracy > 0.2
    assert after.accuracy_by_samples.many.accuracy > before.accuracy_by_samples.many.accuracy - 0.1
    assert bool(load_classifier(tmp_path / "after" / after.head).present.all())


def test_names_help_where_there_is_one_sample_a_class_and_cost_no_byte(dataset, tmp_path):
    before = run(dataset, tmp_path / "before", samples_per_class=1)
    after = run(dataset, tmp_path / "after", samples_per_class=1, text_prior="names")
    assert after.accuracy > before.accuracy
    assert after.uplink_bytes == before.uplink_bytes


def test_zero_shot_asks_nobody_and_knows_more_than_chance(dataset, tmp_path):
    result = run(dataset, tmp_path, method="zero-shot", text_prior="names")
    assert (result.clients, result.uplink_bytes, result.downlink_bytes) == (0, 0, 0)
    assert result.accuracy > 2 / CLASSES


def test_training_goes_on_from_a_classifier_with_a_prior(dataset, tmp_path):
    values = {"continue_": "linear-probe", "continue_rounds": 1, "unheld_classes": 0.34}
    before = run(dataset, tmp_path / "before", **values)
    after = run(dataset, tmp_path / "after", text_prior="names", **values)
    assert after.rounds[0].accuracy > before.rounds[0].accuracy
    assert len(after.rounds) == 2


def test_no_message_to_a_client_tells_of_it(dataset):
    config = RunConfig(dataset=dataset, text_prior="names", prompt="a drawing of a {}")
    assert not any("prior" in key or "prompt" in key or "unheld-risk" in key for key in config.for_message())


def test_zero_shot_without_names_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="set text-prior to names or clip"):
        RunConfig(method="zero-shot")


@pytest.mark.parametrize("method", ["fedncm", "fed3r"])
def test_a_method_without_a_prior_refuses_the_key(method):
    with pytest.raises(UserError, match="text-prior"):
        RunConfig(method=method, text_prior="names")


@pytest.mark.parametrize("prompt", ["", "a photo", "{name}"])
def test_a_prompt_without_a_place_for_the_name_is_refused(prompt):
    with pytest.raises(UserError, match="where a class's name goes"):
        RunConfig(prompt=prompt)


def test_features_of_nobody_knows_which_backbone_have_no_names(dataset):
    with pytest.raises(UserError, match="nobody knows how class names lie in them"):
        prior_of(RunConfig(dataset=dataset, text_prior="names"))


def test_a_run_reads_its_own_class_names(monkeypatch):
    asked = []

    def prototypes(names, templates, backbone, weights, dimension):
        asked.append((names, templates, backbone, weights, dimension))
        return torch.eye(len(names), dimension)

    monkeypatch.setattr(name_prototypes, "name_prototypes", prototypes)
    config = RunConfig(dataset="digits", text_prior="names", prompt="the digit {}", prior_samples=2.0)
    prior = prior_of(config)
    names = problem_of(config).class_names
    assert asked == [(names, ("the digit {}",), "tf_efficientnet_lite0", "pretrained", 1280)]
    assert (prior.samples, prior.directions, prior.risk) == (2.0, 0, 0.0025)
    assert prior_of(RunConfig(dataset="digits")) is None


def test_the_names_can_be_asked_for_when_uploads_are_solved_again():
    free = {name for name, known in RunConfig.declared().items() if known.after_upload}
    assert {"text-prior", "prompt", "prior-samples", "prior-directions", "unheld-risk"} <= free


@pytest.mark.parametrize("transform", ["none", "l2", "power"])
def test_zero_shot_by_clip_predicts_as_open_clip_does(tmp_path, monkeypatch, transform):
    open_clip = pytest.importorskip("open_clip")
    from tests.fedcof.embedding.clip_folders import of_open_clip, write_clip

    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = write_clip(tmp_path / "clip")
    config = RunConfig(
        dataset="digits",
        backbone="open_clip",
        weights=folder,
        image_size=0,
        method="zero-shot",
        text_prior="clip",
        prompt="the digit {}",
        feature_transform=transform,
        num_clients=2,
    )
    classifier = ZeroShot(10, 16)
    classifier.take_prior(prior_of(config))
    model, transform_image = of_open_clip(folder)
    images = [split["image"].convert("RGB") for split in dataset_of(config).test.select(range(12))]
    with torch.no_grad():
        features = model.encode_image(torch.stack([transform_image(image) for image in images]))
        texts = [f"the digit {name}" for name in problem_of(config).class_names]
        spoken = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True)
    spoken, features = transformed(spoken, transform), transformed(features, transform)
    expected = features @ torch.nn.functional.normalize(spoken, dim=1).T
    assert torch.allclose(classifier.solve().scores(features), expected, atol=1e-4 * float(expected.abs().max()))


def test_a_prior_by_clip_is_what_texts_differ_in(tmp_path, monkeypatch):
    pytest.importorskip("open_clip")
    from tests.fedcof.embedding.clip_folders import write_clip

    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    keys = {"dataset": "digits", "backbone": "open_clip", "weights": write_clip(tmp_path / "clip"), "image_size": 0}
    prior = prior_of(RunConfig(**keys, text_prior="clip", feature_transform="l2"))
    alone = prior_of(RunConfig(**keys, text_prior="clip", feature_transform="l2", method="zero-shot"))
    away = alone.prototypes - alone.prototypes.mean(dim=0)
    assert torch.allclose(prior.prototypes, torch.nn.functional.normalize(away, dim=1), atol=1e-5)
