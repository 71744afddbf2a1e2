"""What is taken and left out is said and listed before anything is embedded, and kept with the results."""

import csv
import logging

import pytest
import torch
from PIL import Image

from fedcof.data import kept_problem
from fedcof.data.intake import BadImagesError
from fedcof.data.problem import labels_of, note_problem, problem_of, split_features
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from server.app import _say_intake
from server.quality import Predictions
from server.run import result_of
from simulations.intakes import Intakes
from tests.fedcof.data.zoo import damaged_within, shortened

TINY = {"backbone": "test_efficientnet", "weights": "none", "image_size": 32, "num_clients": 3}


@pytest.fixture
def config(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    return RunConfig(dataset=f"folder:{image_folder}", **TINY)


def damage(image_folder, *names):
    """Harm images so that only decoding shows it."""
    for name in names:
        path = image_folder / name
        path.write_bytes(damaged_within(path.read_bytes()))


def reasons_in(output):
    with (output / "left_out.csv").open() as file:
        return {line["place"].rpartition("/")[2]: line["reason"] for line in csv.DictReader(file)}


def test_each_dataset_is_spoken_of_once_and_its_list_is_beside_the_results(config, image_folder, tmp_path, capsys):
    (image_folder / "train" / "dark" / "notes.txt").write_text("no image")
    (image_folder / "test" / "loose.png").write_bytes((image_folder / "test" / "dark" / "0.png").read_bytes())
    intakes = Intakes(tmp_path / "out")
    digits = RunConfig(**TINY)
    intakes.say([config, config.replaced(seed=1), digits])
    intakes.say([config])
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "train: 24 images of 2 classes (bright, dark); 1 left out: 1 no image",
        "test: 8 images of 2 classes (bright, dark); 1 left out: 1 beside the classes",
    ]
    assert len(said) == 3
    assert "left_out.csv" in said[2]
    assert reasons_in(tmp_path / "out") == {
        "notes.txt": "it is a text",
        "loose.png": "it lies beside the folders of the classes, and so has no class",
    }


def test_a_list_of_an_earlier_run_does_not_stay(config, image_folder, tmp_path):
    notes = image_folder / "train" / "dark" / "notes.txt"
    notes.write_text("no image")
    Intakes(tmp_path).say([config])
    notes.unlink()
    problem_cleared()
    Intakes(tmp_path).say([config])
    assert not (tmp_path / "left_out.csv").exists()


def problem_cleared():
    from fedcof.data.datasets import shared_dataset

    shared_dataset.cache_clear()


def test_bad_images_are_listed_where_the_results_would_be(config, image_folder, tmp_path):
    for number in range(6):
        path = image_folder / "train" / "dark" / f"{number}.png"
        path.write_bytes(shortened(path.read_bytes()))
    with pytest.raises(UserError, match=r"^6 images of .*and 1 more.* listed in .*left_out\.csv\.$") as error:
        Intakes(tmp_path).say([config])
    assert not isinstance(error.value, BadImagesError)
    assert len(reasons_in(tmp_path)) == 6


def test_what_only_decoding_shows_is_reported_together(config, image_folder):
    names = ["train/dark/3.png", "train/bright/7.png", "test/dark/1.png"]
    damage(image_folder, *names)
    with pytest.raises(BadImagesError, match="^3 images of ") as error:
        split_features(config, "train")
    assert all(f"{name}: " in str(error.value) for name in names)
    # Known from now on, without being decoded again.
    with pytest.raises(BadImagesError, match="^3 images of "):
        problem_of(config)


def test_what_is_skipped_is_counted_by_class_in_the_results(config, image_folder, tmp_path, monkeypatch):
    path = image_folder / "train" / "dark" / "0.png"
    path.write_bytes(shortened(path.read_bytes()))
    damage(image_folder, "train/dark/3.png", "train/bright/7.png", "test/dark/1.png")
    skipping = config.replaced(bad_images="skip")
    assert split_features(skipping, "train").labels.tolist() == [0] * 11 + [1] * 10
    assert len(split_features(skipping, "test").features) == 7
    expected = {"test": {"dark": 1}, "train": {"bright": 1, "dark": 2}}
    note_problem(skipping, tmp_path / "notes")
    for _ in ("looked up", "noted"):
        labels = torch.tensor(labels_of(skipping, "test"))
        result = result_of(skipping, Predictions(labels, labels, torch.ones(len(labels)), 2))
        assert result.left_out == expected
        monkeypatch.setenv(kept_problem.FOLDER_VARIABLE, str(tmp_path / "notes"))
    append_result(tmp_path, result)
    (kept,) = load_results(tmp_path)
    assert kept.left_out == expected


def test_the_features_of_what_is_left_are_those_that_it_had(config, image_folder):
    before = split_features(config, "train").features[:].copy()
    damage(image_folder, "train/bright/0.png")
    problem_cleared()
    after = split_features(config.replaced(bad_images="skip"), "train").features
    assert torch.allclose(torch.tensor(after), torch.tensor(before[1:]), rtol=1e-5, atol=1e-6)


def test_the_servers_own_test_images_are_spoken_of_in_its_log(image_folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    (image_folder / "test" / "dark" / "notes.txt").write_text("no image")
    test_data = str(image_folder / "test")
    config = RunConfig(dataset="nodes", classes="dark,bright", test_data=test_data, **TINY)
    with caplog.at_level(logging.INFO, logger="flwr"):
        logging.getLogger("flwr").addHandler(caplog.handler)
        _say_intake(config, tmp_path / "out")
    logging.getLogger("flwr").removeHandler(caplog.handler)
    assert "test: 8 images of 2 classes (dark, bright); 1 left out: 1 no image" in caplog.text
    assert reasons_in(tmp_path / "out") == {"notes.txt": "it is a text"}
    Image.new("RGB", (4, 4)).save(image_folder / "test" / "dark" / "9.png")
    (image_folder / "test" / "dark" / "10.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 image of .*10\.png: it is empty.* listed in "):
        _say_intake(config.replaced(bad_images="error", seed=1, classes="bright,dark"), tmp_path / "out")


def test_a_deployment_is_not_begun_with_bad_images(fedcof, image_folder, tmp_path):
    damage(image_folder, "train/dark/3.png", "test/dark/1.png")
    settings = ("-c", f"dataset=folder:{image_folder}", "-c", "backbone=test_efficientnet", "-c", "weights=none")
    status, message = fedcof("deploy-local", *settings, "--output", tmp_path / "out")
    assert status == 2
    assert "2 images of folder:" in message
    assert message.strip().count("\n") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["left_out.csv"]
