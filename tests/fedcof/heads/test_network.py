"""The network that training changes: its arrays, its head, and batch norms that stay."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fedcof import LinearClassifier, UserError
from fedcof.heads.trainable import Network


def head():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator)
    return LinearClassifier(weight, bias, torch.tensor([True, True, False]), ("a", "b", "c"))


def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_a_classifier_goes_in_and_comes_out():
    classifier = head()
    network = Network(3, 4).set_head(classifier)
    out = network.classifier(classifier.present, classifier.class_names)
    assert torch.equal(out.weight, classifier.weight)
    assert torch.equal(out.bias, classifier.bias)
    assert (out.class_names, out.present.tolist()) == (classifier.class_names, [True, True, False])
    features = torch.randn(5, 4)
    torch.testing.assert_close(network(features)[:, :2], classifier.scores(features)[:, :2])


def test_a_probe_is_the_head_alone():
    assert {name: array.shape for name, array in Network(3, 4).to_arrays().items()} == {
        "head.weight": (3, 4),
        "head.bias": (3,),
    }


def test_arrays_carry_all_that_trains_and_nothing_else():
    source = Network(3, 4, backbone().to(memory_format=torch.channels_last)).set_head(head())
    arrays = source.to_arrays()
    assert not any("running" in name for name in arrays)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays.values())
    target = Network(3, 4, backbone()).load_arrays({name: array + 1 for name, array in arrays.items()})
    for name, parameter in target.named_parameters():
        torch.testing.assert_close(parameter.detach(), torch.from_numpy(arrays[name]) + 1)


def test_the_shared_backbone_is_left_alone():
    frozen = backbone().requires_grad_(False)
    before = frozen[0].weight.clone()
    network = Network(3, 4, frozen)
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network.backbone[0].weight.add_(1)
    assert torch.equal(frozen[0].weight, before)
    assert not frozen[0].weight.requires_grad


@pytest.mark.parametrize("make", [backbone, lambda: timm.create_model("test_efficientnet", num_classes=0)])
def test_statistics_of_batch_norms_stay_in_training(make):
    network = Network(3, make().eval()(torch.zeros(1, 3, 32, 32)).shape[1], make()).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert before
    network(torch.randn(8, 3, 32, 32)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.weight.grad is not None for norm in norms)
    assert network.training


def test_a_drawn_head_is_the_seeds():
    one, again, other = (Network(50, 64).draw_head(seed) for seed in (3, 3, 4))
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert one.head.weight.abs().max() <= 1 / 8
    assert one.head.weight.detach().std() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda arrays: arrays.pop("head.bias"), "head.bias is missing"),
        (lambda arrays: arrays.update({"other": np.zeros(2)}), "other is .*no such array"),
        (
            lambda arrays: arrays.update({"head.weight": np.zeros((2, 4))}),
            r"\(2, 4\), but the network has \(3, 4\)",
        ),
    ],
)
def test_arrays_of_another_network_are_refused(change, sentence):
    network = Network(3, 4).set_head(head())
    arrays = network.to_arrays()
    change(arrays)
    before = network.head.weight.clone()
    with pytest.raises(UserError, match=sentence):
        network.load_arrays(arrays)
    assert torch.equal(network.head.weight, before)
