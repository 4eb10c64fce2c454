"""Two hundred good images among sixty hostile files: each good one is indexed, each hostile one has a reason."""

import io
import os
import re
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from miniclip.data.images import FORMATS
from miniclip.data.paths import stored_path
from miniclip.index.image_index import ImageIndex
from tests.support.cli import run_cli
from tests.support.drawing import COLOURS, SHAPES, draw_image
from tests.support.png import png_of

GOOD, HOSTILE = 200, 60


def encoded(format_name: str) -> bytes:
    stream = io.BytesIO()
    draw_image("red", "circle", (160, 120)).save(stream, format_name)
    return stream.getvalue()


def make_good(folder: Path) -> set[str]:
    """Every usual kind of image, with every kind of name."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    names = [f"{number:03}.png" for number in range(GOOD - 60)]
    names += ["it's.png", 'a "b".png', " two  spaces .png", "größe-犬-🐕.png", "line\nend.png", "per%cent;--.png"]
    names += ["caf\u00e9.png", "cafe\u0301.png", os.fsdecode(b"caf\xe9-latin.png"), "n" * 251 + ".png", "-rf.png"]
    names += ["UPPER.PNG", "a.b.c.png", "tab\there.png", "\u202egnp.png"]
    for number, name in enumerate(names):
        image = draw_image(*kinds[number % len(kinds)], seed=number)
        image.putpixel((0, 0), (number, 1, 0))
        image.save(folder / name)
    base = draw_image("green", "square")
    alpha = base.convert("RGBA")
    alpha.putalpha(128)
    deep = folder / "below" / "deeper.jpg"  # a folder with the name of an image
    deep.mkdir(parents=True)
    base.save(deep / "plain.jpg")
    base.save(deep / "progressive.jpg", progressive=True, quality=30)
    base.convert("CMYK").save(deep / "cmyk.jpg")
    base.convert("L").save(deep / "grey.jpg")
    base.save(deep / "several.jpg", "MPO", save_all=True, append_images=[draw_image("red", "circle")])
    base.convert("P").save(deep / "palette.png")
    base.convert("1").save(deep / "bits.png")
    base.convert("I;16").save(deep / "sixteen.png")
    alpha.save(deep / "alpha.png")
    alpha.save(deep / "alpha.webp")
    base.save(deep / "lossless.webp", lossless=True)
    base.save(deep / "still.gif")
    base.save(deep / "moving.gif", save_all=True, append_images=[draw_image("red", "circle")])
    base.save(deep / "plain.tif")
    base.save(deep / "packed.tiff", compression="tiff_lzw")
    base.save(deep / "plain.bmp")
    base.save(deep / "plain.avif")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    base.save(deep / "profile.jpg", icc_profile=srgb)
    turned = Image.Exif()
    turned[0x0112] = 8
    base.save(deep / "turned.jpg", exif=turned)
    (deep / "odd-exif.jpg").write_bytes((deep / "turned.jpg").read_bytes().replace(b"Exif\0\0MM", b"Exif\0\0??"))
    (deep / "as-gif.gif").write_bytes(encoded("JPEG"))  # the wrong suffix
    (deep / "trailing.jpg").write_bytes(encoded("JPEG") + b"\0" * 5000)
    Image.new("RGB", (1, 1), (9, 9, 9)).save(deep / "one-pixel.png")
    Image.new("RGB", (20_000, 3), (1, 2, 3)).save(deep / "strip.png")
    (deep / "link.png").symlink_to(folder / names[0])
    good = {*names, *(path.name for path in deep.iterdir())}
    for number in range(GOOD - len(good)):
        draw_image("blue", "triangle", seed=1000 + number).save(deep / f"more-{number}.webp")
        good.add(f"more-{number}.webp")
    (deep / "loop").symlink_to(folder)
    return good


def make_hostile(folder: Path) -> dict[str, str]:
    """Words of the expected reason by file name; `""` stands for any reason."""
    folder.mkdir()
    expected: dict[str, str] = {}

    def put(name: str, content: bytes, reason: str) -> None:
        (folder / name).write_bytes(content)
        expected[name] = reason

    known = "not an image in a known format"
    jpeg, png, webp, gif, tiff, bmp, avif = (encoded(f) for f in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"))
    for name, whole in (("jpg", jpeg), ("png", png), ("webp", webp), ("tif", tiff), ("bmp", bmp), ("avif", avif)):
        put(f"half.{name}", whole[: len(whole) // 2], "")
        put(f"start.{name}", whole[:20], "")
        put(f"empty.{name}", b"", "an empty file")
        put(f"zeros.{name}", b"\0" * 4096, known)
        put(f"text.{name}", b"I am no image\n" * 50, known)
    put("half.gif", gif[: len(gif) // 3], "")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", jpeg)
    for name, content in {
        "archive.jpg": archive.getvalue(),
        "program.png": b"\x7fELF\2\1\1" + bytes(500),
        "page.jpg": b"<!doctype html><title>404</title>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "document.tif": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj <<>> endobj",
        "film.webp": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n/x {x} def x\n",
        "icon.bmp": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + bytes(60),
        "script.gif": b"GIF87",
    }.items():
        put(name, content, known)
    put("bomb.png", png_of(60_000, 60_000, (b"IDAT", zlib.compress(bytes(100_000)))), "million pixels")
    put("bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";", "")
    put("bomb.bmp", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:], "million pixels")
    start_of_frame = jpeg.index(b"\xff\xc0") + 5
    huge = jpeg[:start_of_frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[start_of_frame + 4 :]
    put("bomb.jpg", huge, "million pixels")
    put("text-bomb.png", png_of(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000)))), "")
    put("no-pixels.png", png_of(8, 8), "")
    put("no-size.png", png_of(0, 0), "")
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    put("damaged.png", bytes(damaged), "")
    put("new\nline.jpg", b"x", known)
    put("h" * 251 + ".jpg", b"x", known)
    put(os.fsdecode(b"\xff\xfe.jpg"), b"x", known)
    put("endless-directory.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "")
    if "HEIF" not in FORMATS:
        put("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "pip install")
    else:
        put("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "")

    (folder / "nowhere.jpg").symlink_to(folder / "no such file")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.png"))
    with (folder / "sparse.bmp").open("wb") as file:
        file.truncate(3 << 30)
    expected |= {"nowhere.jpg": "leads nowhere", "itself.jpg": "leads nowhere", "endless.jpg": "device"}
    expected |= {"pipe.png": "pipe", "socket.png": "socket", "sparse.bmp": "larger than 2 GB"}
    for number in range(HOSTILE - len(expected)):
        put(f"cut-{number}.jpg", jpeg[: 700 + 40 * number], "")
    return expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file system with pipes and sockets")
def test_good_images_are_indexed_and_hostile_files_have_reasons(tiny_bundle: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "p", tmp_path / "index"
    folder.mkdir()
    good = make_good(folder)
    expected = make_hostile(folder / "hostile")
    assert (len(good), len(expected)) == (GOOD, HOSTILE)
    command = ("miniclip.cli", "index", folder, "--bundle", tiny_bundle, "--out", out, "--provider", "cpu")
    done = run_cli(*command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert re.search(rf"^{GOOD} images embedded, .* {HOSTILE} skipped", done.stdout, re.MULTILINE), done.stdout
    index = ImageIndex.open(out)
    assert {path.name for path in index.paths} == good
    assert all(path.exists() for path in index.paths)
    reasons = {os.path.basename(problem.path): problem.reason for problem in index.skipped}
    assert len(reasons) == HOSTILE
    for name, words in expected.items():
        reason = reasons[stored_path(name)]
        assert words in reason and reason.strip(), (name, reason)
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipping ")]
    assert len(lines) == HOSTILE and all(": " in line for line in lines)

    again = run_cli(*command)
    assert again.returncode == 0, again.stderr
    assert f"0 images embedded, {GOOD} unchanged, 0 removed, {HOSTILE} skipped" in again.stdout
    assert "skipping hostile/text.jpg" not in again.stdout  # unchanged, so not retried
