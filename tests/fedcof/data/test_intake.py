"""Nothing is left out silently: what lies on disk is taken, or listed with a reason, for every form of dataset."""

import csv
import io
import os
import tempfile
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data import inspection
from fedcof.data.datasets import load_image_dataset
from fedcof.data.intake import BadImagesError, LeftOut, csv_of
from fedcof.data.node_data import read_node_images
from fedcof.embedding import image_check
from fedcof.embedding.flaws import Flaw, Kind
from fedcof.embedding.image_check import flaw_of
from fedcof.embedding.images import decode_image
from tests.fedcof.data.zoo import (
    BAD,
    CLASSES,
    FILES,
    JPEG,
    PNG,
    SYSTEM_FOLDERS,
    TAKEN,
    damaged_within,
    encoded,
    files_on_disk,
    png_of_size,
    write,
)

NAMES = ("ant", "bee")


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    caches = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("FEDCOF_CACHE", str(caches))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(caches / "hugging-face"))


def dataset_folder(folder, classes=NAMES):
    """A folder of one image a class and split."""
    for split in ("train", "test"):
        for name in classes:
            write(folder / split / name, "plain.png")
    return folder


def load(folder, bad_images="skip"):
    return load_image_dataset(f"folder:{folder}", bad_images=bad_images)


def paths_of(images):
    return [image["path"] for image in images.cast_column("image", Image(decode=False))["image"]]


def listed(left_out, place):
    """Whether something is on the list, or a folder that it lies in."""
    return any(place == each.place or place.startswith(f"{each.place}/") for each in left_out)


def check_all_accounted_for(folder, taken, left_out):
    on_disk = files_on_disk(folder)
    for place in on_disk:
        # What lies behind a link is called by the link's name.
        is_taken = place in taken or any(path.startswith(f"{place}/") for path in taken)
        assert is_taken != listed(left_out, place), place
    assert all(each.flaw.reason for each in left_out)


def test_the_zoo_is_large():
    assert len(FILES) + len(SYSTEM_FOLDERS) + len(CLASSES) >= 80


@pytest.mark.parametrize("name", FILES)
def test_what_is_an_image_is_decided_by_its_content(tmp_path, name):
    content, fate = FILES[name]
    path = write(tmp_path, name)
    for source in (content, path):
        flaw = flaw_of(source)
        if name[0] not in "._" or fate == TAKEN:
            assert (flaw is None) == (fate == TAKEN or name == ".hidden.png")
    if fate == TAKEN:
        assert decode_image(path).mode == "RGB"
        # Only the end and the header were needed, or all of it says the same.
        assert flaw_of(content, thorough=True) is None


def test_a_folder_is_taken_or_listed_whole(tmp_path):
    dataset_folder(tmp_path)
    for name in FILES:
        write(tmp_path / "train" / "ant", name)
        write(tmp_path / "train" / "bee" / "patient 7" / "scans", name)
        write(tmp_path / "train", name)
        write(tmp_path / "elsewhere", name)
    for name in SYSTEM_FOLDERS:
        write(tmp_path / "test" / name, "plain.png")
        write(tmp_path / "test" / "bee" / name / "deeper", "plain.png")
    loaded = load(tmp_path)
    taken = {*paths_of(loaded.train), *paths_of(loaded.test)}
    check_all_accounted_for(tmp_path, taken, loaded.intake.left_out)
    expected = [name for name, (_, fate) in FILES.items() if fate == TAKEN]
    assert loaded.labels("train").tolist().count(0) == len(expected)
    assert loaded.labels("train").tolist().count(1) == len(expected) + 1
    assert {each.place.rpartition("/")[2] for each in loaded.intake.left_out if each.is_bad} == {
        name for name, (_, fate) in FILES.items() if fate == BAD
    }
    bad = [name for name, (_, fate) in FILES.items() if fate == BAD]
    assert loaded.intake.bad_by_class() == [("train", "ant", len(bad)), ("train", "bee", len(bad))]
    beside = [each for each in loaded.intake.left_out if each.flaw.kind is Kind.BESIDE]
    assert len(beside) == len(expected)
    (elsewhere,) = [each for each in loaded.intake.left_out if not each.split]
    assert elsewhere.files == len(FILES)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "test", "train/ant", "train/bee", "test/ant", "test/bee", "."]),
            st.lists(st.sampled_from([*SYSTEM_FOLDERS, *CLASSES, "a", "a-b", "a b"]), max_size=3),
            st.sampled_from(sorted(FILES)),
        ),
        max_size=12,
    )
)
def test_any_folder_is_taken_or_listed_whole(places):
    with tempfile.TemporaryDirectory() as temporary:
        folder = dataset_folder(Path(temporary).resolve())
        for place, between, name in places:
            write(folder.joinpath(place, *between), name)
        try:
            loaded = load(folder)
        except UserError as error:
            # A folder directly in a split is a class, and may have no image, or be missing in the other split.
            assert "no image is left of" in str(error) or "which the train split lacks" in str(error)
            return
        taken = {*paths_of(loaded.train), *paths_of(loaded.test)}
        check_all_accounted_for(folder, taken, loaded.intake.left_out)
        for split, images in (("train", loaded.train), ("test", loaded.test)):
            for path, label in zip(paths_of(images), images["label"], strict=True):
                below = Path(path).relative_to(folder / split)
                assert loaded.class_names[label] == below.parts[0]
        for name, images in (("train", loaded.train), ("test", loaded.test)):
            of_node = read_node_images(str(folder / name), loaded.class_names, "skip")
            check_all_accounted_for(folder / name, set(paths_of(of_node.images)), of_node.intake.left_out)
            assert set(paths_of(of_node.images)) == set(paths_of(images))


def test_ordinary_folders_are_read_as_the_librarys_loader_has_always_read_them(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "a-b", "a b", "A", "b.c", "ä", "10", "9"):
            for number in (1, 10, 2):
                folder = tmp_path / split / name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}.png").write_bytes(PNG)
    loaded = load(tmp_path, "error")
    before = datasets.load_dataset("imagefolder", data_files={s: f"{tmp_path}/{s}/**" for s in ("train", "test")})
    for split, images in (("train", loaded.train), ("test", loaded.test)):
        assert paths_of(images) == paths_of(before[split])
        assert images["label"] == before[split]["label"]
        assert images.features == before[split].features
        assert str(images.split) == split


@pytest.mark.parametrize("name", CLASSES)
def test_any_name_that_is_not_hidden_is_that_of_a_class(tmp_path, name):
    dataset_folder(tmp_path, (*NAMES, name))
    loaded = load(tmp_path, "error")
    assert sorted(loaded.class_names) == sorted((*NAMES, name))
    assert loaded.intake.left_out == ()


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_a_folder_of_a_system_is_no_class(tmp_path, name):
    dataset_folder(tmp_path, (*NAMES, name))
    loaded = load(tmp_path, "error")
    assert loaded.class_names == NAMES
    assert [(each.split, each.flaw.kind, each.files) for each in loaded.intake.left_out] == [
        ("train", Kind.HIDDEN, 1),
        ("test", Kind.HIDDEN, 1),
    ]


def test_links_are_followed_and_never_in_a_circle(tmp_path):
    store, folder = tmp_path / "store", dataset_folder(tmp_path / "data", ("ant", "bee"))
    for name in ("1.png", "2.png"):
        (store / "cat" / "deep").mkdir(parents=True, exist_ok=True)
        (store / "cat" / "deep" / name).write_bytes(PNG)
    for split in ("train", "test"):
        (folder / split / "cat").symlink_to(store / "cat")
    ant = folder / "train" / "ant"
    (ant / "linked.png").symlink_to(store / "cat" / "deep" / "1.png")
    (ant / "gone.png").symlink_to(store / "nowhere.png")
    (ant / "itself.png").symlink_to(ant / "itself.png")
    (ant / "up").symlink_to(ant)
    (ant / "root").symlink_to(folder / "train")
    (ant / "above").symlink_to(tmp_path)
    (ant / "once").symlink_to(store)
    (ant / "twice").symlink_to(store)
    loaded = load(folder, "error")
    assert loaded.class_names == ("ant", "bee", "cat")
    assert loaded.labels("train").tolist() == [0] * 4 + [1] + [2] * 2
    reasons = {Path(each.place).name: each.flaw for each in loaded.intake.left_out}
    assert set(reasons) == {"gone.png", "itself.png", "up", "root", "above", "twice"}
    assert {flaw.kind for flaw in reasons.values()} == {Kind.LINK}
    assert "what is not there" in reasons["gone.png"].reason
    assert "leads to itself" in reasons["itself.png"].reason


def test_what_is_no_file_and_what_has_no_name_is_listed(tmp_path):
    folder = dataset_folder(tmp_path)
    os.mkfifo(folder / "train" / "ant" / "pipe.png")
    (Path(os.fsdecode(os.fsencode(folder / "train" / "ant") + b"/\xff.png"))).write_bytes(PNG)
    loaded = load(folder, "error")
    reasons = sorted(each.flaw.reason for each in loaded.intake.left_out)
    assert reasons == ["it is neither a file nor a folder", "its name is no text in UTF-8: rename it"]
    assert "\\udcff.png" in csv_of(loaded.intake.left_out)


def test_a_folder_that_may_not_be_read_is_listed_and_its_class_missed(tmp_path, monkeypatch):
    folder = dataset_folder(tmp_path)
    scandir, closed = os.scandir, str(folder / "train" / "bee")

    def refuse(path):
        if str(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"no image is left of 1 class of the train split \(bee\)"):
        load(folder)
    write(folder / "train" / "bee" / "more", "photo.jpg")
    closed = str(folder / "train" / "bee" / "more")
    (flaw,) = [each.flaw for each in load(folder).intake.left_out]
    assert flaw == Flaw(Kind.UNREADABLE, "it is a folder that cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"train/ant/1.png": PNG, "test/ant/1.png": PNG}, "has a single class, 'ant'"),
        ({"train/cat/notes.txt": b"no image"}, r"no image is left of 1 class of the train split \(cat\)"),
        ({"train/cat/1.jpg": b""}, r"no image is left of 1 class of the train split \(cat\)"),
        ({"train/cat/.png": PNG}, r"no image is left of 1 class of the train split \(cat\)"),
        ({"test/cat/1.png": PNG}, "has the class 'cat', which the train split lacks"),
    ],
)
def test_a_class_alone_or_without_images_is_one_sentence(tmp_path, files, sentence):
    if "test/ant/1.png" not in files:
        dataset_folder(tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        load(tmp_path)
    assert "column" not in str(error.value)


def test_all_bad_images_are_reported_at_once(tmp_path):
    folder = dataset_folder(tmp_path)
    for number in range(7):
        (folder / "train" / "bee" / f"{number}.jpg").write_bytes(JPEG[:200])
    (folder / "test" / "ant" / "bomb.png").write_bytes(png_of_size(60000, 60000))
    (folder / "test" / "ant" / "notes.txt").write_bytes(b"no image")
    with pytest.raises(BadImagesError) as error:
        load(folder, "error")
    sentence = str(error.value)
    assert sentence.startswith(f"8 images of folder:{folder} cannot be used (train/bee/0.jpg: ")
    assert sentence.count(".jpg: ") == 5
    assert "and 3 more" in sentence
    assert "bad-images to skip" in sentence
    assert sum(each.is_bad for each in error.value.left_out) == 8
    lines = list(csv.reader(io.StringIO(csv_of(error.value.left_out))))
    assert lines[0] == ["split", "place", "reason"]
    assert len(lines) == 1 + 9
    assert any("million pixels" in reason for _, _, reason in lines)


def test_the_summary_counts_what_is_taken_and_what_is_not(tmp_path):
    folder = dataset_folder(tmp_path)
    for name in ("notes.txt", "labels.csv", ".hidden.png", "empty.jpg"):
        write(folder / "train" / "bee", name)
    write(folder / "train" / "bee" / ".git", "plain.png")
    write(folder / "train" / "bee" / ".git" / "objects", "plain.png")
    (folder / "README").write_bytes(b"about it")
    assert load(folder).intake.summary() == [
        "train: 2 images of 2 classes (ant, bee); 6 left out: 3 hidden, 2 no image, 1 empty",
        "test: 2 images of 2 classes (ant, bee); nothing left out",
        "beside train and test: 1 left out: 1 of no split",
    ]


def test_the_list_can_be_written_whatever_the_names():
    names = ["a,b", 'a"b', "a\nb", "\udcff", "猫"]
    text = csv_of([LeftOut("train", name, Flaw(Kind.EMPTY, "it is empty")) for name in names])
    assert [line[1] for line in csv.reader(io.StringIO(text.encode().decode()))][1:] == [
        *names[:3],
        "\\udcff",
        "猫",
    ]


CONTENTS = [content for content, _ in FILES.values()]
GOOD = [content for name, (content, fate) in FILES.items() if flaw_of(content) is None]


def rows_of(contents):
    """A row each: of an image's bytes, or of none."""
    return {
        "image": [None if content is None else {"bytes": content, "path": None} for content in contents],
        "label": [row % 2 for row in range(len(contents))],
    }


def table(contents):
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=list(NAMES))})
    return Dataset.from_dict(rows_of(contents), features=features)


def test_rows_of_parquet_files_are_taken_or_listed(tmp_path):
    contents = [PNG, PNG, None, *CONTENTS]
    table(contents).to_parquet(tmp_path / "train-0.parquet")
    table([PNG, JPEG]).to_parquet(tmp_path / "test-0.parquet")
    (tmp_path / "README.md").write_text("about it")
    with pytest.raises(
        BadImagesError, match=rf"{len(contents) - len(GOOD) - 2} images of parquet:.*train row 2: it"
    ):
        load_image_dataset(f"parquet:{tmp_path}")
    loaded = load_image_dataset(f"parquet:{tmp_path}", bad_images="skip")
    bad = [each for each in loaded.intake.left_out if each.is_bad]
    assert len(loaded.train) == len(GOOD) + 2
    assert len(loaded.train) + len(bad) == len(contents)
    left = {int(each.place.rpartition(" ")[2]) for each in bad}
    kept = [row for row in range(len(contents)) if row not in left]
    assert loaded.labels("train").tolist() == [row % 2 for row in kept]
    assert [each.place for each in loaded.intake.left_out if not each.is_bad] == [str(tmp_path / "README.md")]
    assert loaded.intake.summary()[0].startswith(
        f"train: {len(kept)} images of 2 classes (ant, bee) in train-0.parquet;"
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([None, *CONTENTS]), max_size=8))
def test_rows_of_the_hub_are_taken_or_listed(contents):
    splits = {"train": table([PNG, PNG, *contents]), "validation": table([PNG, PNG])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
        patch.setattr(datasets, "load_dataset", lambda path, data_files: splits)
        loaded = load_image_dataset("hub:a/b", bad_images="skip")
    assert len(loaded.train) + len(loaded.intake.left_out) == 2 + len(contents)
    assert len(loaded.train) == 2 + sum(content is not None and flaw_of(content) is None for content in contents)
    assert sum(count for _, _, count in loaded.intake.bad_by_class()) == len(loaded.intake.left_out)


def test_nothing_wrong_leaves_a_table_as_it_was(tmp_path):
    for split in ("train", "test"):
        table([PNG, JPEG]).to_parquet(tmp_path / f"{split}.parquet")
    plain = load_image_dataset(f"parquet:{tmp_path}", bad_images="skip")
    assert plain.train._indices is None
    assert plain.intake.left_out == ()


def test_a_class_that_loses_all_its_rows_is_an_error(tmp_path):
    table([PNG, b"", PNG, None]).to_parquet(tmp_path / "train.parquet")
    table([PNG, PNG]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"no image is left of 1 class of the train split \(bee\)"):
        load_image_dataset(f"parquet:{tmp_path}", bad_images="skip")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lines_of_a_nodes_table_are_taken_or_listed(tmp_path, suffix):
    names = [name for name in FILES if "\n" not in name]
    for name in names:
        write(tmp_path / "images", name)
    (tmp_path / "images" / "folder.png").mkdir()
    paths = [f"images/{name}" for name in [*names, "gone.png", "folder.png"]]
    labels = [NAMES[row % 2] for row in range(len(paths))]
    columns, path = pa.table({"path": paths, "label": labels}), tmp_path / f"table{suffix}"
    (pa.csv.write_csv if suffix == ".csv" else pa.parquet.write_table)(columns, path)
    with pytest.raises(BadImagesError, match="cannot be used"):
        read_node_images(str(path), NAMES)
    found = read_node_images(str(path), NAMES, "skip")
    taken = [place for place, name in enumerate(names) if flaw_of(FILES[name][0]) is None]
    assert paths_of(found.images) == [str(tmp_path / paths[place]) for place in taken]
    assert found.images["label"] == [place % 2 for place in taken]
    assert len(found.intake.left_out) == len(paths) - len(taken)
    reasons = {Path(each.place).name: each.flaw for each in found.intake.left_out}
    assert reasons["gone.png"] == Flaw(Kind.MISSING, "there is no such file")
    assert reasons["folder.png"] == Flaw(Kind.NO_IMAGE, "it is no file")


def test_a_node_may_have_a_folder_for_a_class_that_it_has_nothing_of(tmp_path):
    write(tmp_path / "ant", "plain.png")
    (tmp_path / "bee").mkdir()
    write(tmp_path / "bee", ".gitkeep")
    found = read_node_images(str(tmp_path), NAMES)
    assert found.intake.taken == {"train": {"ant": 1}}
    write(tmp_path / "bee", "notes.txt")
    with pytest.raises(UserError, match=r"no image is left of 1 class of the train split \(bee\)"):
        read_node_images(str(tmp_path), NAMES)


def test_a_format_without_a_reader_is_named_with_the_extra(tmp_path, monkeypatch):
    formats = tuple(name for name in image_check._formats() if name not in ("HEIF", "AVIF"))
    monkeypatch.setattr(image_check, "_formats", lambda: formats)
    heic, avif = (b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand for brand in (b"heic", b"avif"))
    assert "pip install 'fedcof[heif]'" in flaw_of(heic).reason
    assert "install pillow 11.3" in flaw_of(avif).reason
    folder = dataset_folder(tmp_path)
    (folder / "train" / "ant" / "1.jpg").write_bytes(heic)
    (left,) = load(folder, "error").intake.left_out
    assert (left.flaw.kind, left.is_bad) == (Kind.FORMAT, False)


def test_what_an_earlier_pass_found_is_not_looked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "FEWEST_KEPT", 1)
    folder = dataset_folder(tmp_path)
    bad = write(folder / "train" / "ant", "cut off.jpg")
    before = load(folder)
    looked = []
    monkeypatch.setattr(
        inspection, "flaw_of", lambda path, thorough: looked.append(path) or flaw_of(path, thorough)
    )
    assert load(folder).intake == before.intake
    assert looked == []
    bad.write_bytes(JPEG)
    assert load(folder).intake.left_out == ()
    assert bad in looked


@pytest.mark.parametrize("note", ["{}", "[]", "nonsense", '{"thorough": true, "flaws": {"0": ["?", "a"]}}'])
def test_a_note_that_is_damaged_is_not_believed(tmp_path, monkeypatch, note):
    monkeypatch.setattr(inspection, "FEWEST_KEPT", 1)
    folder = dataset_folder(tmp_path / "data")
    before = load(folder)
    for path in Path(os.environ["FEDCOF_CACHE"]).glob("inspections/*"):
        path.write_text(note)
    assert load(folder).intake == before.intake


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "a file"))
    monkeypatch.setattr(inspection, "FEWEST_KEPT", 1)
    assert len(load(dataset_folder(tmp_path / "data")).train) == 2


def test_only_decoding_shows_some_damage():
    assert flaw_of(damaged_within()) is None
    assert flaw_of(damaged_within(), thorough=True).kind is Kind.BROKEN
    assert flaw_of(encoded(), thorough=True) is None
