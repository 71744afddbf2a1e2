"""Feature transforms: what they make of features, and that all who average them know which it was."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.embedding.transform import FeatureTransform, transformed
from fedcof.run.config import RunConfig


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_power_transform_keeps_the_sign_and_takes_the_root(rows):
    features = torch.tensor(rows)
    found = transformed(features, "power")
    assert torch.allclose(found * found.abs(), features, rtol=1e-5, atol=1e-30)
    assert torch.equal(found.sign(), features.sign())


def test_unit_length_leaves_zeros_alone():
    found = transformed(torch.tensor([[3.0, -4.0], [0.0, 0.0]]), "l2")
    assert torch.allclose(found, torch.tensor([[0.6, -0.8], [0.0, 0.0]]))


def test_nothing_to_be_done_is_no_copy():
    features = torch.rand(3, 2)
    assert transformed(features, "none") is features


@pytest.mark.parametrize("transform", ["none", "power", "l2"])
def test_the_module_does_the_same(transform):
    features = torch.randn(4, 3)
    assert torch.equal(FeatureTransform(transform)(features), transformed(features, transform))


def test_another_transform_is_another_fingerprint():
    prints = {RunConfig(feature_transform=name).embedding.fingerprint("ab12") for name in ("none", "power", "l2")}
    assert len(prints) == 3
    assert "ab12" in prints


def test_fine_tuning_takes_the_features_as_they_are():
    for training in ("adapters", "fine-tune"):
        assert RunConfig(feature_transform="power", continue_=training).embedding.feature_transform == "none"
    assert RunConfig(feature_transform="power", continue_="linear-probe").embedding.feature_transform == "power"


def test_another_name_is_one_sentence():
    with pytest.raises(UserError, match="feature-transform"):
        RunConfig(feature_transform="cube")
