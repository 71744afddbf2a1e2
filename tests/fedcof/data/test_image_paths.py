"""Files, folders and patterns: every image once, and all that is left out is said."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcof.data.image_paths import find_images, reasons
from fedcof.errors import UserError


def write_image(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, format=kind)
    return path


@pytest.fixture
def zoo(tmp_path):
    """Images that do not look like images, and what looks like images and is none."""
    zoo = tmp_path / "zoo"
    write_image(zoo / "b.png")
    write_image(zoo / "a.PNG")
    write_image(zoo / "letter.txt", "JPEG")
    write_image(zoo / "no suffix", "GIF")
    write_image(zoo / "img[1].png")
    write_image(zoo / "cut.jpg", "JPEG").write_bytes((zoo / "cut.jpg").read_bytes()[:-40])
    write_image(zoo / "deep" / "er" / "still" / "c.webp", "WEBP")
    write_image(zoo / "line\nend" / "d é.bmp", "BMP")
    write_image(zoo / ".hidden" / "e.png")
    write_image(zoo / "deep" / ".f.png")
    write_image(tmp_path / "elsewhere" / "g.tif", "TIFF")
    (zoo / "linked").symlink_to(tmp_path / "elsewhere")
    (zoo / "link.png").symlink_to(zoo / "b.png")
    (zoo / "deep" / "up").symlink_to(zoo)
    (zoo / "lost.png").symlink_to(zoo / "nowhere")
    (zoo / "empty.png").touch()
    (zoo / "notes.png").write_text("notes")
    (zoo / "._b.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    os.mkfifo(zoo / "pipe.png")
    return zoo


TAKEN = {
    "b.png",
    "a.PNG",
    "letter.txt",
    "no suffix",
    "img[1].png",
    "cut.jpg",
    "deep/er/still/c.webp",
    "line\nend/d é.bmp",
    "linked/g.tif",
    "link.png",
}
LEFT_OUT = {
    "no image": {"lost.png", "notes.png", "pipe.png"},
    "empty": {"empty.png"},
    "hidden": {".hidden", "deep/.f.png", "._b.png"},
    "linked to twice": {"deep/up"},
}


def named(paths, folder):
    return {str(path.relative_to(folder)) for path in paths}


def test_a_folder_gives_what_is_an_image_by_its_content(zoo):
    found = find_images([zoo])
    assert named(found.images, zoo) == TAKEN
    assert len(found.images) == len(TAKEN)
    assert {reason: named(paths, zoo) for reason, paths in found.left_out.items()} == LEFT_OUT
    assert found.named == set()
    assert find_images([zoo]).images == found.images


def test_what_is_left_out_is_one_line(zoo):
    line = reasons(find_images([zoo]).left_out)
    assert "3 no image (" in line
    assert "1 empty (" in line
    assert "3 hidden (" in line
    assert reasons({}) == ""


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("*.png", {"b.png", "img[1].png", "link.png"}),
        ("deep/**/*.webp", {"deep/er/still/c.webp"}),
        ("**", TAKEN),
        ("l*", {"letter.txt", "link.png", "line\nend/d é.bmp", "linked/g.tif"}),
        ("[ab].[Pp]*", {"b.png", "a.PNG"}),
        ("img[1].png", {"img[1].png"}),
        ("i*/*", None),
    ],
)
def test_patterns_that_no_shell_has_resolved(zoo, pattern, taken):
    if taken is None:
        with pytest.raises(UserError, match="There is no image at"):
            find_images([zoo / pattern])
    else:
        found = find_images([zoo / pattern])
        assert named(found.images, zoo) == taken
        assert len(found.images) == len(taken)
        assert found.named == ({zoo / pattern} if "img" in pattern else set())
        left_out = [path for paths in found.left_out.values() for path in paths]
        assert len(left_out) == len(set(left_out))


def test_each_image_is_taken_once_where_it_was_asked_for_first(zoo):
    places = [zoo / "notes.png", zoo / "b.png", zoo / "linked", zoo, zoo / "*.png", zoo / "deep" / ".." / "a.PNG"]
    found = find_images(places)
    assert found.images[:3] == [zoo / "notes.png", zoo / "b.png", zoo / "linked" / "g.tif"]
    assert len(found.images) == 1 + len(TAKEN)
    assert zoo / "notes.png" in found.named
    assert zoo / "notes.png" not in found.left_out["no image"]


def test_a_named_file_is_taken_whatever_it_holds(zoo):
    names = ["notes.png", "empty.png", "lost.png", ".hidden/e.png"]
    found = find_images([zoo / name for name in names])
    assert found.images == [zoo / name for name in names]
    assert found.named == set(found.images)


@pytest.mark.parametrize("place", ["nowhere.png", "nowhere/*.png", "~nobody-of-this-name/*.png", "x" * 5000, ""])
def test_a_place_without_an_image_is_one_sentence(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There is no image at .*: give image files, folders of them"):
        find_images([place])


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"\(1 no image \(.*table.csv\)\)"):
        find_images([tmp_path])


def test_a_home_is_found_in_a_quoted_pattern(tmp_path, monkeypatch):
    write_image(tmp_path / "pictures" / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_images(["~/pictures/*.png"]).images == [tmp_path / "pictures" / "a.png"]
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "~a.png")
    assert find_images(["~a.png"]).images[0].name == "~a.png"


def test_what_cannot_be_read_is_said(zoo, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if str(path).endswith("deep") else scandir(path))
    found = find_images([zoo])
    assert found.left_out["unreadable: Permission denied"] == [zoo / "deep"]
    monkeypatch.undo()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="unreadable"):
        find_images([zoo])
