"""The paper's tables as scenarios: one command each, on the hub's layout, with the paper's figures where known."""

from dataclasses import replace

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from rich.console import Console

from fedcof import UserError
from fedcof.data import datasets as data_sets
from fedcof.embedding.backbones import shared_backbone
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult, append_result
from server.run import execute
from simulations.comparison import comparison_runs
from simulations.display import comparison_table, results_table
from simulations.published import paper_accuracy
from simulations.report.writing import write_report
from simulations.scenario import DEFAULT_METHODS, compared, configure, scenario_names, scenario_values
from tests.simulations.report.test_report import page_rows

PAPER = [name for name in scenario_names() if name.startswith("paper-")]
METHODS = ["fedncm", "fed3r", "fedcof", "oracle"]


def runs_of(scenario, *settings):
    runs = comparison_runs(scenario_values(scenario, list(settings)), *compared(scenario))
    return list(runs.values())


def result_of(config, accuracy=0.5, classes=100):
    names = [f"class {number}" for number in range(classes)]
    return RunResult(
        config.method.name, config.data.seed, accuracy, 1, 1, 1, 0, 1.0, config.to_mapping(), class_names=names
    )


def test_there_is_one_for_each_dataset_and_backbone_of_the_paper():
    assert len(PAPER) == 15
    for name in PAPER:
        runs = runs_of(name)
        assert {run.method.name for run in runs} == set(METHODS)
        assert len(runs) == (4 if "inaturalist" in name else 20)
        fedcof = next(run for run in runs if run.method.name == "fedcof")
        assert fedcof.method.shrinkage == (0.1 if "mobilenet" in name else 1.0)
        assert (fedcof.method.estimator, fedcof.method.head, fedcof.embedding.image_size) == ("paper", "ridge", 224)


@pytest.mark.parametrize(
    ("backbone", "figures"),
    [
        ("squeezenet", [0.415, 0.569, 0.561, 0.564]),
        ("mobilenetv2", [0.556, 0.627, 0.635, 0.639]),
        ("vit-b16", [0.552, 0.739, 0.732, 0.738]),
    ],
)
def test_the_papers_figure_stands_beside_a_run_of_its_setting_alone(backbone, figures):
    scenario = f"paper-cifar100-{backbone}"
    runs = runs_of(scenario, "dataset=parquet:elsewhere", "weights=mine.pth", "label-column=fine_label")
    found = {run.method.name: paper_accuracy(result_of(run)) for run in runs}
    assert [found[method] for method in METHODS] == pytest.approx(figures)
    assert paper_accuracy(result_of(runs[2], classes=10)) is None
    for setting in (
        "alpha=0.5",
        "shrinkage=0.5",
        "weights=none",
        "preprocessing=model",
        "groups=2",
        "num-clients=10",
    ):
        (run,) = (run for run in runs_of(scenario, setting) if run.method.name == "fedcof" and not run.data.seed)
        assert paper_accuracy(result_of(run)) is None, setting
    assert paper_accuracy(result_of(RunConfig())) is None


def test_the_papers_figure_is_in_tables_and_report_where_there_is_one(tmp_path):
    results = [result_of(run) for run in runs_of("paper-cifar100-squeezenet")]
    for result in results:
        append_result(tmp_path, replace(result, head=f"{result.method}-{result.seed}/head.safetensors"))
    rows = page_rows(write_report(tmp_path).read_text())
    assert {row["method"]: row["paper, %"] for row in rows} == {
        "fedncm": "41.5",
        "fed3r": "56.9",
        "fedcof": "56.1",
        "oracle": "56.4",
    }
    for table in (results_table, comparison_table):
        console = Console(width=80, record=True)
        console.print(table(results[:4], []))
        text = console.export_text()
        assert "paper %" in text
        assert "41.50" in text
        console.print(table([result_of(RunConfig())], []))
        assert "paper" not in console.export_text()


def test_what_a_scenario_compares_is_its_own_and_else_the_usual(tmp_path):
    assert compared("paper-cub-vit-b16") == ([f"{method}:paper" for method in METHODS], ["0", "1", "2", "3", "4"])
    assert compared("digits") == (DEFAULT_METHODS, ["0"])
    (tmp_path / "mine.toml").write_text("num-clients = 3\n[compare]\nseeds = [7]\n")
    assert compared(str(tmp_path / "mine.toml")) == (DEFAULT_METHODS, ["7"])
    assert configure(str(tmp_path / "mine.toml"), []).data.num_clients == 3
    for table in ("[compare]\nseed = [7]", "[compare]\nseeds = 7", "compare = 3"):
        (tmp_path / "mine.toml").write_text(f"{table}\n")
        with pytest.raises(UserError, match="holds the lists methods and seeds alone"):
            compared(str(tmp_path / "mine.toml"))


def test_a_scenario_runs_on_files_in_the_hubs_layout(tmp_path, monkeypatch):
    """CIFAR-100's columns, and SqueezeNet's weights where torch keeps what it has fetched."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        pixels = generator.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        columns = {
            "img": [Image.fromarray(image) for image in pixels],
            "fine_label": list(range(3)) * 4,
            "coarse_label": [0] * 12,
        }
        features = {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["ant", "bee", "cat"]),
            "coarse_label": datasets.ClassLabel(names=["animal", "plant"]),
        }
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        (tmp_path / "cifar100").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / f"cifar100/{split}-00000-of-00001.parquet")
    load = datasets.load_dataset
    files = {split: str(tmp_path / f"cifar100/{split}-*.parquet") for split in ("train", "test")}
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda path, data_files: load("parquet", data_files=files, cache_dir=str(tmp_path / "hub")),
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    weights = torchvision.models.get_model_weights("squeezenet1_1")["IMAGENET1K_V1"]
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save(state, tmp_path / "torch/hub/checkpoints" / weights.url.rpartition("/")[2])
    data_sets.shared_dataset.cache_clear()
    shared_backbone.cache_clear()
    config = configure("paper-cifar100-squeezenet", ["image-size=48", "num-clients=2", "alpha=10"])
    config = config.replaced(method="oracle", estimator="per-class", upload="best")
    result = execute(None, config, tmp_path, "run")
    shared_backbone.cache_clear()
    data_sets.shared_dataset.cache_clear()
    assert result.class_names == ["ant", "bee", "cat"]
    assert 0 <= result.accuracy <= 1
