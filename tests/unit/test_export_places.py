"""The folder of an export: no file of the user is lost, and an impossible folder is one line."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import export.__main__ as export_command
from miniclip.errors import MiniClipError
from miniclip.files import write_json
from miniclip.inference.bundle import Bundle
from miniclip.inference.manifest import list_files


def export_here(patch: pytest.MonkeyPatch, run: Path, out: Path) -> int:
    """The command in this process, because imports take most of its time."""
    patch.setattr(sys, "argv", ["command", "--run", str(run), "--out", str(out), "--precision", "fp32"])
    return export_command.main()


def test_export_does_not_replace_the_bundle_of_another_run(
    tiny_run: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    manifest = json.loads((out / "manifest.json").read_text())
    write_json(out / "manifest.json", {**manifest, "fingerprint": "0" * 64})
    before = list_files(out)
    with pytest.raises(MiniClipError, match="is the bundle of another run; choose another --out, or delete it"):
        export_here(monkeypatch, tiny_run, out)
    assert list_files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]  # nothing incomplete is left beside it


def test_export_does_not_replace_a_folder_without_a_bundle(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MiniClipError, match="exists and is not a bundle; choose another --out"):
        export_here(monkeypatch, tiny_run, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "words"), [("notes.txt", r"\(notes\.txt\)"), ("README.md", r"\(README\.md, changed by hand\)")]
)
def test_export_does_not_delete_files_of_the_user_in_a_bundle(
    name: str, words: str, tiny_run: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (out / name).write_text("mine")
    with pytest.raises(MiniClipError, match=f"has files that no export wrote {words}; move them away"):
        export_here(monkeypatch, tiny_run, out)
    assert (out / name).read_text() == "mine"


def test_export_to_an_impossible_place_is_one_line(
    tiny_run: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    damaged = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    (damaged / "manifest.json").write_text("{")
    for out, words in (
        (tmp_path / "file", "is a file; choose another --out"),
        (tmp_path / "file/bundle", "cannot write .*; choose another --out"),
        (damaged, "cannot be read; choose another --out"),
    ):
        with pytest.raises(MiniClipError, match=words):
            export_here(monkeypatch, tiny_run, out)


def test_export_through_a_link_replaces_its_target(
    tiny_run: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "target"))
    (target / "tokenizer.json").write_text("damaged")  # only an export repairs it
    (tmp_path / "link").symlink_to(target)
    assert export_here(monkeypatch, tiny_run, tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink() and Bundle.open(target).precisions == ["fp32"]
