"""An embedding that is interrupted goes on from what it has kept, and ends with the same bits."""

import json
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcof.embedding import unfinished_features
from fedcof.embedding.feature_cache import cached_features, clear_cache, list_cache
from fedcof.embedding.unfinished_features import UnfinishedFeatures, kept_in
from fedcof.errors import UserError
from tests.fedcof.images import NAME, NUM_IMAGES, counting_backbone, make_images

BATCH = 2


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Bytes of the three files of an entry that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    cached_features(counting_backbone(), make_images(), folder, BATCH)
    return files_of(folder)


def files_of(cache_dir):
    (entry,) = [path for path in cache_dir.iterdir() if path.is_dir()]
    assert not entry.name.endswith(".unfinished")
    assert {path.name for path in entry.iterdir()} == {"features.npy", "labels.npy", "meta.json"}
    return {path.name: path.read_bytes() for path in entry.iterdir()}


def interrupt_after(images, cache_dir, backbone=None, error=KeyboardInterrupt):
    """Embed no more than so many images; gives the folder of what is left."""
    backbone = backbone or counting_backbone()
    done = 0

    def stop(number):
        nonlocal done
        done += number
        if done >= images:
            raise error

    with pytest.raises(error):
        cached_features(backbone, make_images(), cache_dir, BATCH, progress=stop)
    (left,) = cache_dir.glob("*.unfinished")
    return left


def embed_and_hang(cache_dir, most, told):
    torch.set_num_threads(1)  # With more the last bits may be others.
    seen = 0

    def hang(number):
        nonlocal seen
        seen += number
        if seen >= most:
            told.set()
            time.sleep(3600)

    cached_features(counting_backbone(), make_images(), cache_dir, BATCH, progress=hang)


def test_who_waits_goes_on_where_a_killed_process_was(backbone, tmp_path, expected):
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    process = context.Process(target=embed_and_hang, args=(tmp_path, 0.6 * NUM_IMAGES, told))
    process.start()
    assert told.wait(240)
    seen = []
    thread = threading.Thread(
        target=cached_features, args=(backbone, make_images(), tmp_path, BATCH, "auto", seen.append)
    )
    thread.start()
    # It waits, however long, while the other is alive.
    thread.join(0.3)
    assert thread.is_alive()
    assert backbone.module.images == 0
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    thread.join(240)
    assert 0 < backbone.module.images <= 0.45 * NUM_IMAGES
    assert seen[0] == NUM_IMAGES - backbone.module.images
    assert sum(seen) == NUM_IMAGES
    assert files_of(tmp_path) == expected


@pytest.mark.parametrize("images", [1, 9, NUM_IMAGES])
def test_an_interrupted_embedding_goes_on(backbone, tmp_path, expected, images):
    left = interrupt_after(images, tmp_path)
    kept = -(-images // BATCH) * BATCH if images < NUM_IMAGES else NUM_IMAGES
    (listed,) = list_cache(tmp_path)
    assert (listed.backbone, listed.num_images, listed.num_kept, listed.complete) == (NAME, NUM_IMAGES, kept, False)
    assert f"{listed.key}.unfinished" == left.name
    cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images == NUM_IMAGES - kept
    assert files_of(tmp_path) == expected


def test_an_embedding_may_be_interrupted_again_and_again(tmp_path, expected):
    backbone = counting_backbone()
    for images in (5, 9, 15):
        interrupt_after(images, tmp_path, backbone)
    cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images == NUM_IMAGES
    assert files_of(tmp_path) == expected


def test_other_batches_go_on_from_what_is_kept(backbone, tmp_path):
    interrupt_after(6, tmp_path)
    table = cached_features(backbone, make_images(), tmp_path, 8)
    assert backbone.module.images == NUM_IMAGES - 6
    whole = cached_features(counting_backbone(), make_images(), tmp_path / "other", 8)
    np.testing.assert_allclose(table.features, whole.features, rtol=1e-5, atol=1e-5)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_a_number(left):
    flip(left / "features.npy", -5)


def flip_in_the_first_chunk(left):
    flip(left / "features.npy", 128 + 7)


def cut_features_off(left):
    content = (left / "features.npy").read_bytes()
    (left / "features.npy").write_bytes(content[: len(content) - 3])


def break_a_line(left):
    lines = (left / "chunks.jsonl").read_bytes().split(b"\n")
    lines[2] = b'{"start": "2", "stop"'
    (left / "chunks.jsonl").write_bytes(b"\n".join(lines))


def claim_the_same_rows_twice(left):
    lines = (left / "chunks.jsonl").read_text().splitlines(keepends=True)
    (left / "chunks.jsonl").write_text("".join([*lines, lines[3]]))


def claim_rows_behind_the_end(left):
    with (left / "chunks.jsonl").open("a") as file:
        file.write(json.dumps({"start": 20, "stop": 10**9, "sha256": "0"}) + "\n")


def lose_the_features(left):
    (left / "features.npy").unlink()


def say_another_shape(left):
    lines = (left / "chunks.jsonl").read_text().splitlines(keepends=True)
    first = {**json.loads(lines[0]), "shape": [NUM_IMAGES, 1]}
    (left / "chunks.jsonl").write_text(json.dumps(first) + "\n" + "".join(lines[1:]))


def empty_the_list(left):
    (left / "chunks.jsonl").write_text("")


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (flip_a_number, BATCH),
        (flip_in_the_first_chunk, BATCH),
        (cut_features_off, BATCH),
        (break_a_line, BATCH),
        (claim_the_same_rows_twice, 0),
        (claim_rows_behind_the_end, 0),
        (lose_the_features, 10),
        (say_another_shape, 10),
        (empty_the_list, 10),
    ],
)
def test_damaged_chunks_are_embedded_again(backbone, tmp_path, expected, caplog, damage, again):
    left = interrupt_after(10, tmp_path)
    damage(left)
    with caplog.at_level(logging.WARNING):
        cached_features(backbone, make_images(), tmp_path, BATCH)
    assert "damaged" in caplog.text
    assert backbone.module.images == NUM_IMAGES - 10 + again
    assert files_of(tmp_path) == expected


def tear_the_last_line(left):
    with (left / "chunks.jsonl").open("a") as file:
        file.write('{"start": 10, "st')


def write_rows_that_no_line_names(left):
    with (left / "features.npy").open("ab") as file:
        file.write(b"half a batch")


def leave_other_files(left):
    (left / ".meta.0123.json").write_text("{")
    (left / "labels.npy").write_text("half")
    flip(left / "features.npy", 3)


@pytest.mark.parametrize("trace", [tear_the_last_line, write_rows_that_no_line_names, leave_other_files])
def test_the_traces_of_a_kill_are_no_damage(backbone, tmp_path, expected, caplog, trace):
    trace(interrupt_after(10, tmp_path))
    with caplog.at_level(logging.WARNING):
        cached_features(backbone, make_images(), tmp_path, BATCH)
    assert caplog.text == ""
    assert backbone.module.images == NUM_IMAGES - 10
    assert files_of(tmp_path) == expected


def test_what_another_dataset_has_left_is_not_taken(backbone, tmp_path, expected):
    """Neither under its own name nor moved to that of the one that is asked for."""
    left = interrupt_after(10, tmp_path)
    cached_features(backbone, make_images(seed=1), tmp_path, BATCH)
    assert backbone.module.images == NUM_IMAGES
    other = interrupt_after(10, tmp_path / "own").name
    assert other == left.name
    wrong = tmp_path / "wrong"
    shutil.copytree(left, wrong / other)
    content = (wrong / other / "chunks.jsonl").read_text()
    (wrong / other / "chunks.jsonl").write_text(content.replace(other, f"another{other}"))
    cached_features(backbone, make_images(), wrong, BATCH)
    assert backbone.module.images == 2 * NUM_IMAGES
    assert files_of(wrong) == expected


def test_a_full_disk_is_one_sentence_and_leaves_what_is_whole(backbone, tmp_path, expected):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = 128 + 4 * backbone.feature_dim * 9
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"cannot be written \(.*; the 8 images embedded so far are kept"
        ) as error:
            cached_features(backbone, make_images(), tmp_path, BATCH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    embedded = backbone.module.images
    cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images - embedded == NUM_IMAGES - 8
    assert files_of(tmp_path) == expected


def test_no_room_is_said_before_anything_is_embedded_anew(backbone, tmp_path, monkeypatch):
    left = interrupt_after(10, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    needed = 4 * backbone.feature_dim * (NUM_IMAGES - 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match="do not fit on its disk; the 10 images"):
        cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images == 0
    assert kept_in(left).num_rows == 10
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images == NUM_IMAGES - 10


def test_clearing_deletes_what_is_unfinished(backbone, tmp_path):
    left = interrupt_after(10, tmp_path)
    size = sum(path.stat().st_size for path in left.iterdir())
    assert clear_cache(tmp_path) == size
    assert not left.exists()
    cached_features(backbone, make_images(), tmp_path, BATCH)
    assert backbone.module.images == NUM_IMAGES


def chunks_of(folder):
    return [json.loads(line) for line in (folder / "chunks.jsonl").read_text().splitlines()[1:]]


def test_a_kill_costs_little_of_a_large_split_or_of_a_slow_one(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(unfinished_features.time, "monotonic", lambda: now)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    with UnfinishedFeatures(tmp_path / "large", "name", (6400, 2)) as features:
        for start in range(0, 330, 10):
            features.add(start, rows)
        assert [chunk["stop"] for chunk in chunks_of(tmp_path / "large")] == [100, 200, 300]
        now = unfinished_features.MOST_SECONDS
        features.add(330, rows)
        assert features.num_kept == chunks_of(tmp_path / "large")[-1]["stop"] == 340
        features.add(600, rows)
    assert [(chunk["start"], chunk["stop"]) for chunk in chunks_of(tmp_path / "large")][-1] == (600, 610)
    with UnfinishedFeatures(tmp_path / "large", "name", (6400, 2)) as features:
        assert features.missing() == [range(340, 600), range(610, 6400)]
        assert features.bytes_missing == (6400 - 350) * 8


def test_a_chunk_is_synced_before_its_line_is_written_every_few_seconds(tmp_path, monkeypatch):
    events, now = [], 0.0
    sync, write = unfinished_features.sync_written, unfinished_features.write_all

    def note_write(file, content):
        events.append(Path(file.name).name)
        write(file, content)

    monkeypatch.setattr(unfinished_features.time, "monotonic", lambda: now)
    monkeypatch.setattr(unfinished_features, "sync_written", lambda file: (events.append("sync"), sync(file)))
    monkeypatch.setattr(unfinished_features, "write_all", note_write)
    rows = np.ones((2, 1), np.float32)
    with UnfinishedFeatures(tmp_path / "features", "name", (6, 1)) as features:
        events.clear()
        features.add(0, rows)
        assert events == ["features.npy", "chunks.jsonl"]
        now = unfinished_features.MOST_SECONDS
        features.add(2, rows)
        assert events[2:] == ["features.npy", "sync", "chunks.jsonl"]
        features.add(4, rows)
        assert events[5:] == ["features.npy", "chunks.jsonl"]
