"""An image with two names, by links: one row with its captions, found by either name, never a copy to delete."""

import os
import shutil
from pathlib import Path

import pytest

from miniclip.cli.main import run
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.scan import scan_images
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import draw_image


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


def put(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_image(colour, "circle").save(path)
    return path


# captions


@pytest.mark.parametrize("target", ["elsewhere", "data/files", "data/zebra"])
def test_a_linked_folder_gives_one_row_per_image_with_its_captions(tmp_path: Path, target: str) -> None:
    """Whether the scan reaches the images by the link or by its target."""
    for name in ("a.png", "b.png"):
        put(tmp_path / target / name)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data/images").symlink_to(tmp_path / target)
    (tmp_path / "data/captions.txt").write_text("image,caption\na.png,first\na.png,second\nb.png,third\n")
    found = scan_images(str(tmp_path / "data"))
    assert [file.captions for _, file in sorted(found.files.items())] == [("first", "second"), ("third",)]
    assert {Path(path).name for path in found.files} == {"a.png", "b.png"} and found.problems == []
    assert all(path.startswith(f"{tmp_path.resolve()}/data/") for path in found.files)


def test_captions_under_both_names_of_a_folder_belong_to_one_image(tmp_path: Path) -> None:
    put(tmp_path / "data/one/a.png")
    (tmp_path / "data/two").symlink_to("one")
    (tmp_path / "data/metadata.csv").write_text("file_name,text\none/a.png,first\ntwo/a.png,second\n")
    (file,) = scan_images(str(tmp_path / "data")).files.values()
    assert (file.path, file.captions) == (str(tmp_path.resolve() / "data/one/a.png"), ("first", "second"))


def test_a_captioned_file_without_an_image_suffix_is_below_the_folder(tmp_path: Path) -> None:
    shutil.move(put(tmp_path / "elsewhere/a.png"), tmp_path / "elsewhere/a.dat")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/Images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/captions.txt").write_text("image,caption\na.dat,first\n")
    (file,) = scan_images(str(tmp_path / "data")).files.values()
    assert (file.path, file.captions) == (str(tmp_path.resolve() / "data/Images/a.dat"), ("first",))


# files to delete


def deletable(index: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> list[str]:
    assert run(["duplicates", "--index", str(index), "--threshold", "1", "-0"]) == 0
    return [os.path.basename(os.fsdecode(path)) for path in capsysbinary.readouterr().out.split(b"\0")[:-1]]


def test_only_copy_is_never_listed_as_a_duplicate(
    encoders: OnnxEncoders, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder, out = tmp_path / "p", tmp_path / "index"
    (folder / "b-link.png").parent.mkdir()
    (folder / "b-link.png").symlink_to(put(folder / "z.png"))
    update_index(str(folder), encoders, out)
    assert deletable(out, capsysbinary) == []  # z.png is the target of the kept link
    shutil.copy(folder / "z.png", folder / "y.png")
    update_index(str(folder), encoders, out)
    assert deletable(out, capsysbinary) == ["y.png"]
    shutil.copy(folder / "z.png", folder / "a.png")
    update_index(str(folder), encoders, out)
    assert deletable(out, capsysbinary) == ["b-link.png", "y.png"]  # one name of z.png is enough
    assert run(["duplicates", "--index", str(out), "--threshold", "1"]) == 0
    lines = [line.split(b"\t") for line in capsysbinary.readouterr().out.splitlines()]
    assert [(kind, os.path.basename(path)) for _, kind, path in lines] == [
        (b"first", b"a.png"),
        (b"equal", b"b-link.png"),
        (b"equal", b"y.png"),
        (b"same file", b"z.png"),  # the target of b-link.png, although it is not the first
    ]


def test_a_copy_is_listed_only_if_the_kept_file_still_exists(
    encoders: OnnxEncoders, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The index is old: the file that it keeps may be gone, or hold another image."""
    folder, out = tmp_path / "p", tmp_path / "index"
    first = put(folder / "a.png")
    for name in ("b.png", "c.png", "d.png"):
        shutil.copy(first, folder / name)
    update_index(str(folder), encoders, out)
    assert deletable(out, capsysbinary) == ["b.png", "c.png", "d.png"]
    first.unlink()
    assert deletable(out, capsysbinary) == ["c.png", "d.png"]
    put(folder / "b.png", "blue")
    assert deletable(out, capsysbinary) == ["d.png"]
    put(folder / "d.png", "green")
    assert deletable(out, capsysbinary) == []  # only c.png is left
    (folder / "c.png").unlink()
    assert deletable(out, capsysbinary) == []


def test_images_in_object_storage_are_never_listed(
    encoders: OnnxEncoders, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    shutil.copy(put(tmp_path / "p/a.png"), tmp_path / "p/b.png")
    update_index(f"file://{tmp_path}/p", encoders, tmp_path / "index")
    assert deletable(tmp_path / "index", capsysbinary) == []
    assert run(["duplicates", "--index", str(tmp_path / "index"), "--threshold", "1"]) == 0
    assert len(capsysbinary.readouterr().out.splitlines()) == 2  # although it is shown


# places


@pytest.fixture
def linked(encoders: OnnxEncoders, tmp_path: Path) -> ImageIndex:
    """An index of `p`, which is a link; inside it, `inner` is a link to a folder elsewhere."""
    put(tmp_path / "real/z.png")
    put(tmp_path / "elsewhere/deep/x.png", "blue")
    (tmp_path / "real/inner").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p").symlink_to(tmp_path / "real")
    update_index(str(tmp_path / "p"), encoders, tmp_path / "index")
    return ImageIndex.open(tmp_path / "index")


@pytest.mark.parametrize("folder", ["p/inner", "real/inner", "elsewhere", "p/inner/deep", "p/../real/inner/", "p"])
def test_folder_is_found_by_each_of_its_names(linked: ImageIndex, tmp_path: Path, folder: str) -> None:
    below = [
        path.name for path, inside in zip(linked.paths, linked.below(f"{tmp_path}/{folder}"), strict=True) if inside
    ]
    # by its own name, the folder elsewhere is not in the index
    assert below == {"elsewhere": [], "p": ["x.png", "z.png"]}.get(folder, ["x.png"])


@pytest.mark.parametrize("name", ["p/z.png", "real/z.png", "p/inner/../z.png", "p/inner/deep/x.png", "real/./z.png"])
def test_image_is_found_by_each_of_its_names(linked: ImageIndex, tmp_path: Path, name: str) -> None:
    row = linked.row_of(f"{tmp_path}/{name}")
    assert row is not None and linked.paths[row].name == os.path.basename(name)


def test_image_is_found_from_the_folder_beside_it(
    linked: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/beside").mkdir()
    monkeypatch.chdir(tmp_path / "real/beside")
    assert linked.row_of("../z.png") == linked.row_of(tmp_path / "real/z.png") is not None
    assert linked.row_of("z.png") is None and linked.below("..").all() and not linked.below(".").any()


def test_a_link_to_an_image_finds_the_row_of_its_target(encoders: OnnxEncoders, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a-link.png").symlink_to(put(tmp_path / "p/z.png"))
    (tmp_path / "outside.png").symlink_to(tmp_path / "p/z.png")
    update_index(str(tmp_path / "p"), encoders, tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    assert [index.row_of(tmp_path / name) for name in ("p/a-link.png", "p/z.png", "outside.png")] == [0, 1, 1]
