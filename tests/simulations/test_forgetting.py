"""The commands on a federation's life: list, leave out, forget; each wrong input is one sentence."""

import json

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file

from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from server.upload_store import UploadStore
from simulations import federation_command
from simulations.federation_command import show_federation
from simulations.report.writing import write_report

CLIENTS, CLASSES, DIM = 6, 3, 6
CODED = {"upload": "given", "encoding": "coded", "groups": 3}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 1.5
    for split, count in (("train", 240), ("test", 60)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM))
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    return f"features:{folder}"


@pytest.fixture
def simulated(dataset, in_memory, tmp_path):
    """Execute a run in memory, as fedcof simulate would; gives its folder."""

    def run(name="run", **values):
        settings = {"num_clients": CLIENTS, "partition": "iid", "keep_uploads": True, **values}
        config = RunConfig(dataset=dataset, **settings)
        append_result(tmp_path / name, in_memory(config, tmp_path / name))
        return tmp_path / name

    return run


def bits(folder):
    return {name: array.numpy().tobytes() for name, array in load_file(folder / "head.safetensors").items()}


def test_the_list_says_who_sent_what_and_what_was_made_with_it(simulated, fedcof, capsys, monkeypatch):
    monkeypatch.setattr(federation_command, "console", Console(width=200))
    folder = simulated(**CODED)
    fedcof("solve", folder, "--without", "2")
    fedcof("forget", folder, "3", "--class", "bee", "--yes")
    show_federation(folder)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("class-means.coded") == CLIENTS - 1
    assert "class-means.corrected (without some classes)" in said
    assert "6 uploads of 2" in said
    assert f"{folder}/head.safetensors (fedcof, 6 clients, " in said
    assert "(fedcof, 5 clients, without 2, " in said


@pytest.mark.parametrize("form", [{}, CODED, {"upload": "paper", "head": "ridge", "estimator": "pooled"}])
def test_a_client_that_is_forgotten_leaves_nothing_behind(simulated, fedcof, form):
    folder = simulated(**form)
    fedcof("solve", folder, "--without", "2")
    fedcof("solve", folder, "-c", "head=lda", "--only", "2", "--only", "4", "--only", "5")
    write_report(folder)
    (folder / "classes.csv").write_text("image,class_1,score_1,problem\n")
    (folder / "mine.txt").write_text("notes")
    without = bits(folder / "solved_without-2")
    before = bits(folder)
    status, message = fedcof("forget", folder, "2", "--yes")
    assert (status, message) == (0, "")
    assert bits(folder) == without != before
    (store,) = [UploadStore(folder, RunConfig.from_mapping(run.config)) for run in load_results(folder)[:1]]
    assert store.names() == ["0", "1", "3", "4", "5"]
    assert not (folder / "classes.csv").exists()
    assert (folder / "mine.txt").read_text() == "notes"
    assert not (folder / "federation.npz").exists()
    assert (folder / "report.html").exists()
    for result in load_results(folder):
        assert "2" not in result.without
        assert (folder / result.head).exists()
    assert sorted(result.clients for result in load_results(folder)) == [2, 5]
    assert not list(folder.glob("solved_*"))
    assert set(folder.rglob("head.safetensors")) == {folder / result.head for result in load_results(folder)}


@pytest.mark.parametrize("form", [{"upload": "paper"}, CODED])
def test_a_class_of_a_client_is_forgotten_and_the_others_do_not_move(simulated, fedcof, form):
    folder = simulated(**form)
    config = RunConfig.from_mapping(load_results(folder)[0].config)
    others = {name: UploadStore(folder, config).read(name) for name in "01345"}
    before = bits(folder)
    assert fedcof("forget", folder, "2", "--class", "bee", "--yes")[0] == 0
    assert bits(folder) != before
    store = UploadStore(folder, config)
    for name, sent in others.items():
        for key, array in sent.arrays.items():
            assert np.array_equal(store.read(name).arrays[key], array)
    assert sorted(set(store.read("2").arrays["class-ids"].tolist())) == [0, 2]
    (result,) = load_results(folder)
    assert result.clients == CLIENTS
    # All classes of it: nothing is left to take out, and it is as if it was not there.
    assert fedcof("forget", folder, "2", "--class", "ant", "--class", "cat", "--yes")[0] == 0
    emptied = bits(folder)
    assert fedcof("forget", folder, "2", "--yes")[0] == 0
    assert bits(folder) == emptied


def test_what_was_trained_is_removed_and_the_closed_form_is_solved(simulated, fedcof):
    folder = simulated(continue_="linear-probe", continue_rounds=2, upload="paper")
    assert (folder / "checkpoint.safetensors").exists()
    assert fedcof("forget", folder, "2", "--yes")[0] == 0
    assert [path.relative_to(folder) for path in folder.rglob("head.safetensors")] == [
        (folder / "solved" / "head.safetensors").relative_to(folder)
    ]
    assert not (folder / "checkpoint.safetensors").exists()
    assert not (folder / "best").exists() or not list((folder / "best").iterdir())
    (result,) = load_results(folder)
    assert (result.config["continue"], result.clients) == ("none", CLIENTS - 1)


def test_without_a_terminal_and_without_yes_nothing_is_removed(simulated, fedcof):
    folder = simulated()
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    status, message = fedcof("forget", folder, "2")
    assert status == 2
    assert "there is no terminal to ask in: look at them, and add --yes" in message
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(("answer", "is_left"), [("n\n", True), ("y\n", False)])
def test_in_a_terminal_it_asks(simulated, fedcof, monkeypatch, answer, is_left):
    folder = simulated()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _: answer == "y\n")
    assert fedcof("forget", folder, "2")[0] == 0
    config = RunConfig.from_mapping(load_results(folder)[0].config)
    assert ("2" in UploadStore(folder, config).names()) == is_left


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["solve", "--without", "60"], "keeps no upload of '60': did you mean 0? fedcof federation lists all 6."),
        (["solve", "--only", "x"], "keeps no upload of 'x': fedcof federation lists all 6."),
        (["solve", "--as-of", "yesterday"], "The date 'yesterday' is none: write it as 2026-03-31"),
        (["solve", "--as-of", "2026-02-30"], "The date '2026-02-30' is none"),
        (["solve", "--as-of", "2001-01-01"], "All 6 clients whose uploads"),
        (["solve", "--only", "2", "--without", "2"], "are left out, so there is nothing to solve"),
        (["solve", "-c", "groups=2"], "The key groups is decided before the uploads"),
        (["forget", "7", "--yes"], "keeps no upload of '7'"),
        (["forget", "2", "--class", "dog", "--yes"], "The run has no class 'dog': name one of ant, bee, cat."),
    ],
)
def test_wrong_input_is_one_sentence(simulated, fedcof, arguments, sentence):
    command, *rest = arguments
    status, message = fedcof(command, simulated(), *rest)
    assert status == 2
    assert sentence in message
    assert message.strip().count("\n") == 0


@pytest.mark.parametrize("command", [["federation"], ["solve"], ["forget", "2", "--yes"]])
def test_a_folder_without_uploads_is_one_sentence(simulated, fedcof, command):
    folder = simulated(keep_uploads=False)
    status, message = fedcof(command[0], folder, *command[1:])
    assert status == 2
    assert "keeps no uploads" in message
    assert "keep-uploads=true" in message


def test_a_comparison_names_the_runs_that_keep_uploads(simulated, fedcof, tmp_path):
    simulated("compared/one")
    status, message = fedcof("solve", tmp_path / "compared")
    assert status == 2
    assert "compared/one do: name one of these" in message
    assert fedcof("federation", tmp_path / "compared")[0] == 0


def test_statistics_that_mix_classes_lose_none(simulated, fedcof):
    folder = simulated(method="fed3r")
    before = bits(folder)
    status, message = fedcof("forget", folder, "2", "--class", "bee", "--yes")
    assert status == 2
    assert "mix all classes" in message
    assert bits(folder) == before
    assert fedcof("forget", folder, "2", "--yes")[0] == 0
    assert bits(folder) != before


def test_the_last_client_leaves_no_classifier(simulated, fedcof):
    folder = simulated(num_clients=1, quorum=1.0)
    assert fedcof("forget", folder, "0", "--yes")[0] == 0
    assert not list(folder.rglob("head.safetensors"))
    assert json.loads((folder / "results.json").read_text()) == []
