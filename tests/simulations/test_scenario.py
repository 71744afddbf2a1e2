"""Scenarios and what the command line sets on top of them."""

from pathlib import Path

import pytest

from fedcof import UserError
from simulations.scenario import absolute_value, configure, is_path, parse_override, scenario_names


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_of_the_package_is_a_run_config(name):
    assert configure(name, []).data.num_clients > 1


def test_settings_win_over_the_scenario_and_the_last_one_wins():
    config = configure("digits", ["num-clients=7", "num-clients=9", "shrinkage=oas", "feature-cache=false"])
    assert (config.data.num_clients, config.method.shrinkage, config.embedding.feature_cache) == (9, "oas", False)
    assert config.embedding.image_size == 64


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=0.5", 0.5), ("a=true", True), ("a=x", "x"), ("a='x y'", "x y"), ("a=p:q=r", "p:q=r")],
)
def test_values_are_toml_or_plain_text(text, value):
    assert parse_override(text) == ("a", value)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configure("digits", ["dataset=folder:images", "weights=model.safetensors"])
    assert config.data.dataset == f"folder:{Path.cwd() / 'images'}"
    assert config.embedding.weights == str(Path.cwd() / "model.safetensors")
    assert configure("digits", ["weights=none"]).embedding.weights == "none"


def test_a_scenario_file_is_read_and_its_keys_are_checked(tmp_path):
    (tmp_path / "mine.toml").write_text("num-clients = 3\n")
    assert configure(str(tmp_path / "mine.toml"), []).data.num_clients == 3
    (tmp_path / "mine.toml").write_text("clients = 3\n")
    with pytest.raises(UserError, match="Unknown key 'clients'"):
        configure(str(tmp_path / "mine.toml"), [])


@pytest.mark.parametrize(
    ("key", "value", "resolved"),
    [
        ("test-data", "images", "{}/images"),
        ("test-data", "", None),
        ("dataset", "parquet:tables", "parquet:{}/tables"),
        ("dataset", "hub:owner/name", None),
        ("classes", "./names.txt", "{}/names.txt"),
        ("classes", "a,b", None),
        ("shrinkage", 0.5, None),
        ("of-tomorrow", "./x", None),
    ],
)
def test_what_is_a_path_is_what_its_key_says(key, value, resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_path(key, value) == (resolved is not None)
    assert absolute_value(key, value) == (key, resolved.format(Path.cwd()) if resolved else value)
