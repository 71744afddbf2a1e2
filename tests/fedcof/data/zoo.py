"""What people's folders hold beside plain images: odd files and folders, and what is to become of them."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
from PIL import features

TAKEN, LEFT_OUT, BAD = "taken", "left out", "bad"


def picture(seed=0, mode="RGB", size=(24, 20)):
    generator = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return PIL.Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))


def encoded(file_format="PNG", image=None, **settings):
    buffer = io.BytesIO()
    (image or picture()).save(buffer, format=file_format, **settings)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_size(width, height):
    """A whole file, so far as its header and end say, whose pixels are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged_within(content=None):
    """A PNG whose header and end are whole, and whose pixels are not: only decoding shows it."""
    content = bytearray(content or encoded())
    middle = content.index(b"IDAT") + 40
    content[middle : middle + 40] = bytes(40)
    return bytes(content)


def raw_of_a_camera():
    buffer = io.BytesIO()
    picture().save(buffer, format="TIFF", tiffinfo={50706: b"\1\4\0\0"})
    return buffer.getvalue()


def shortened(content, share=0.6):
    return content[: int(len(content) * share)]


JPEG, PNG = encoded("JPEG"), encoded("PNG")
CONTAINER = b"\0\0\0\x18ftyp"

# Files by name: their content, and what is to become of them in a folder with bad-images=skip.
FILES = {
    "plain.png": (PNG, TAKEN),
    "photo.jpg": (JPEG, TAKEN),
    "UPPER.JPG": (JPEG, TAKEN),
    "without a suffix": (JPEG, TAKEN),
    "image called.txt": (JPEG, TAKEN),
    "image called.npy": (PNG, TAKEN),
    "png called.jpg": (PNG, TAKEN),
    "moving.gif": (encoded("GIF", save_all=True, append_images=[picture(1)]), TAKEN),
    "plain.bmp": (encoded("BMP"), TAKEN),
    "plain.webp": (encoded("WEBP"), TAKEN),
    "plain.tif": (encoded("TIFF"), TAKEN),
    "packed.tiff": (encoded("TIFF", compression="tiff_lzw"), TAKEN),
    "plain.ppm": (encoded("PPM"), TAKEN),
    "plain.tga": (encoded("TGA"), TAKEN),
    "plain.pcx": (encoded("PCX"), TAKEN),
    "plain.sgi": (encoded("SGI"), TAKEN),
    "plain.ico": (encoded("ICO"), TAKEN),
    "plain.jp2": (encoded("JPEG2000"), TAKEN),
    "two.mpo": (encoded("MPO", save_all=True, append_images=[picture(1)]), TAKEN),
    "grey.png": (encoded(image=picture(mode="L")), TAKEN),
    "deep.png": (encoded(image=PIL.Image.fromarray(np.full((3, 3), 40000, np.uint16))), TAKEN),
    "see-through.png": (encoded(image=picture(mode="RGBA")), TAKEN),
    "palette.png": (encoded(image=picture().convert("P")), TAKEN),
    "one pixel.png": (encoded(image=picture(size=(1, 1))), TAKEN),
    "progressive.jpg": (encoded("JPEG", progressive=True), TAKEN),
    "with more behind.jpg": (JPEG + b"written by a telephone", TAKEN),
    "with zeros behind.jpg": (JPEG + bytes(300), TAKEN),
    "größe 猫.png": (PNG, TAKEN),
    "two\nlines.png": (PNG, TAKEN),
    "_under.png": (PNG, TAKEN),
    "copy of plain.png.bak": (PNG, TAKEN),
    ".DS_Store": (b"\0\0\0\1Bud1", LEFT_OUT),
    "._plain.png": (b"\0\5\x16\7" + bytes(40), LEFT_OUT),
    ".hidden.png": (PNG, LEFT_OUT),
    ".gitkeep": (b"", LEFT_OUT),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0" + bytes(600), LEFT_OUT),
    "desktop.ini": (b"[.ShellClassInfo]\r\n", LEFT_OUT),
    "notes.txt": (b"a text", LEFT_OUT),
    "long.txt": ("ä".encode() * 600, LEFT_OUT),
    "BMW.txt": (b"BMW is no bitmap", LEFT_OUT),
    "P5.txt": (b"P5 is no grey map", LEFT_OUT),
    "labels.csv": (b"file,label\n1.png,cat\n", LEFT_OUT),
    "page.html": (b"<!doctype html><p>", LEFT_OUT),
    "drawing.svg": (b"<?xml version='1.0'?><svg/>", LEFT_OUT),
    "paper.pdf": (b"%PDF-1.7\n" + bytes(99), LEFT_OUT),
    "figure.eps": (encoded("EPS"), LEFT_OUT),
    "drawing.wmf": (b"\xd7\xcd\xc6\x9a" + bytes(99), LEFT_OUT),
    "letter.docx": (b"PK\3\4" + bytes(99), LEFT_OUT),
    "film.mp4": (CONTAINER + b"isom" + bytes(99), LEFT_OUT),
    "film.avi": (b"RIFF\0\0\0\0AVI " + bytes(99), LEFT_OUT),
    "film.mkv": (b"\x1aE\xdf\xa3" + bytes(99), LEFT_OUT),
    "film.mpg": (b"\0\0\1\xba" + bytes(99), LEFT_OUT),
    "array.npy": (b"\x93NUMPY\1\0v\0" + bytes(99), LEFT_OUT),
    "table.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), LEFT_OUT),
    "noise.bin": (np.random.default_rng(0).bytes(999), LEFT_OUT),
    "zeros.bin": (bytes(999), LEFT_OUT),
    "nothing": (b"", LEFT_OUT),
    "scan.dcm": (bytes(128) + b"DICM" + bytes(99), LEFT_OUT),
    "new.jxl": (b"\xff\x0a" + bytes(99), LEFT_OUT),
    "camera.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), LEFT_OUT),
    "camera.dng": (raw_of_a_camera(), LEFT_OUT),
    "empty.jpg": (b"", BAD),
    "page called.jpg": (b"<html>404 Not Found</html>", BAD),
    "zeros.png": (bytes(500), BAD),
    "cut off.jpg": (shortened(JPEG), BAD),
    "cut off.png": (shortened(PNG), BAD),
    "cut off.gif": (shortened(encoded("GIF")), BAD),
    "cut off.webp": (shortened(encoded("WEBP", lossless=True)), BAD),
    "cut off.tif": (shortened(encoded("TIFF", compression="tiff_lzw")), BAD),
    "cut off.bmp": (shortened(encoded("BMP")), BAD),
    "cut off without a suffix": (shortened(JPEG), BAD),
    "signature only.png": (b"\x89PNG\r\n\x1a\n", BAD),
    "broken header.png": (PNG[:16] + b"\xff" * 17 + PNG[33:], BAD),
    "bomb.png": (png_of_size(60000, 60000), BAD),
    "no pixels.png": (png_of_size(0, 5), BAD),
}
if features.check("avif"):
    FILES["plain.avif"] = (encoded("AVIF"), TAKEN)

# Folders that are left out whole, wherever they lie.
SYSTEM_FOLDERS = (".git", ".ipynb_checkpoints", "@eaDir", "__MACOSX", ".idea", "lost+found", "__pycache__")
CLASSES = ("_class", "class.old", "class with blanks", "猫", "__dunder", "n.jpg", "CVS", "thumbnails")


def write(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(FILES[name][0])
    return folder / name


def files_on_disk(folder):
    """Every file and link below a folder, as the system lists them."""
    return {str(path) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
