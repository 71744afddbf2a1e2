"""The decoder: one for tables, nodes and prediction, for every kind of image that Pillow opens."""

import io
import tempfile
import warnings
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof.data.node_data import load_node_images
from fedcof.embedding.images import decode_image, decoding_key, rgb_images
from fedcof.errors import UserError

COLUMNS = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
ORIENTATION = 0x0112

# Kinds of files by Pillow's mode. An ordinary one has 8 bits a channel, or fewer.
ORDINARY = [
    ("1", "PNG"),
    ("L", "PNG"),
    ("L", "JPEG"),
    ("L", "GIF"),
    ("LA", "PNG"),
    ("P", "PNG"),
    ("P", "GIF"),
    ("PA", "TIFF"),
    ("RGB", "PNG"),
    ("RGB", "BMP"),
    ("RGB", "JPEG"),
    ("RGB", "WEBP"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("CMYK", "JPEG"),
    ("CMYK", "TIFF"),
    ("YCbCr", "TIFF"),
    ("LAB", "TIFF"),
]
DEEP = [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF"), ("I", "PPM"), ("F", "TIFF")]
WITH_EXIF = {"PNG", "JPEG", "WEBP", "TIFF"}

# What takes the stored rows and columns to the upright ones, by the EXIF standard's numbers.
UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def content(image, file_format, orientation=1, **options):
    if orientation != 1:
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(values):
    return content(PIL.Image.fromarray(np.asarray(values)), "TIFF")


def table(*cells):
    return datasets.Dataset.from_dict({"image": list(cells), "label": [0] * len(cells)}, COLUMNS)


def grey(decoded):
    pixels = np.asarray(decoded)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def drawn_image(mode, width, height, seed):
    """Draw random pixels of a mode, over the whole range that it has."""
    generator = np.random.default_rng(seed)
    if mode == "F":
        return PIL.Image.fromarray(generator.uniform(0, 255, (height, width)).astype(np.float32))
    if mode.startswith("I"):
        dtype = {"I": np.int32, "I;16": np.uint16, "I;16B": ">u2"}[mode]
        return PIL.Image.fromarray(generator.integers(0, 65536, (height, width)).astype(dtype))
    if mode == "1":
        return PIL.Image.fromarray(generator.integers(0, 2, (height, width)).astype(bool))
    bands = len(PIL.Image.new(mode, (1, 1)).getbands())
    image = PIL.Image.frombytes(mode, (width, height), generator.bytes(height * width * bands))
    if mode in ("P", "PA"):
        image.putpalette(generator.bytes(768))
    return image


def all_ways(encoded, file_format):
    """Decode a file as training does from a folder and from a table, as a node does, and as prediction does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a class" / f"image.{file_format.lower()}"
        path.parent.mkdir()
        path.write_bytes(encoded)
        tables = table({"bytes": None, "path": str(path)}, {"bytes": encoded, "path": None})
        of_node = load_node_images(folder, ("a class", "another"))
        decoded = [
            *rgb_images(tables, [0, 1]),
            *rgb_images(of_node, [0]),
            decode_image(path),
            decode_image(encoded),
        ]
    assert all(image.mode == "RGB" for image in decoded)
    return [np.asarray(image) for image in decoded]


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(ORDINARY + DEEP),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_way_gives_the_same_upright_pixels(kind, size, orientation, seed):
    mode, file_format = kind
    orientation = orientation if file_format in WITH_EXIF else 1
    image = drawn_image(mode, *size, seed)
    lying = np.asarray(decode_image(content(image, file_format)))
    upright, *others = all_ways(content(image, file_format, orientation), file_format)
    assert upright.dtype == np.uint8
    np.testing.assert_array_equal(upright, UPRIGHT[orientation](lying))
    for other in others:
        np.testing.assert_array_equal(other, upright)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(ORDINARY),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_ordinary_images_are_what_pillow_converts_to_rgb(kind, size, orientation, seed):
    mode, file_format = kind
    orientation = orientation if file_format in WITH_EXIF else 1
    encoded = content(drawn_image(mode, *size, seed), file_format, orientation)
    expected = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(encoded))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode_image(encoded)), np.asarray(expected))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_that_lies_on_its_side_is_turned_upright(file_format):
    lying = PIL.Image.new("RGB", (64, 32), "white")
    lying.paste((0, 0, 0), (0, 0, 16, 32))
    for pixels in all_ways(content(lying, file_format, orientation=6), file_format):
        assert pixels.shape == (64, 32, 3)
        assert pixels[:8].max() < 40
        assert pixels[24:].min() > 215


SIXTEEN = [0, 255, 256, 32768, 65535]


@pytest.mark.parametrize(
    "encoded",
    [
        content(PIL.Image.fromarray(np.array([SIXTEEN], np.uint16)), "PNG"),
        content(PIL.Image.fromarray(np.array([SIXTEEN], np.uint16)), "TIFF"),
        content(PIL.Image.fromarray(np.array([SIXTEEN], ">u2")), "TIFF"),
        b"P5 5 1 65535\n" + np.array(SIXTEEN, ">u2").tobytes(),
        tiff(np.array([SIXTEEN], np.int32)),
    ],
    ids=["PNG", "TIFF", "big-endian TIFF", "PGM", "TIFF of 32 bits"],
)
def test_grey_of_sixteen_bits_is_scaled_and_not_cut_off(encoded):
    for pixels in all_ways(encoded, "PNG"):
        assert grey(pixels) == [[0, 0, 1, 128, 255]]


def test_dark_grey_of_sixteen_bits_stays_dark():
    dark = np.array([[0, 200, 255]], np.uint16)
    for encoded in (content(PIL.Image.fromarray(dark), "PNG"), b"P5 3 1 65535\n" + dark.astype(">u2").tobytes()):
        for pixels in all_ways(encoded, "PNG"):
            assert grey(pixels) == [[0, 0, 0]]


def test_integers_of_32_bits_are_bytes_unless_one_is_larger():
    for pixels in all_ways(tiff(np.full((3, 2), 200, np.int32)), "TIFF"):
        assert grey(pixels) == [[200, 200]] * 3
    assert grey(decode_image(tiff(np.array([[0, 1, 255]], np.int32)))) == [[0, 1, 255]]
    assert grey(decode_image(tiff(np.array([[0, 1, 256]], np.int32)))) == [[0, 0, 1]]


def test_floating_point_grey_is_a_share_of_white_unless_a_number_is_larger():
    for pixels in all_ways(tiff(np.array([[0, 0.25, 0.5, 1]], np.float32)), "TIFF"):
        assert grey(pixels) == [[0, 64, 128, 255]]
    assert grey(decode_image(tiff(np.array([[0, 1, 200, 255]], np.float32)))) == [[0, 1, 200, 255]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.array([[-1000, 3000]], np.int32), "from -1000 to 3000, where 0 to 255 or 0 to 65535"),
        (np.array([[0, 65536]], np.int32), "from 0 to 65536, where"),
        (np.array([[-0.5, 0.5]], np.float32), "from -0.5 to 0.5, where 0 to 1 or 0 to 255"),
        (np.array([[0, 300]], np.float32), "from 0 to 300, where"),
        (np.array([[0, np.nan]], np.float32), "to nan, where"),
        (np.array([[0, np.inf]], np.float32), "to inf, where"),
    ],
)
def test_numbers_that_are_no_grey_are_refused(values, sentence):
    with pytest.raises(
        UserError, match=f"row 0 of 1 of the given split cannot be read .its grey goes .*{sentence}"
    ):
        rgb_images(table({"bytes": tiff(values), "path": None}), [0])


def test_transparency_is_dropped_and_not_blended():
    grey_and_clear = PIL.Image.new("LA", (2, 1), (90, 0))
    colour_and_clear = PIL.Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    palette = PIL.Image.new("P", (2, 1), 1)
    palette.putpalette([1, 2, 3, 40, 50, 60])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image, options, colour in [
            (grey_and_clear, {}, [90, 90, 90]),
            (colour_and_clear, {}, [10, 20, 30]),
            (palette, {"transparency": 1}, [40, 50, 60]),
            (palette, {"transparency": b"\x80\x00"}, [40, 50, 60]),
        ]:
            for pixels in all_ways(content(image, "PNG", **options), "PNG"):
                assert pixels.tolist() == [[colour, colour]]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(file_format):
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    encoded = content(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert PIL.Image.open(io.BytesIO(encoded)).n_frames == 2
    for pixels in all_ways(encoded, file_format):
        assert pixels.min() == 255


def whole():
    return content(PIL.Image.effect_noise((40, 40), 50), "PNG")


@pytest.mark.parametrize(
    "encoded",
    [b"", b"nonsense", whole()[:200], b"II*\x00\x08\x00", b"P5 1 x\n", b"\x89PNG\r\n"],
    ids=["empty", "nonsense", "cut off", "TIFF's beginning", "PGM without a size", "PNG's beginning"],
)
def test_what_is_no_image_is_one_sentence(tmp_path, encoded):
    path = tmp_path / "scan.png"
    path.write_bytes(encoded)
    with pytest.raises(UserError, match=r"The image .*scan\.png cannot be read \(.+\): replace it by") as error:
        decode_image(path)
    assert "\n" not in str(error.value)
    assert " at 0x" not in str(error.value)
    with pytest.raises(UserError, match="The image cannot be read"):
        decode_image(encoded)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png cannot be read \(.*No such file"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"gone\.png of the given split cannot be read \(.*No such file"):
        rgb_images(table(str(tmp_path / "gone.png")), [0])
    with pytest.raises(UserError, match=r"cannot be read \(.*Is a directory"):
        decode_image(tmp_path)


def test_an_image_too_large_to_be_meant_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "bomb.png"
    path.write_bytes(whole())
    with pytest.raises(UserError, match=r"bomb\.png cannot be read \(.*decompression bomb"):
        decode_image(path)
    with pytest.raises(UserError, match=r"bomb\.png of the given split cannot be read \(.*decompression bomb"):
        rgb_images(table(str(path)), [0])


def test_a_relative_path_with_a_colon_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "scan:1.png").write_bytes(whole())
    monkeypatch.chdir(tmp_path)
    assert decode_image(Path("scan:1.png")).size == (40, 40)


@pytest.mark.parametrize(("mode", "file_format"), ORDINARY + DEEP)
def test_only_kinds_of_files_that_may_be_decoded_anew_have_another_key(tmp_path, mode, file_format):
    encoded = content(drawn_image(mode, 4, 4, 0), file_format)
    assert bool(decoding_key({"bytes": encoded, "path": None})) == (file_format in ("TIFF", "PPM"))
    path = str(tmp_path / f"image.{file_format}")
    assert bool(decoding_key({"bytes": None, "path": path})) == (file_format in ("TIFF", "PPM"))
