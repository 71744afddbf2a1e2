"""The run-config: defaults that agree with Flower's, types, and sentences for what is wrong."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.methods.section import MethodSection
from fedcof.run.config import RunConfig


def test_the_defaults_are_those_that_flower_is_told():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    told = project["tool"]["flwr"]["app"]["config"]
    # In the same order too, and of the same types, which Flower keeps to.
    assert list(told.items()) == list(RunConfig.defaults().items())
    assert list(map(type, told.values())) == list(map(type, RunConfig.defaults().values()))


@given(st.sampled_from(sorted(RunConfig.defaults())))
def test_every_key_survives_the_way_as_text(key):
    default = RunConfig.defaults()[key]
    assert RunConfig.from_mapping({key: str(default)}).to_mapping()[key] == default
    assert RunConfig.from_mapping({key: default}).to_mapping() == RunConfig.defaults()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("colour", "red", f"Unknown key 'colour': fedcof settings lists all {len(RunConfig.defaults())}"),
        ("num-clients", "many", "takes a whole number"),
        ("num-clients", 2.5, "takes a whole number"),
        ("num-clients", 0, "at least 1"),
        ("feature-cache", "yes", "true or false"),
        ("alpha", "wide", "takes a number"),
        ("alpha", -1.0, "above 0"),
        ("alpha", float("nan"), "above 0"),
        ("method", "fedsgd", "choose one of fedncm, fedcof"),
        ("encoding", "int3", "choose one of float32"),
        ("shrinkage", "lots", "leave-one-out, ledoit-wolf, oas"),
        ("quorum", 1.5, "at most 1"),
        ("dataset", [1], "takes a text"),
        ("seed", -1, "at least 0"),
        ("epsilon", -1.0, "at least 0"),
        ("epsilon", 1.0, "epsilon is 1 and clip-norm is 0, but privacy needs both above 0"),
        ("clip-norm", 1.0, "epsilon is 0 and clip-norm is 1, but privacy needs both above 0"),
        ("delta", 0.0, "above 0 and below 1"),
        ("delta", 1.0, "above 0 and below 1"),
    ],
)
def test_a_bad_value_is_one_sentence(key, value, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        RunConfig.from_mapping({key: value})
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bytes-per-client": 9000, "bytes-per-class": 300}, "there can be one budget"),
        ({"bytes-per-client": 9000, "encoding": "int8"}, "encoding is int8, but a budget"),
        ({"bytes-per-class": 300, "groups": 4}, "groups is 4, but a budget"),
        ({"bytes-per-class": 300, "method": "fedncm"}, "must be 0 for fedncm"),
        ({"bytes-per-class": -1}, "at least 0"),
        ({"rounding-noise": 0.1}, "set encoding to coded"),
        ({"rounding-noise": 0.0, "encoding": "coded"}, "above 0"),
    ],
)
def test_a_budget_and_the_choices_that_it_makes_exclude_each_other(values, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        RunConfig.from_mapping(values)
    assert str(error.value).count("\n") == 0
    assert RunConfig.from_mapping({"bytes-per-class": 300}).wire.has_budget


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"diagnose": True, "dataset": "nodes", "classes": "a,b"}, "nobody has them"),
        ({"diagnose": True, "method": "fedncm"}, "must be False for fedncm"),
        ({"bytes-per-class": 300, "epsilon": 1.0, "clip-norm": 5.0}, "or no epsilon"),
        ({"encoding": "coded", "epsilon": 1.0, "clip-norm": 5.0}, "or no epsilon"),
    ],
)
def test_keys_that_cannot_be_together_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        RunConfig.from_mapping(values)
    assert str(error.value).count("\n") == 0


def test_shrinkage_is_a_number_or_a_name():
    assert RunConfig.from_mapping({"shrinkage": "0.5"}).method.shrinkage == 0.5
    assert RunConfig.from_mapping({"shrinkage": "oas"}).method.shrinkage == "oas"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("continue", "linear-probe", "The key continue is linear-probe, but it must be none with an epsilon"),
        ("client-test-share", 0.2, "client-test-share is 0.2, but it must be 0 with an epsilon"),
        ("groups", 0, "groups is 0, but it must be at least 1 with an epsilon"),
        ("method", "oracle", "epsilon is 1.0, but it must be 0.0 for oracle"),
    ],
)
def test_with_privacy_nothing_depends_on_samples_beside_the_release(key, value, sentence):
    RunConfig.from_mapping({"epsilon": 1, "clip-norm": 5})
    with pytest.raises(UserError, match=sentence):
        RunConfig.from_mapping({"epsilon": 1, "clip-norm": 5, key: value})


@pytest.mark.parametrize("key", ["head", "estimator", "shrinkage", "method", "encoding", "partition", "optimizer"])
def test_a_name_that_nothing_has_is_refused_as_it_is_given(key):
    for make in (lambda: RunConfig(**{key: "nonsense"}), lambda: RunConfig.from_mapping({key: "nonsense"})):
        with pytest.raises(UserError, match=f"{key}.*nonsense|'nonsense'") as error:
            make()
        assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("key", ["head", "estimator"])
def test_nor_does_the_section_by_itself_take_it(key):
    with pytest.raises(UserError, match="nonsense"):
        MethodSection(**{key: "nonsense"})
