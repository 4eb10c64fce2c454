"""Edge cases of commands: no unneeded work, and no guesses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from miniclip.cli.main import run
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.scan import scan_images
from miniclip.index.stored_embeds import StoredEmbeds
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.approximate import AnnSearch
from miniclip.search.searcher import Searcher
from tests.support.drawing import draw_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, colour in enumerate(("red", "blue", "green")):
        draw_image(colour, "circle", seed=seed).save(folder / f"{colour}.png")
    return folder


def refusal(*command: object) -> str:
    with pytest.raises(MiniClipError) as refused:
        run([str(part) for part in command])
    return str(refused.value)


def test_captions_are_embedded_only_if_they_are_printed(
    tiny_index: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    (index / "captions.npz").unlink(missing_ok=True)  # another test may have asked for them
    embedded: list[str] = []
    encode = OnnxEncoders.encode_texts

    def listen(self: OnnxEncoders, texts: Any) -> Any:
        embedded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(OnnxEncoders, "encode_texts", listen)
    command = ["search", "--image", str(folder / "red.png"), "--index", str(index), "--provider", "cpu"]
    run([*command, "-0"])
    assert "a red circle on white" not in embedded
    run(command)
    assert "a red circle on white" in embedded


def test_an_empty_folder_name_is_not_the_current_folder(tiny_index: Path) -> None:
    error = refusal("search", "a dog", "--index", tiny_index, "--folder", "")
    assert "--folder" in error and "is empty; name a folder, or leave it out" in error


def test_a_limit_above_the_number_of_rows_is_allowed(tiny_index: Path, tiny_bundle: Path) -> None:
    index = ImageIndex.open(tiny_index, in_memory=False)
    searcher = Searcher(index, OnnxEncoders(Bundle.open(tiny_bundle), "cpu"), AnnSearch(index.stored))
    assert len(searcher.by_text("a dog", 10**20)) == 12


def test_info_reads_no_embeddings(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(StoredEmbeds, "read")
    monkeypatch.setattr("miniclip.index.image_index.map_embeddings", None)
    assert run(["info", str(tiny_index), "--provider", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 12


def test_classify_names_unreadable_files(tiny_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "nowhere.png").symlink_to(folder / "none")
    (folder / "text.png").write_text("no image")
    command = ["classify", str(folder), "--labels", "red", "blue", "--bundle", str(tiny_bundle), "--provider", "cpu"]
    assert run(command) == 0
    error = capsys.readouterr().err
    assert f"skipping {folder}/nowhere.png: a link that leads nowhere" in error
    assert f"skipping {folder}/text.png: not an image" in error
    assert run([*command, "--json"]) == 0
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert {entry["path"] for entry in skipped} == {f"{folder}/nowhere.png", f"{folder}/text.png"}


def test_jfif_is_a_jpeg(folder: Path) -> None:
    draw_image("red", "circle").save(folder / "saved.JFIF", "JPEG")
    assert f"{folder}/saved.JFIF" in scan_images(str(folder)).files


@pytest.mark.parametrize(("name", "better"), [("found.jpg", "found.png"), ("a.b.webp", "a.b.png")])
def test_a_sheet_must_be_a_png(tiny_index: Path, tmp_path: Path, name: str, better: str) -> None:
    error = refusal("search", "a dog", "--index", tiny_index, "--sheet", tmp_path / name)
    assert f"draws a PNG; name it {tmp_path / better}" in error
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_changed_is_not_recommended(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    bundle, index = tmp_path / "bundle", tmp_path / "index"
    shutil.copytree(tiny_bundle, bundle)
    run(["index", str(folder), "--bundle", str(bundle), "--out", str(index), "--provider", "cpu"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "1" * 64}))
    for more in ([], ["--bundle", bundle]):
        error = refusal("search", "a dog", "--index", index, "--provider", "cpu", *more)
        assert "has changed since the index" in error and "index the images again" in error and "--bundle" not in error
