"""Folders without the user's images, exclude patterns, and counts of skipped files by kind."""

from pathlib import Path

import pytest
from PIL import Image

from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.scan import scan_images
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import encoders, images

__all__ = ["encoders", "images"]  # fixtures

NOT_THE_USERS = [
    "@eaDir", "#recycle", "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin", "lost+found", "node_modules",
    "RECYCLER", "@Recycle", "@__thumb", "#snapshot", "__MACOSX", "LOST.DIR", "FOUND.000", "thumbs", "Thumbnails",
    "Catalog Previews.lrdata", "Photos Library.photoslibrary/resources", "site-packages", "appdata_ocx/preview",
    "files_trashbin", "PRIVATE/M4ROOT/THMBNL", "iPod Photo Cache", "Recycle Bin - Volume_1", "AppData/Local",
    "Library/Caches", "$WINDOWS.~BT", "encoded-video", "_thumbnails",
]  # fmt: skip


def draw(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 0, 0)).save(folder / name, "PNG")
    return folder


def found(folder: Path, *exclude: str) -> list[str]:
    result = scan_images(str(folder), exclude)
    return [path.removeprefix(str(folder.resolve()) + "/") for path in sorted(result.files)]


@pytest.mark.parametrize("name", NOT_THE_USERS)
def test_folders_of_programs_are_left_out_at_any_depth(tmp_path: Path, name: str) -> None:
    draw(tmp_path, "a.png", f"{name}/x.png", f"holiday/{name}/deep/x.png", "holiday/b.png")
    assert found(tmp_path) == ["a.png", "holiday/b.png"]
    (remark,) = scan_images(str(tmp_path)).remarks()
    assert remark == f"left out: {name.rpartition('/')[2]}/ 2"


def test_the_users_own_folders_stay(tmp_path: Path) -> None:
    names = ["Recycling/a.png", "eaDir/a.png", "lost and found/a.png", "Photos Library.photoslibrary/originals/1/a.png"]
    assert found(draw(tmp_path, *names)) == sorted(names)


def test_exclude_has_the_form_of_gitignore(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.gif", "old/c.png", "x/old/d.png", "#x/e.png", "thumbs/f.png")
    assert found(tmp_path, "*.gif") == ["#x/e.png", "a.png", "old/c.png", "x/old/d.png"]
    assert found(tmp_path, "/old/", "#x") == ["a.png", "b.gif", "x/old/d.png"]
    assert found(tmp_path, "*", "!*/", "!a.png") == ["a.png"]
    assert "thumbs/f.png" in found(tmp_path, "!thumbs/")
    with pytest.raises(InvalidArgument, match="exclude is not a valid gitignore pattern"):
        found(tmp_path, "!")


def test_ignore_files_apply_from_their_own_folder(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "sub/a.png", "sub/b.png", "sub/thumbs/c.png")
    (tmp_path / ".miniclipignore").write_text("# mine\n/b.png\n")
    (tmp_path / "sub/.miniclipignore").write_text("a.png\n!thumbs/\n")
    assert found(tmp_path) == ["a.png", "sub/b.png", "sub/thumbs/c.png"]
    (tmp_path / ".miniclipignore").write_text("!\n")
    with pytest.raises(MiniClipError, match="miniclipignore has an invalid pattern"):
        found(tmp_path)


def test_captions_bring_no_excluded_image_back(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "thumbs/b.png")
    (tmp_path / "captions.csv").write_text("image,caption\na.png,one\nthumbs/b.png,two\n")
    assert found(tmp_path) == ["a.png"]


def test_skipped_files_are_counted_by_kind(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", ".jpg", "sub/.PNG")
    for name in ("b.psd", "c.PSD", "d.vob", "e.pdf", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (remark,) = scan_images(str(tmp_path)).remarks()
    assert remark.startswith("passed over: image of another kind (.psd) 2, ")
    assert {"video (.vob) 1", "PDF (.pdf) 1", "files named only .jpg; give them a name: 1"} <= set(
        remark.removeprefix("passed over: ").split(", ")
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(MiniClipError, match=r"no images.*passed over: image of another kind"):
        scan_images(str(tmp_path))


def test_an_index_remembers_its_exclude_patterns(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    report = update_index(str(images), encoders, out, exclude=["b.*"])
    assert (report.kept, report.removed) == (2, 1) and report.notes == ["left out: single files 1"]
    report = update_index(str(images), encoders, out)  # it remembers the pattern
    assert (report.kept, report.added) == (2, 0)
    report = update_index(str(images), encoders, out, exclude=[""])  # and drops it on request
    assert (report.kept, report.added) == (2, 1)


def test_rows_of_newly_excluded_folders_are_removed(
    encoders: OnnxEncoders,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "index"
    draw(images, "@eaDir/x.png")
    monkeypatch.setattr("miniclip.data.ignore.BUILT_IN", ())
    assert update_index(str(images), encoders, out).added == 4
    monkeypatch.undo()
    assert update_index(str(images), encoders, out).removed == 1
    assert not ImageIndex.open(out).below(images / "@eaDir").any()
