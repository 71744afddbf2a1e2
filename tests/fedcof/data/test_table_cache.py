"""Copies of tables lie in FEDCOF_CACHE, are listed and cleared, and a full disk is one sentence."""

import errno

import datasets
import pytest
from filelock import FileLock

from fedcof.data.datasets import load_image_dataset
from fedcof.data.table_cache import clear_tables, list_tables, refused_copy, table_cache_dir
from fedcof.errors import UserError
from tests.fedcof.images import make_images


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "elsewhere")
    (tmp_path / "tables").mkdir()
    for number, split in enumerate(("train", "test")):
        make_images(number).to_parquet(tmp_path / "tables" / f"{split}.parquet")
    return f"parquet:{tmp_path / 'tables'}"


def test_the_copy_lies_in_the_cache_and_is_read_again(tables, tmp_path):
    first = load_image_dataset(tables)
    (copy,) = list_tables(table_cache_dir())
    assert (copy.kind, copy.num_rows) == ("parquet", len(first.train) + len(first.test))
    assert copy.num_bytes > 0
    assert not (tmp_path / "elsewhere").exists()
    written = {path: path.stat().st_mtime_ns for path in copy.folder.iterdir()}
    load_image_dataset(tables)
    assert {path: path.stat().st_mtime_ns for path in copy.folder.iterdir()} == written


def test_what_is_cleared_is_copied_again(tables):
    loaded = load_image_dataset(tables)
    (copy,) = list_tables(table_cache_dir())
    assert clear_tables(table_cache_dir()) == copy.num_bytes
    assert list_tables(table_cache_dir()) == []
    # What a process has open stays readable to it.
    assert loaded.train[0]["image"].size
    assert len(load_image_dataset(tables).train) == len(loaded.train)


def test_what_another_process_is_copying_stays(tables):
    load_image_dataset(tables)
    (copy,) = list_tables(table_cache_dir())
    unfinished = copy.folder.with_name("other.incomplete")
    unfinished.mkdir()
    with FileLock(f"{copy.folder}_builder.lock"):
        assert clear_tables(table_cache_dir()) == 0
    assert list_tables(table_cache_dir()) == [copy]
    assert not unfinished.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_copy_is_a_sentence(tables, code, monkeypatch):
    def refuse(*_, **__):
        try:
            raise OSError(code, "refused", "file")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets.arrow_writer.ArrowWriter, "finalize", refuse)
    with pytest.raises(UserError, match=r"copy that cannot be kept in .*tables \(refused\).*FEDCOF_CACHE"):
        load_image_dataset(tables)
    assert list_tables(table_cache_dir()) == []


def test_a_cache_that_is_a_file_is_a_sentence(tables, tmp_path):
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(UserError, match="copy that cannot be kept in .*tables"):
        load_image_dataset(tables)


def test_a_damaged_table_is_not_taken_for_a_full_disk(tables, tmp_path):
    (tmp_path / "tables" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read"):
        load_image_dataset(tables)
    assert refused_copy("x", ValueError("damaged"), tmp_path) is None
