"""Disks that are full, read-only or gone: a sentence, and nothing half-written; what is only kept may be lost."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedcof.data.partition_cache import kept_partition
from fedcof.errors import UserError, refused_by_system
from fedcof.run.config import RunConfig
from simulations import deployment, export, runtime, submission
from simulations.runtime import Connection
from tests.environments import ENVIRONMENTS, ROOT, TINY, Surroundings, run_in


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/file")


def test_a_partition_that_cannot_be_kept_is_dealt_again(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    dealt = []

    def deal():
        dealt.append(1)
        return [np.arange(4)]

    for _ in range(2):
        (part,) = kept_partition(tmp_path / "file" / "partitions", np.zeros(4, np.int64), "settings", deal)
        assert part.tolist() == [0, 1, 2, 3]
    assert len(dealt) == 2
    assert "cannot be kept" in caplog.text


def test_notes_of_earlier_runs_may_be_lost(tmp_path, monkeypatch):
    from fedcof.data import problem

    config = RunConfig(backbone="test_efficientnet", weights="none", image_size=32)
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    problem.split_features(config, "train")
    (tmp_path / "cache" / "problems").write_text("a file in the folder's place")
    problem.note_problem(config, tmp_path / "notes")
    assert len(list((tmp_path / "notes").iterdir())) == 1


def test_the_server_passes_on_what_its_disk_refuses(tmp_path, monkeypatch):
    from flwr.app import Context, RecordDict

    from server import app

    monkeypatch.setattr(app, "execute", full)
    monkeypatch.setattr(app, "_federation", lambda *_: None)
    config = RunConfig(output=str(tmp_path))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config.to_mapping())
    with pytest.raises(UserError, match="No space left on device"):
        app.main(None, context)
    assert "/full/file" in (tmp_path / app.FAILURE_FILE_NAME).read_text(encoding="utf-8")
    monkeypatch.setattr(app, "write_whole", full)
    with pytest.raises(UserError, match="No space left on device"):
        app.main(None, context)


def test_a_federation_that_does_not_fit_leaves_nothing_of_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    written = []

    def save(image, path):
        if len(written) == 500:
            full()
        written.append(path)
        path.touch()

    monkeypatch.setattr("PIL.Image.Image.save", save)
    config = RunConfig(num_clients=3)
    with pytest.raises(OSError, match="No space left"):
        deployment.deploy_local(config, 3, tmp_path / "run", print)
    assert len(written) == 500
    assert not (tmp_path / "run" / "nodes").exists()
    assert not (tmp_path / "run" / "test").exists()


def test_a_model_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    def save(module, folder, **_):
        (Path(folder) / "model.safetensors").write_text("half")
        full()

    (tmp_path / "model.safetensors").write_text("whole")
    monkeypatch.setattr(export, "save_for_hf", save)
    module = __import__("torch").nn.Linear(1, 1)
    with pytest.raises(OSError, match="No space left"):
        export._write_timm(export.Exported(module, (3, 8, 8), {}, ("a",)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_text() == "whole"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a limit on the size of files")
def test_a_classifier_that_does_not_fit_is_named(tmp_path):
    code = (
        "import resource, signal, torch; from fedcof import LinearClassifier\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "classifier = LinearClassifier(torch.zeros(9, 99), torch.zeros(9), torch.ones(9, dtype=torch.bool))\n"
        "try:\n    classifier.save('head.safetensors')\nexcept OSError as error:\n    print(error.filename)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "head.safetensors\n"
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_says_without_a_file_is_a_sentence_too():
    said = str(refused_by_system(FileNotFoundError(errno.ENOENT, "No usable temporary directory found")))
    assert said.startswith("The operating system refused (No usable temporary directory found)")
    assert "'" not in str(refused_by_system(OSError(errno.EIO, "x", b"/disk/f")))


@pytest.mark.parametrize("ended", ["finished:completed", "finished:failed"])
def test_how_a_run_ended_is_read_beside_any_warnings(ended, tmp_path, monkeypatch):
    commands = tmp_path / "commands"
    commands.mkdir()
    answer = f'{{"runs": [{{"status": "{ended}", "status-details": "so"}}]}}'
    program = (
        f"#!{sys.executable}\nimport sys\nprint('DeprecationWarning: old', file=sys.stderr)\nprint({answer!r})\n"
    )
    (commands / "flwr").write_text(program)
    (commands / "flwr").chmod(0o755)
    monkeypatch.setattr(runtime, "_command_path", lambda: f"{commands}{os.pathsep}{os.environ['PATH']}")
    connection = Connection("mine", "127.0.0.1:9", tmp_path, runtime.flower_environment(tmp_path))
    connection.prepare()
    assert submission._last_status(connection) == (ended, "so")


def test_what_is_no_answer_is_quoted(tmp_path, monkeypatch):
    (tmp_path / "flwr").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such thing')\n")
    (tmp_path / "flwr").chmod(0o755)
    monkeypatch.setattr(runtime, "_command_path", lambda: str(tmp_path))
    connection = Connection("mine", "127.0.0.1:9", tmp_path, runtime.flower_environment(tmp_path))
    connection.prepare()
    assert submission._last_status(connection) == (
        "",
        "the SuperLink did not tell how it ended but said 'no such thing'",
    )


def can_mount():
    tried = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.flower
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_a_digits_run_on_a_small_cache_is_a_sentence(tmp_path):
    if not can_mount():
        pytest.skip("no disk may be mounted here")
    (tmp_path / "small").mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
    before = ["unshare", "-rm", "sh", "-c", mount, str(tmp_path / "small")]
    surroundings = Surroundings(ENVIRONMENTS["as it is"].variables, before=before)
    arguments = ["simulate", "digits", *TINY, "--output", str(tmp_path / "run")]
    status, _, errors = run_in(surroundings, tmp_path, *arguments, cache=tmp_path / "small")
    assert status == 2, errors
    assert "Traceback" not in errors
    assert "Bus error" not in errors
    assert errors.count("fedcof: ") == 1
    assert str(tmp_path / "small") in errors
