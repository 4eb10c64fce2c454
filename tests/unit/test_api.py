"""The public API: a few lines are enough, inputs have any usual form, and docs/api.md describes it."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import miniclip
import miniclip.index.scan  # the package that `miniclip.index` also is
from tests.support.cli import REPOSITORY


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> miniclip.Model:
    return miniclip.load(tiny_bundle, provider="cpu", precision="fp32", threads=1)


@pytest.fixture
def photos(image_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(image_folder, tmp_path / "photos"))


def test_importing_loads_nothing() -> None:
    code = "import miniclip, sys; print({'numpy', 'onnxruntime', 'lancedb', 'PIL', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr


def test_every_public_name_is_there() -> None:
    for name in miniclip.__all__:
        assert getattr(miniclip, name) is not None
    assert set(dir(miniclip)) >= set(miniclip.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = miniclip.nothing  # type: ignore[attr-defined]


def test_encode_images_takes_every_usual_form(model: miniclip.Model, photos: Path) -> None:
    path = sorted(photos.glob("*.png"))[0]
    image = Image.open(path)
    forms = [path, str(path), path.read_bytes(), image, np.asarray(image.convert("RGB"))]
    embeds = model.encode_images(forms)
    assert embeds.shape == (5, model.dim) and embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, np.tile(embeds[:1], (5, 1)), atol=1e-6)
    for one in forms:
        np.testing.assert_allclose(model.encode_images(one), embeds[:1], atol=1e-6)  # type: ignore[call-overload]
    np.testing.assert_allclose(model.encode_images(tuple(forms)), embeds, atol=1e-6)


def test_a_rotated_pil_image_is_turned_upright(model: miniclip.Model, photos: Path, tmp_path: Path) -> None:
    image = Image.open(sorted(photos.glob("*triangle*.png"))[0]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(tmp_path / "turned.png")
    np.testing.assert_allclose(model.encode_images(turned), model.encode_images(tmp_path / "turned.png"), atol=1e-6)


def test_an_unreadable_image_is_an_error_or_skipped(model: miniclip.Model, photos: Path) -> None:
    paths = [*sorted(photos.glob("*.png"))[:2], photos / "none.png"]
    with pytest.raises(miniclip.MiniClipError, match=r"none\.png: no such file"):
        model.encode_images(paths)
    embeds, rows = model.encode_images([paths[2], *paths[:2]], on_error="skip")
    assert rows.tolist() == [1, 2] and embeds.shape == (2, model.dim)
    with pytest.raises(miniclip.MiniClipError, match="must be uint8"):
        model.encode_images(np.zeros((8, 8, 3)))


def test_similarity_takes_texts_images_and_embeddings(model: miniclip.Model, photos: Path) -> None:
    paths, texts = sorted(photos.glob("*.png"))[:3], ("a red circle", "a blue square")
    similarity = model.similarity(texts, paths)
    assert similarity.shape == (2, 3)
    again = model.similarity(model.encode_texts(list(texts)), model.encode_images(paths))
    np.testing.assert_allclose(similarity, again, atol=1e-6)
    assert model.encode_texts("a red circle").shape == (1, model.dim)


def test_classify_puts_the_likeliest_label_first(model: miniclip.Model, photos: Path) -> None:
    (own,) = model.classify(sorted(photos.glob("red-circle*"))[0], ("red circle", "blue square"))
    assert sum(own.values()) == pytest.approx(1) and list(own.values()) == sorted(own.values(), reverse=True)


def test_a_folder_is_indexed_once_and_searched(model: miniclip.Model, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    lines: list[str] = []
    found = miniclip.index(photos, model, say=lines.append)
    assert len(found) == 12 and any("12 images embedded" in line for line in lines)
    lines.clear()
    again = miniclip.index(photos, model, say=lines.append)
    assert lines == [] and again.folder == found.folder and sorted(photos.rglob("*")) == before
    hits = found.search("a red circle", top_k=5)
    assert len(hits) == 5 and "red-circle" in hits[0].path.name and hits[0].by_name and hits[0].captions
    assert hits[0].open().mode == "RGB"
    assert found.search(images=hits[0].path, top_k=1)[0].score == pytest.approx(1, abs=1e-3)
    opened = miniclip.open_index(found.folder)
    best = opened.search(["a red circle"], top_k=1)  # in int8, lower ranks may differ
    assert [hit.path for hit in best] == [hits[0].path]


def test_the_api_document_equals_the_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("make_api", REPOSITORY / "docs" / "make_api.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == module.api_document(), "python docs/make_api.py"


SNIPPETS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_every_snippet_of_the_document_runs(
    code: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted(photos.glob("*.jpg"))
    for name, image in zip(("dog.jpg", "beach.jpg"), images, strict=False):
        shutil.copy(image, photos / name)
    monkeypatch.chdir(photos.parent)
    exec(compile(code, "docs/api.md", "exec"), {})
    assert capsys.readouterr().out.strip()
