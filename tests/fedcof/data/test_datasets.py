"""Datasets by name: what comes out of each source, and one sentence for whatever is wrong with it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import datasets
import httpx
import huggingface_hub
import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, NamedSplit, Value
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from fedcof import UserError
from fedcof.data.datasets import load_image_dataset, shared_dataset
from fedcof.embedding.images import rgb_images
from tests.fedcof.data.zoo import PNG, damaged_within

COLOURS = ["red", "green", "blue"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))


def picture(colour="red", size=(6, 4)):
    return PIL.Image.new("RGB", size, colour)


def columns(labels, **others):
    return {"image": [picture(COLOURS[row % 3]) for row in range(len(labels))], "label": labels, **others}


def write_parquet(folder, train, test, **types):
    folder.mkdir(parents=True, exist_ok=True)
    for split, values in (("train", train), ("test", test)):
        features = Features({name: types.get(name, Value("int64")) for name in values})
        Dataset.from_dict(values, features=features).to_parquet(folder / f"{split}-00000.parquet")
    return f"parquet:{folder}"


def write_folder(folder, classes=("cat", "dog"), images=2):
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for image in range(images):
                picture(COLOURS[number]).save(folder / split / name / f"{image}.png")
    return f"folder:{folder}"


def sentence_of(name, **wanted):
    with pytest.raises(UserError) as error:
        load_image_dataset(name, **wanted)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_digits_are_split_by_class_into_images_with_the_full_range_of_grey():
    digits = load_image_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    shares = np.bincount(digits.labels("test")) / np.bincount(digits.labels("train"))
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    image = digits.train[0]["image"]
    assert (image.mode, image.size, image.getextrema()[1]) == ("L", (8, 8), 255)
    assert digits.labels("train").dtype == np.int64


def test_digits_are_the_same_bytes_in_every_process():
    program = (
        "import hashlib; import datasets as d; from fedcof.data.datasets import load_image_dataset\n"
        "s = load_image_dataset('digits').train\n"
        "t = s.cast_column('image', d.Image(decode=False)); print(hashlib.sha256(repr(t[:]).encode()).hexdigest())"
    )
    here = load_image_dataset("digits").train.cast_column("image", Image(decode=False))
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(repr(here[:]).encode()).hexdigest()


def test_shared_dataset_is_loaded_once():
    assert shared_dataset("digits") is shared_dataset("digits")


def test_parquet_keeps_other_columns_and_names_whole_numbers_by_themselves(tmp_path):
    name = write_parquet(
        tmp_path / "x", columns([0, 2, 1, 2], user_id=[7, 7, 8, 8]), columns([1], user_id=[9]), image=Image()
    )
    loaded = load_image_dataset(name)
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.labels("train").tolist() == [0, 2, 1, 2]
    assert loaded.labels("test").tolist() == [1]
    assert loaded.train["user_id"][:] == [7, 7, 8, 8]
    assert loaded.train[1]["image"].getpixel((0, 0)) == (0, 128, 0)


def test_labels_are_read_without_decoding_images(tmp_path):
    values = {"image": [{"bytes": damaged_within(), "path": None}] * 3, "label": [0, 1, 0]}
    name = write_parquet(tmp_path, values, values, image=Image(decode=False))
    assert load_image_dataset(name).labels("train").tolist() == [0, 1, 0]


def test_labels_follow_a_selection_of_rows(tmp_path):
    loaded = load_image_dataset("digits")
    chosen = type(loaded)("part", loaded.train.select([5, 3]), loaded.test, loaded.class_names)
    assert chosen.labels("train").tolist() == loaded.labels("train")[[5, 3]].tolist()


def test_parquet_without_the_librarys_metadata_and_in_a_folder_with_a_pattern_in_its_name(tmp_path):
    raw = [{"bytes": PNG, "path": "a.png"}] * 2
    struct = {"bytes": Value("binary"), "path": Value("string")}
    name = write_parquet(
        tmp_path / "a[b]*c", {"img": raw, "label": [0, 1]}, {"img": raw, "label": [1, 0]}, img=struct
    )
    assert load_image_dataset(name).train.features["image"] == Image()


def test_changed_files_are_read_anew(tmp_path):
    name = write_parquet(tmp_path, columns([0, 1]), columns([0]), image=Image())
    assert len(load_image_dataset(name).train) == 2
    write_parquet(tmp_path, columns([0, 1, 1]), columns([0]), image=Image())
    assert len(load_image_dataset(name).train) == 3


def test_the_fine_label_goes_before_the_coarse_one(tmp_path):
    coarse, fine = ClassLabel(names=["animal", "plant"]), ClassLabel(names=["oak", "cat", "fir"])
    values = {"img": [picture()] * 2, "coarse_label": [1, 0], "fine_label": [2, 1]}
    name = write_parquet(tmp_path, values, values, img=Image(), coarse_label=coarse, fine_label=fine)
    loaded = load_image_dataset(name)
    assert loaded.class_names == ("oak", "cat", "fir")
    assert loaded.labels("test").tolist() == [2, 1]
    assert load_image_dataset(name, label_column="coarse_label").class_names == ("animal", "plant")


def test_a_wanted_column_goes_before_one_that_is_called_label(tmp_path):
    values = columns([1, 0], breed=[0, 1])
    name = write_parquet(tmp_path, values, values, image=Image())
    assert load_image_dataset(name, label_column="breed").labels("train").tolist() == [0, 1]


def test_text_labels_are_numbered_alike_in_both_splits(tmp_path):
    name = write_parquet(
        tmp_path, columns(["dog", "ant", "cat"]), columns(["cat", "dog"]), image=Image(), label=Value("string")
    )
    loaded = load_image_dataset(name)
    assert loaded.class_names == ("ant", "cat", "dog")
    assert loaded.labels("train").tolist() == [2, 0, 1]
    assert loaded.labels("test").tolist() == [1, 2]
    assert loaded.train[0]["label"] == 2


def test_folder_takes_classes_from_the_folders_alone(tmp_path):
    loaded = load_image_dataset(write_folder(tmp_path / "train data", ("cat", "test_tube", "valid")))
    assert loaded.class_names == ("cat", "test_tube", "valid")
    assert loaded.labels("train").tolist() == loaded.labels("test").tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.train[2]["image"].getpixel((0, 0)) == (0, 128, 0)


def test_the_librarys_settings_stay_as_they_were():
    before = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    load_image_dataset("digits")
    assert (datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()) == before


def test_loading_writes_nothing_to_the_terminal(tmp_path, capfd):
    load_image_dataset(write_folder(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    for split in ("train", "test"):
        (tmp_path / "b" / f"{split}.parquet").write_bytes(b"nonsense")
    assert "cannot be read (Parquet magic bytes not found" in sentence_of(f"parquet:{tmp_path / 'b'}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["", "mnist", "digits:all", "parquet:", "zip:a", "folder"])
def test_an_unknown_name_is_answered_with_those_there_are(name):
    sentence = sentence_of(name)
    assert repr(name) in sentence
    assert "digits, parquet:DIR, folder:DIR, hub:OWNER/NAME" in sentence


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_a_folder_that_is_missing_or_empty_or_half_there(tmp_path, kind):
    assert "There is no folder" in sentence_of(f"{kind}:{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    assert "is empty" in sentence_of(f"{kind}:{tmp_path / 'empty'}")
    half = tmp_path / "half"
    name = (
        write_folder(half) if kind == "folder" else write_parquet(half, columns([0]), columns([0]), image=Image())
    )
    next(half.glob("test*")).rename(tmp_path / "elsewhere")
    assert "put the test split's" in sentence_of(name)


def test_a_split_without_rows(tmp_path):
    struct = {"bytes": Value("binary"), "path": Value("string")}
    rows = {"image": [{"bytes": b"", "path": "a.png"}] * 2, "label": [0, 1]}
    name = write_parquet(tmp_path, rows, {"image": [], "label": []}, image=struct)
    assert 'cannot be read (Instruction "test" corresponds to no data!)' in sentence_of(name)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ([0, -1], [0], "In the train split .* there is the label -1"),
        ([0, 1], [-1], "In the test split .* there is the label -1"),
        ([0, 1], [2], "test split .* has the class '2', which the train split lacks"),
        ([0, None], [0], "1 rows of the train split have no label"),
        (["a", "b"], ["c"], "has the class 'c', which the train split lacks"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, train, test, sentence):
    label = Value("string" if isinstance(train[0], str) else "int64")
    name = write_parquet(tmp_path, columns(train), columns(test), image=Image(), label=label)
    with pytest.raises(UserError, match=sentence):
        load_image_dataset(name)


def test_columns_that_cannot_be_told(tmp_path):
    two = {"left": [picture()], "right": [picture()], "label": [0], "target": [0]}
    name = write_parquet(tmp_path / "two", two, two, left=Image(), right=Image())
    assert "may be the image, left, right: set image-column" in sentence_of(name)
    assert "may be the label, label, target: set label-column" in sentence_of(name, image_column="left")
    assert "Unknown image-column 'middle': choose one of left, right" in sentence_of(name, image_column="middle")
    assert "target of" in sentence_of(name, image_column="target")
    assert "right of" in sentence_of(name, image_column="left", label_column="right")
    none = {"text": ["a"], "number": [0]}
    name = write_parquet(tmp_path / "none", none, none, text=Value("string"))
    assert "no column that is clearly the image, only text, number" in sentence_of(name)


def test_rgb_images_are_decoded_in_the_order_asked_for():
    images = rgb_images(load_image_dataset("digits").train, np.array([3, 0]))
    assert [image.mode for image in images] == ["RGB", "RGB"]
    digits = load_image_dataset("digits").train
    np.testing.assert_array_equal(np.asarray(images[0])[..., 1], np.asarray(digits[3]["image"]))
    assert rgb_images(digits, []) == []


def test_sixteen_bit_grey_is_scaled_and_not_cut_off():
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    split = Dataset.from_dict({"image": [PIL.Image.fromarray(values)]}, features=Features({"image": Image()}))
    assert np.asarray(rgb_images(split, [0])[0])[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("damage", ["nonsense", "cut off", "gone"])
def test_an_unreadable_file_is_named(tmp_path, damage):
    loaded = load_image_dataset(write_folder(tmp_path / "pictures"))
    victim = tmp_path / "pictures" / "train" / "dog" / "1.png"
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(b"nonsense" if damage == "nonsense" else victim.read_bytes()[:50])
    assert len(rgb_images(loaded.train, [0, 1, 2])) == 3
    with pytest.raises(UserError, match=r"dog.1\.png of the train split cannot be read") as error:
        rgb_images(loaded.train, range(4))
    assert "\n" not in str(error.value)


def test_an_unreadable_or_missing_image_without_a_file_is_named_by_its_row():
    values = {"image": [{"bytes": b"no image", "path": None}, None], "label": [0, 1]}
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    train = Dataset.from_dict(values, features=features, split=NamedSplit("train"))
    with pytest.raises(UserError, match="row 0 of 2 of the train split cannot be read"):
        rgb_images(train, [0])
    with pytest.raises(UserError, match="row 1 of 2 of the train split is missing"):
        rgb_images(train, [1])


def test_a_hub_that_cannot_be_reached(tmp_path):
    program = (
        "from fedcof.data.datasets import *\nfrom fedcof.errors import UserError\n"
        "try: load_image_dataset('hub:a/b')\nexcept UserError as e: print(e)"
    )
    closed_port = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **closed_port},
    )
    assert "could not be reached for a/b" in ended.stdout
    assert "parquet:DIR or folder:DIR, which work offline." in ended.stdout
    assert "Retry" not in ended.stderr


def test_a_hub_that_may_not_be_asked_and_left_no_copy(monkeypatch):
    def stay_offline(self, name, timeout):
        raise OfflineModeIsEnabled("offline mode is enabled")

    def find_no_copy(path, data_files):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", stay_offline)
    monkeypatch.setattr(datasets, "load_dataset", find_no_copy)
    assert "could not be reached for a/b" in sentence_of("hub:a/b")


def test_a_hub_dataset_that_is_not_there(monkeypatch):
    def refuse(self, name, timeout):
        response = httpx.Response(401, request=httpx.Request("GET", "http://hub"))
        raise RepositoryNotFoundError("401 Client Error", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    assert "The hub has no dataset a/b that you may read" in sentence_of("hub:a/b")
    assert "give its owner and name" in sentence_of("hub:../b/c")


def test_a_hub_dataset_is_tested_on_validation_where_it_has_no_test(monkeypatch):
    part = Dataset.from_dict(columns([0, 1]), features=Features({"image": Image(), "label": Value("int64")}))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    splits = {"train": part, "validation": part.select([1])}
    monkeypatch.setattr(datasets, "load_dataset", lambda path, data_files: splits)
    assert load_image_dataset("hub:a/b").labels("test").tolist() == [1]
    del splits["validation"]
    assert "no test split" in sentence_of("hub:a/b")


def test_cifar_100_has_its_fine_classes():
    folder = os.environ.get("FEDCOF_CIFAR100", "")
    if not folder:
        pytest.skip("FEDCOF_CIFAR100 names no folder with CIFAR-100's train.parquet and test.parquet")
    cifar = load_image_dataset(f"parquet:{Path(folder)}")
    assert (len(cifar.train), len(cifar.test), cifar.num_classes) == (50_000, 10_000, 100)
    assert cifar.class_names[:2] == ("apple", "aquarium_fish")
    assert (np.bincount(cifar.labels("train")) == 500).all()
    assert rgb_images(cifar.test, [0])[0].size == (32, 32)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 0, 0], Value("int64")),
        ([0, 0, 0], ClassLabel(names=["cat", "dog"])),
        (["cat", "cat", "cat"], Value("string")),
    ],
)
def test_a_table_of_one_class_is_said_to_be_one(tmp_path, labels, kind):
    name = write_parquet(tmp_path / "tables", columns(labels), columns(labels[:1]), image=Image(), label=kind)
    called = "0" if kind == Value("int64") else "cat"
    assert f"are of one class, {called!r}, but a classifier needs two" in sentence_of(name)
