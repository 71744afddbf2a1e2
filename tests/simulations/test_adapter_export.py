"""A run of adapters predicts, and leaves as one of timm's own models, without anything of theirs left in it."""

import pytest
import timm
import torch
from safetensors.torch import load_file

from fedcof.embedding.images import decode_image
from fedcof.run.config import RunConfig
from fedcof.run.results import BACKBONE_FILE_NAME, append_result
from simulations.export import export
from simulations.prediction import best_run, predict


@pytest.fixture
def folder(in_memory, image_folder, tmp_path):
    config = RunConfig(
        dataset=f"folder:{image_folder}",
        backbone="test_efficientnet",
        weights="none",
        image_size=32,
        num_clients=2,
        partition="iid",
        continue_="adapters",
        continue_rounds=1,
        adapter_learning_rate=0.3,
        batch_size=4,
    )
    append_result(tmp_path / "run", in_memory(config, tmp_path / "run"))
    return tmp_path / "run"


def test_plain_timm_loads_an_adapted_run_that_predicts_the_same(folder, image_folder):
    paths = sorted((image_folder / "test").rglob("*.png"))
    run = best_run(folder)
    predictions = list(predict(folder, run, paths))
    right = [
        prediction.classes[0][0] == path.parent.name for prediction, path in zip(predictions, paths, strict=True)
    ]
    assert sum(right) / len(right) == run.accuracy
    model = timm.create_model(f"local-dir:{export(folder, 'timm')}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        scores = model(torch.stack([transform(decode_image(path)) for path in paths]))
    for found, prediction in zip(scores, predictions, strict=True):
        by_name = dict(zip(model.pretrained_cfg["label_names"], found.tolist(), strict=True))
        for name, score in prediction.classes:
            assert by_name[name] == pytest.approx(score, rel=1e-3, abs=1e-3)
    frozen = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    assert load_file(folder / BACKBONE_FILE_NAME).keys() == frozen.keys()
