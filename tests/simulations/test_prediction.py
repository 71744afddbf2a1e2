"""Prediction and export prepare images as training does, whatever kind of file they come in."""

import json
import re
from dataclasses import replace

import datasets
import numpy as np
import PIL.Image
import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from fedcof import ClassMeans, FedCOF, LinearClassifier
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.features import extract_features
from fedcof.embedding.images import DECODING, decode_image, rgb_images
from fedcof.heads.regularised import RegularisedDiscriminant
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult, append_result
from simulations import prediction
from simulations.export import export
from simulations.prediction import BATCH_SIZE, best_run, predict

NAMES = ("ant", "bee", "cat")


def saved_run(folder, backbone="test_efficientnet", image_size=32, transform="none"):
    """Save a run with a random classifier; gives the run, its classifier and its backbone."""
    config = {"backbone": backbone, "weights": "none", "image-size": image_size, "feature-transform": transform}
    run = RunResult("fedcof", 0, 0.5, 1, 1, 1, 0, 1.0, RunConfig.from_mapping(config).to_mapping())
    loaded = load_backbone(backbone, image_size, "none")
    weight = torch.randn(3, loaded.feature_dim, generator=torch.Generator().manual_seed(0))
    head = LinearClassifier(weight, torch.arange(3.0), torch.ones(3, dtype=torch.bool), NAMES)
    append_result(folder, run)
    head.save(folder / run.head)
    return run, head, loaded


def odd_images(folder):
    """Write a photo that lies on its side, deep and floating-point grey, colours that are transparent."""
    generator = np.random.default_rng(0)
    photo = generator.integers(0, 256, (40, 70, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    clear = np.dstack([photo, generator.integers(0, 256, (40, 70), dtype=np.uint8)])
    images = {
        "photo.jpg": PIL.Image.fromarray(photo),
        "upright.jpg": PIL.Image.fromarray(photo),
        "sixteen.png": PIL.Image.fromarray(generator.integers(0, 65536, (50, 40)).astype(np.uint16)),
        "integers.tif": PIL.Image.fromarray(np.full((50, 40), 200, np.int32)),
        "shares.tif": PIL.Image.fromarray(generator.random((50, 40)).astype(np.float32)),
        "clear.png": PIL.Image.fromarray(clear),
        "cmyk.jpg": PIL.Image.frombytes("CMYK", (40, 70), clear.tobytes()),
        "palette.gif": PIL.Image.fromarray(photo).convert("P"),
        "line.png": PIL.Image.fromarray(photo[..., 0] > 128),
    }
    for name, image in images.items():
        image.save(folder / name, **({"exif": exif} if name in ("photo.jpg", "integers.tif") else {}))
    return [folder / name for name in images]


def table_of(paths):
    return datasets.Dataset.from_dict(
        {"image": [str(path) for path in paths], "label": [0] * len(paths)},
        datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )


class Seeing(nn.Module):
    """Keeps the images that it passes on."""

    def __init__(self, module):
        super().__init__()
        self.module, self.seen = module, []

    def forward(self, images):
        self.seen.append(images)
        return self.module(images)


def test_the_backbone_sees_in_prediction_what_it_sees_in_training(tmp_path, monkeypatch):
    run, _, backbone = saved_run(tmp_path)
    paths = odd_images(tmp_path)
    seeing = Seeing(backbone.module)
    monkeypatch.setattr(prediction, "backbone_of_run", lambda *_: replace(backbone, module=seeing))
    list(predict(tmp_path, run, paths))
    predicted = torch.cat(seeing.seen)
    seeing.seen.clear()
    extract_features(replace(backbone, module=seeing), table_of(paths), precision="float32", device="cpu")
    assert torch.equal(predicted, seeing.seen[0])
    photo, upright = predicted[:2]
    assert not torch.equal(photo, upright)


@pytest.mark.parametrize("transform", ["none", "power"])
def test_prediction_scores_the_features_of_training(tmp_path, transform):
    run, head, backbone = saved_run(tmp_path, transform=transform)
    paths = odd_images(tmp_path)
    features = extract_features(backbone, table_of(paths), precision="float32", device="cpu")
    scores = head.scores(features.sign() * features.abs().sqrt() if transform == "power" else features)
    for found, expected in zip(predict(tmp_path, run, paths), scores, strict=True):
        assert [name for name, _ in found.classes] == [NAMES[i] for i in expected.argsort(descending=True)]
        assert dict(found.classes) == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), rel=1e-4)


@pytest.mark.parametrize("damage", ["nonsense", "cut off", "gone", "too large", "no grey"])
def test_an_image_that_cannot_be_read_is_one_sentence(tmp_path, damage, monkeypatch):
    run, *_ = saved_run(tmp_path)
    paths = odd_images(tmp_path)
    if damage == "gone":
        paths[2].unlink()
    elif damage == "too large":
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 700)
    elif damage == "no grey":
        PIL.Image.fromarray(np.full((4, 4), -5, np.int32)).save(paths[2], format="TIFF")
    else:
        paths[2].write_bytes(b"nonsense" if damage == "nonsense" else paths[2].read_bytes()[:100])
    bad, *others = predict(tmp_path, run, paths[2:])
    assert re.search(r"The image .*sixteen\.png cannot be read \(.+\): replace it", bad.problem)
    assert "\n" not in bad.problem
    assert not bad.classes
    if damage != "too large":
        assert all(other.classes and not other.problem for other in others)


def test_no_more_than_a_batch_is_in_memory(tmp_path, monkeypatch):
    run, _, backbone = saved_run(tmp_path)
    paths = odd_images(tmp_path) * 5
    paths[20] = tmp_path / "gone.png"
    seeing, decoded = Seeing(backbone.module), []
    monkeypatch.setattr(prediction, "backbone_of_run", lambda *_: replace(backbone, module=seeing))
    monkeypatch.setattr(prediction, "decode_image", lambda path: decoded.append(path) or decode_image(path))
    predictions = predict(tmp_path, run, paths)
    next(predictions)
    assert len(decoded) == BATCH_SIZE < len(paths) / 2
    assert [found.image for found in predictions] == paths[1:]
    assert [len(batch) for batch in seeing.seen] == [8, 8, 7, 8, 8, 5]
    for found in predict(tmp_path, run, paths[:20] + paths[21:]):
        (alone,) = predict(tmp_path, run, [found.image])
        assert dict(found.classes) == pytest.approx(dict(alone.classes), rel=1e-4)


# Of 32 and 48 px, and the model's own size; with position embeddings; with another size and crop for testing.
EXPORTED = [("test_efficientnet", 32), ("test_vit", 48), ("test_resnet", 0), ("resnet18", 64)]


@pytest.mark.parametrize(("name", "image_size"), EXPORTED)
def test_plain_timm_prepares_decoded_images_as_training_does(tmp_path, name, image_size):
    run, _, backbone = saved_run(tmp_path, name, image_size)
    paths = odd_images(tmp_path)
    export(tmp_path, "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    trained = [backbone.transform(image) for image in rgb_images(table_of(paths), range(len(paths)))]
    for tested in (False, True):
        transform = create_transform(**resolve_model_data_config(model, use_test_size=tested), is_training=False)
        for path, expected in zip(paths, trained, strict=True):
            assert torch.equal(transform(decode_image(path)), expected)
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["decoding"] == DECODING
    with torch.inference_mode():
        scores = model(torch.stack(trained))
    for found, expected in zip(predict(tmp_path, run, paths), scores, strict=True):
        assert [score for _, score in found.classes] == pytest.approx(sorted(expected.tolist())[::-1], rel=1e-3)
        assert found.classes[0][0] == NAMES[int(expected.argmax())]


def test_an_onnx_file_says_how_to_prepare_images(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, _, backbone = saved_run(tmp_path)
    paths = odd_images(tmp_path)
    export(tmp_path, "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    described = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert described.pop("decoding") == DECODING
    assert tuple(described.pop("class_names")) == NAMES
    transform = create_transform(**described, is_training=False)
    images = torch.stack([transform(decode_image(path)) for path in paths])
    expected = torch.stack([backbone.transform(image) for image in rgb_images(table_of(paths), range(len(paths)))])
    assert torch.equal(images, expected)
    (scores,) = session.run(["scores"], {"images": images.numpy()})
    for found, row in zip(predict(tmp_path, best_run(tmp_path), paths), scores, strict=True):
        assert dict(found.classes) == pytest.approx(dict(zip(NAMES, row.tolist(), strict=True)), rel=1e-3, abs=1e-3)


def quadratic_run(folder, transform):
    """Save a run with a quadratic classifier of random class means, one class of which has a single row."""
    backbone = load_backbone("test_efficientnet", 32, "none")
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 1] * 20 + [2])
    rows = torch.rand(len(labels), backbone.feature_dim, generator=generator) * (1 + labels[:, None])
    aggregator = FedCOF(4, backbone.feature_dim, head=RegularisedDiscriminant(0.5, 3))
    aggregator.add(ClassMeans(labels, torch.full((len(labels),), 5), rows))
    config = RunConfig(
        backbone="test_efficientnet", weights="none", image_size=32, head="quadratic", feature_transform=transform
    )
    run = RunResult("fedcof", 0, 0.5, 1, 1, 1, 0, 1.0, config.to_mapping())
    append_result(folder, run)
    aggregator.solve().named((*NAMES, "emu")).save(folder / run.head)
    return run, backbone


@pytest.mark.parametrize("transform", ["none", "power"])
def test_a_quadratic_head_leaves_with_its_backbone(tmp_path, transform):
    onnxruntime = pytest.importorskip("onnxruntime")
    run, backbone = quadratic_run(tmp_path, transform)
    paths = odd_images(tmp_path)
    export(tmp_path, "onnx")
    export(tmp_path, "timm")
    images = torch.stack([backbone.transform(image) for image in rgb_images(table_of(paths), range(len(paths)))])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (of_onnx,) = session.run(["scores"], {"images": images.numpy()})
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    head = torch.export.load(tmp_path / "timm" / "head.pt2").module()
    with torch.inference_mode():
        of_timm = head(model(images)).numpy()
    found = [dict(prediction.classes) for prediction in predict(tmp_path, run, paths)]
    scale = max(abs(score) for scores in found for score in scores.values())
    for scores in (of_onnx, of_timm):
        assert (scores[:, 3] < -1e29).all()
        for row, ours in zip(scores.tolist(), found, strict=True):
            assert dict(zip(NAMES, row, strict=False)) == pytest.approx(ours, abs=1e-4 * scale)
