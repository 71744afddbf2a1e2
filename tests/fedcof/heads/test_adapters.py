"""Adapters: which layers get them, what they make of weights, and that the frozen backbone is their start."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fedcof import UserError
from fedcof.heads.adapter_options import AdapterOptions, check_layers
from fedcof.heads.adapters import adapted_layers, layers_of
from fedcof.heads.trainable import BACKBONE_PREFIX, Network
from fedcof.merging.matrices import ADAPTER_A, ADAPTER_B
from fedcof.run.config import RunConfig

DIM = 6


def tiny():
    """Convolutions of 1 x 1, of groups and of 3 x 3, a linear layer that is called and one whose weight is used."""
    torch.manual_seed(0)
    return Tiny().eval().to(memory_format=torch.channels_last)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3)
        self.point = nn.Conv2d(8, 5, 1)
        self.grouped = nn.Conv2d(5, 5, 1, groups=5)
        self.norm = nn.BatchNorm2d(5)
        self.called = nn.Linear(5, 7)
        self.used = nn.Linear(7, DIM, bias=False)

    def forward(self, images):
        pooled = self.norm(self.grouped(self.point(self.wide(images)))).mean(dim=(2, 3))
        return nn.functional.linear(self.called(pooled), self.used.weight)


def network(backbone=None, seed=0, trained=True, **options):
    """A network whose B are no longer zeros."""
    made = Network(3, DIM, backbone or tiny(), AdapterOptions(seed=seed, **options)).draw_head(0).eval()
    if trained:
        generator = np.random.default_rng(1)
        arrays = made.to_arrays()
        made.load_arrays(
            {
                name: generator.standard_normal(a.shape) if name.endswith(ADAPTER_B) else a
                for name, a in arrays.items()
            }
        )
    return made


def images(size=16):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rank", "alpha"), [(2, 16.0), (4, 1.0), (100, 3.0)])
def test_the_merged_weights_are_the_formula(rank, alpha):
    frozen = tiny()
    made = network(frozen, rank=rank, alpha=alpha)
    arrays, weights = made.to_arrays(), made.plain_backbone().state_dict()
    for layer, smallest in (("point", 5), ("called", 5), ("used", 6)):
        a, b = (arrays[f"{BACKBONE_PREFIX}{layer}{which}"].astype(np.float64) for which in (ADAPTER_A, ADAPTER_B))
        before = frozen.get_submodule(layer).weight.detach().double().numpy()
        expected = before.copy()
        for i in range(before.shape[0]):
            for j in range(before.shape[1]):
                expected[i, j] += alpha / rank * sum(b[i, k] * a[k, j] for k in range(len(a)))
        assert len(a) == min(rank, smallest)
        np.testing.assert_allclose(weights[f"{layer}.weight"].numpy(), expected, rtol=1e-5, atol=1e-6)
    same = weights.keys() - {"point.weight", "called.weight", "used.weight"}
    assert all(torch.equal(weights[name], frozen.state_dict()[name]) for name in same)
    assert weights.keys() == frozen.state_dict().keys()


def test_the_merged_backbone_is_a_plain_one_and_its_source_keeps_its_adapters():
    made = network()
    plain = made.plain_backbone()
    assert [type(module) for module in plain.modules()] == [type(module) for module in tiny().modules()]
    loaded = tiny()
    loaded.load_state_dict(plain.state_dict(), strict=True)
    with torch.no_grad():
        features = made.backbone(images())
        torch.testing.assert_close(loaded(images()), features, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(features, tiny()(images()), rtol=0.1)
    arrays = made.to_arrays()
    again = made.plain_backbone()
    assert torch.equal(again.point.weight, plain.point.weight)
    assert all(np.array_equal(made.to_arrays()[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_convnext", "beit_tiny"])
def test_training_starts_from_the_frozen_backbone_exactly_and_merges_into_it(name):
    backbone = small(name)
    dim = backbone.num_features
    with torch.no_grad():
        expected = backbone(images(32))
        start = Network(3, dim, backbone, AdapterOptions()).draw_head(0).eval()
        assert torch.equal(start.backbone(images(32)), expected)
        moved = start.load_arrays({n: a + 0.05 * n.endswith(ADAPTER_B) for n, a in start.to_arrays().items()})
        features = moved.backbone(images(32))
        assert not torch.allclose(features, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
        plain = small(name)
        plain.load_state_dict(moved.plain_backbone().state_dict(), strict=True)
        torch.testing.assert_close(plain(images(32)), features, rtol=1e-5, atol=1e-5 * float(features.abs().max()))


def small(name):
    torch.manual_seed(0)
    if name == "beit_tiny":
        # Whose attention uses its layer's weight without calling the layer.
        sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
        return timm.models.beit.Beit(num_classes=0, **sizes).eval()
    sized = {"img_size": 32} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=0, **sized).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            if parameter.endswith("gamma"):
                # ConvNeXt's blocks begin with next to no effect.
                tensor.fill_(1.0)
    return model


class Attention(nn.Module):
    """torch's own attention, which has its projections' weights as a parameter, and uses another layer's."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, DIM)

    def forward(self, images):
        tokens = images.flatten(2)[..., :8]
        return self.last(self.attn(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1))


def test_torchs_attention_does_not_pass_over_its_adapter():
    torch.manual_seed(0)
    frozen = Attention().eval()
    made = network(frozen, layers=r"attn\..*")
    assert sorted(made.to_arrays())[:2] == ["backbone.attn.out_proj.lora_a", "backbone.attn.out_proj.lora_b"]
    with torch.no_grad():
        expected = made.plain_backbone()(images())
        torch.testing.assert_close(made.backbone(images()), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(frozen(images()), expected, rtol=0.1)
    torch.testing.assert_close(made.backbone(images()).detach(), expected, rtol=1e-5, atol=1e-5)
    made(images()).sum().backward()
    assert all(
        parameter.grad.abs().sum() > 0 for parameter in made.backbone.parameters() if parameter.requires_grad
    )


def test_only_head_and_adapters_travel():
    arrays = network().to_arrays()
    expected = {"head.weight", "head.bias"}
    expected |= {
        f"backbone.{layer}{which}" for layer in ("point", "called", "used") for which in (ADAPTER_A, ADAPTER_B)
    }
    assert arrays.keys() == expected
    assert arrays["backbone.point.lora_a"].shape == (5, 8)
    assert arrays["backbone.point.lora_b"].shape == (5, 5)


def test_the_draw_is_the_seeds_and_nobody_elses_random_numbers_move_on():
    before = torch.get_rng_state()
    one, again, other = (network(seed=seed, trained=False).to_arrays() for seed in (3, 3, 4))
    torch.set_rng_state(before)
    tiny()
    assert all(np.array_equal(one[name], again[name]) for name in one)
    names = [name for name in one if name.endswith(ADAPTER_A)]
    assert len(names) == 3
    assert not any(np.array_equal(one[name], other[name]) for name in names)
    assert all(np.abs(one[name]).max() <= one[name].shape[1] ** -0.5 for name in names)
    assert all(one[name.replace(ADAPTER_A, ADAPTER_B)].any() == 0 for name in names)
    state = torch.get_rng_state()
    Network(3, DIM, tiny_without_drawing(), AdapterOptions())
    assert torch.equal(torch.get_rng_state(), state)


def tiny_without_drawing():
    state = torch.get_rng_state()
    made = tiny()
    torch.set_rng_state(state)
    return made


VIT = [f"blocks.{i}.{layer}" for i in range(2) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
CONVNEXT = [f"stages.{i}.blocks.0.mlp.fc{k}" for i in range(4) for k in (1, 2)]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: timm.create_model("test_vit", num_classes=0, depth=2), VIT),
        (lambda: timm.create_model("test_convnext", num_classes=0, depths=(1, 1, 1, 1)), CONVNEXT),
        (tiny, ["point", "called", "used"]),
    ],
)
def test_the_layers_that_suit_a_backbone(make, expected):
    assert adapted_layers(make()) == expected


def test_of_a_mobile_network_the_pointwise_convolutions_of_its_blocks():
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    chosen = adapted_layers(model)
    assert {name.rpartition(".")[2] for name in chosen} == {"conv_pw", "conv_pwl"}
    assert len(chosen) == 31
    assert chosen[:3] == ["blocks.0.0.conv_pw", "blocks.1.0.conv_pw", "blocks.1.0.conv_pwl"]
    assert all(model.get_submodule(name).groups == 1 for name in chosen)
    made = Network(10, 1280, model, AdapterOptions())
    assert sum(map(np.size, made.to_arrays().values())) == 169_472 + 10 * 1281


def test_layers_by_name_are_those_alone():
    model = timm.create_model("test_vit", num_classes=0, depth=2)
    assert adapted_layers(model, r"blocks\.1\.attn\.\w+") == ["blocks.1.attn.qkv", "blocks.1.attn.proj"]
    assert "patch_embed.proj" not in adapted_layers(model, ".*")
    # A part of a name is not a name.
    with pytest.raises(
        UserError, match="matches adapter-layers, 'qkv': .* of which this backbone has blocks.0.attn"
    ) as error:
        adapted_layers(model, "qkv")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="adapter-layers, 'grouped|wide': .* has point, called, used, or"):
        adapted_layers(tiny(), "grouped|wide")


def test_what_is_no_expression_or_no_backbone_is_one_sentence():
    for raises in (lambda: check_layers("conv_(pw"), lambda: RunConfig(continue_="adapters", adapter_layers="*")):
        with pytest.raises(UserError, match="adapter-layers is .*no regular expression") as error:
            raises()
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no linear layer and no 1 x 1 convolution"):
        Network(3, 4, nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), AdapterOptions())
    with pytest.raises(UserError, match="no linear layer"):
        Network(3, 4, adapters=AdapterOptions())


def test_who_is_sent_a_network_takes_its_layers_from_it():
    arrays = network(layers="point|used").to_arrays()
    pattern = layers_of(arrays, BACKBONE_PREFIX)
    assert adapted_layers(tiny(), pattern) == ["point", "used"]
    # A name is a name, whatever it would mean as an expression.
    with pytest.raises(UserError, match="No layer"):
        adapted_layers(tiny(), layers_of(["backbone.(.*)+.lora_a"], BACKBONE_PREFIX))
    assert layers_of(["head.weight", "head.bias"], BACKBONE_PREFIX) == ""


def test_statistics_and_weights_of_batch_norms_stay():
    made = network().train()
    before = {name: tensor.clone() for name, tensor in made.backbone.norm.state_dict().items()}
    made(images()).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.backbone.norm.state_dict().items())
    assert made.backbone.norm.weight.grad is None
