"""`--image-root`: captions in one place, their images in another."""

import json
import shutil
from pathlib import Path

import pytest

from miniclip.data.captions import read_captions, read_sources
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name
from tests.support.cli import run_cli


def write(file: Path, *rows: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["image,caption", *rows]) + "\n")
    return file


def test_images_are_found_in_the_named_folder(tmp_path: Path) -> None:
    """In the folder, in its `Images`, and below; not a file of the same name beside the captions."""
    root = tmp_path / "far"
    add_images(root, "a.png", "Images/b.png", "sub/c.png")
    file = write(tmp_path / "near" / "captions.csv", "a.png,one", "b.png,two", "sub/c.png,three")
    add_images(tmp_path / "near", "a.png")
    for source in (file, file.parent):
        table = read_captions(source, image_root=root)
        assert captions_by_name(table) == {"a.png": ["one"], "b.png": ["two"], "c.png": ["three"]}
        assert all(path.is_relative_to(root) for path in table.image_paths)


def test_each_source_has_its_own_image_root(tmp_path: Path) -> None:
    for name in ("x", "y"):
        add_images(tmp_path / name, "a.png")
    files = [write(tmp_path / f"{name}.csv", f"a.png,{name}") for name in ("x", "y")]
    tables = read_sources(files, image_roots=[tmp_path / "x", tmp_path / "y"])
    assert [table.image_paths for table in tables] == [[tmp_path / "x/a.png"], [tmp_path / "y/a.png"]]
    with pytest.raises(MiniClipError, match="one folder for each --data: 2, got 1"):
        read_sources(files, image_roots=[tmp_path / "x"])


def test_a_wrong_image_root_is_one_line(tmp_path: Path) -> None:
    add_images(tmp_path / "images", "a.png")
    file = write(tmp_path / "captions.csv", "b.png,one")
    for source, root, words in (
        (file, tmp_path / "none", "none is not a folder"),
        (file, tmp_path / "images", "name another folder with --image-root"),
        (tmp_path / "images", tmp_path / "images", "holds none; name the file with --data"),
        ("openmoji", tmp_path / "images", "openmoji contains its images; leave it out"),
    ):
        with pytest.raises(MiniClipError, match=words):
            read_captions(source, image_root=root)


def test_every_command_with_captions_takes_it(
    tiny_bundle: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    shutil.copyfile(captioned_folder / "metadata.csv", tmp_path / "metadata.csv")
    data = ("--data", tmp_path / "metadata.csv", "--image-root", captioned_folder)
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    figures = tmp_path / "figures.json"
    for command in (
        ("train", "--config", tiny_config, *data, "--out", run, "--train.epochs", 1),
        ("export", "--run", run, "--out", bundle, "--precision", "fp32", *data),
        ("miniclip.cli", "evaluate", "--bundle", bundle, *data, "--split", "val", "--json", figures),
        ("miniclip.cli", "calibrate", bundle, *data),
        ("train.soup", "--runs", run, run, *data, "--out", tmp_path / "soup"),
        ("train.interpolate", "--before", run, "--after", run, *data, "--out", tmp_path / "mix", "--steps", 2),
    ):
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr
    assert json.loads(figures.read_text())["images"] == 12
