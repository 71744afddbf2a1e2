"""Scenarios and what the command line sets on top of them."""

from pathlib import Path

import pytest

from fedcof import UserError
from simulations.comparison import comparison_runs
from simulations.scenario import (
    absolute_value,
    compared,
    configure,
    is_path,
    parse_override,
    scenario_names,
    scenario_values,
)


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_of_the_package_can_be_compared_and_is_a_run_with_one_value_of_each_key(name):
    values = scenario_values(name, [])
    assert all(run.data.num_clients > 1 for run in comparison_runs(values, *compared(name)).values())
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    if lists:
        with pytest.raises(UserError, match="takes no list here: give one value, or use fedcof compare"):
            configure(name, [])
    assert configure(name, [f"{key}={value[0]}" for key, value in lists.items()]).data.num_clients > 1


def test_few_samples_are_as_few_for_every_method_and_both_heads():
    runs = comparison_runs(scenario_values("few-samples", ["dataset=digits"]), *compared("few-samples")).values()
    numbers = {}
    for run in runs:
        numbers.setdefault((run.method.name, run.method.head), []).append(run.data.samples_per_class)
    assert set(map(tuple, numbers.values())) == {(1, 2, 4, 8, 16)}
    assert {method for method, _ in numbers} == {"fedncm", "fedcof", "fed3r", "oracle"}
    assert {head for method, head in numbers if method in ("fedcof", "oracle")} == {"ridge", "quadratic"}
    assert {run.data.unheld_classes for run in runs} == {0}
    assert configure("unheld", []).data.unheld_classes == 0.1


def test_settings_win_over_the_scenario_and_the_last_one_wins():
    config = configure("digits", ["num-clients=7", "num-clients=9", "shrinkage=oas", "feature-cache=false"])
    assert (config.data.num_clients, config.method.shrinkage, config.embedding.feature_cache) == (9, "oas", False)
    assert config.embedding.image_size == 64


def test_who_names_a_key_of_the_uploads_form_means_it_also_where_it_is_the_default(tmp_path):
    assert configure("digits", []).wire.upload == "best"
    for named in ("encoding=float32", "groups=1", "rounding-noise=0.02", "bytes-per-client=0", "bytes-per-class=0"):
        assert configure("digits", [named]).wire.upload == "given"
    (tmp_path / "mine.toml").write_text("encoding = 'float32'\n")
    assert configure(str(tmp_path / "mine.toml"), []).wire.upload == "given"
    assert configure(str(tmp_path / "mine.toml"), ["upload=best"]).wire.upload == "best"


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
        ("classes", "names.txt", "{}/names.txt"),
        ("classes", "names.txt,b", None),
        ("classes", "a\0b", None),
        ("dataset", "features:~/x", "features:{}/x"),
        ("dataset", "folder:../x", "folder:{}/../x"),
        ("weights", "~/net.pt", "{}/net.pt"),
        ("shrinkage", 0.5, None),
        ("of-tomorrow", "./x", None),
    ],
)
def test_what_is_a_path_is_what_its_key_says(key, value, resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert is_path(key, value) == (resolved is not None)
    assert absolute_value(key, value) == (key, resolved.format(Path.cwd()) if resolved else value)


def test_a_scenario_may_lie_in_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text("num-clients = 3\n")
    assert configure("~/mine.toml", []).data.num_clients == 3


def test_a_home_that_nobody_knows_is_one_sentence():
    with pytest.raises(UserError, match="begins in a home that nobody knows"):
        configure("digits", ["dataset=folder:~nobody-of-this-name/x"])


@pytest.mark.parametrize(("key", "instead"), [("output", "give --output"), ("plan", "leave it out")])
def test_what_the_command_sets_itself_is_not_silently_ignored(key, instead):
    with pytest.raises(UserError, match=f"The key {key} is 'x', but the command sets it itself: {instead}"):
        configure("digits", [f"{key}=x"])
