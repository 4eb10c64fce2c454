"""Runs are saved, pushed and opened by name, without private files. The hub is a small local server."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import Run, load_run
from miniclip.models.config import ModelConfig
from miniclip.models.hub import CARD, FILES, local_folder, model_card, public_name
from tests.support.cli import REPOSITORY
from tests.support.hub_server import HubServer

SHARED = {*FILES, CARD}
TOKEN = "hf_of_jane"
TEXTS = ["a red circle", "two dogs and a cat", "yellow"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer(TOKEN).start()
    yield server
    server.stop()


def with_hub(address: str, cache: Path, *command: object, token: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `python COMMAND` as a user of this hub with a new cache."""
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_TOKEN": token}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **settings, "NO_PROXY": "*"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


PUSH_AND_OPEN = """
import sys
import numpy as np
from miniclip.models.checkpoint import Run

folder, token, out, *texts = sys.argv[1:]
run = Run.from_pretrained(folder)
print(run.push_to_hub("jane/tiny", private=True, token=token))
opened = Run.from_pretrained("jane/tiny")
assert opened.folder != run.folder and opened.fingerprint == run.fingerprint
np.savez(out, pushed=run.encoders().encode_texts(texts), opened=opened.encoders().encode_texts(texts))
"""

OPEN = """
import sys
from miniclip.cli.command import run_command
from miniclip.models.hub import local_folder

run_command(lambda: print(local_folder(sys.argv[1])) or 0)
"""

UPLOAD = """
import sys
from pathlib import Path
from miniclip.cli.command import run_command
from miniclip.models.hub import upload

folder, private, token = Path(sys.argv[1]), sys.argv[2] == "private", sys.argv[3]
run_command(lambda: print(upload(folder, "jane/tiny", private, token)) or 0)
"""


def message(name_or_folder: str | Path) -> str:
    with pytest.raises(MiniClipError) as error:
        load_run(name_or_folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_run_is_the_same_model_without_private_files(
    tiny_run: Path, tiny_backbones: tuple[Path, Path], image_folder: Path, tmp_path: Path
) -> None:
    assert (tiny_run / "training_state.pt").exists() and list(tiny_run.glob("calibration*"))
    run = load_run(tiny_run)
    run.save_pretrained(tmp_path / "new" / "copy")
    copy = Run.from_pretrained(tmp_path / "new" / "copy")
    assert {path.name for path in copy.folder.iterdir()} == SHARED
    assert copy.fingerprint == run.fingerprint and copy.metrics == run.metrics
    images = sorted(image_folder.glob("*.png"))
    for one, other in zip(run.encoders().encode_images(images), copy.encoders().encode_images(images), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(run.encoders().encode_texts(TEXTS), copy.encoders().encode_texts(TEXTS))
    assert copy.config.train == run.config.train
    assert (copy.config.model.vision, copy.config.model.text) == tuple(folder.name for folder in tiny_backbones)
    for name in ("config.json", "tokenizer_config.json", CARD):
        assert str(tiny_backbones[0].parent) not in (copy.folder / name).read_text(), name


def test_saving_again_keeps_the_users_own_card(tiny_run: Path, tmp_path: Path) -> None:
    run = load_run(tiny_run)
    run.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / CARD).write_text("my words")
    run.save_pretrained(tmp_path / "a")
    copy = Run.from_pretrained(tmp_path / "a")
    copy.save_pretrained(copy.folder)
    copy.save_pretrained(tmp_path / "b")
    assert (tmp_path / "a" / CARD).read_text() == (tmp_path / "b" / CARD).read_text() == "my words"


def test_a_run_in_training_is_not_saved_over(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "training_state.pt").touch()
    with pytest.raises(MiniClipError, match="holds the training of another run; choose another folder"):
        load_run(tiny_run).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training_state.pt"]


def test_a_file_instead_of_the_folder_is_one_line(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MiniClipError, match=r"cannot write .*file/a: .*; choose another folder"):
        load_run(tiny_run).save_pretrained(tmp_path / "file" / "a")


def test_the_card_serves_the_hub_and_its_readers() -> None:
    from huggingface_hub import ModelCard

    recalls = {f"{way}_recall@{k}": 0.1 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    config = ModelConfig(vision="facebook/dinov2-small", text="/home/jane/bert", projection_dim=128)
    text = model_card("jane/tiny", config, {**recalls, "image_to_text_recall@5": 0.3217, "mean_recall": 0.137})
    data = ModelCard(text).data.to_dict()
    assert data.pop("tags") == ["clip", "image-text-retrieval"]
    assert data == {"library_name": "miniclip", "pipeline_tag": "zero-shot-image-classification"}
    assert "`facebook/dinov2-small` and `bert` into 128 dimensions" in text and "/home" not in text
    assert "| image to text | 10.0 | 32.2 | 10.0 |" in text and "Their mean is 13.7 %" in text and "karpathy" in text
    assert 'Run.from_pretrained("jane/tiny")' in text and "python -m export --run jane/tiny" in text
    assert "karpathy" not in model_card("jane/tiny", config, {})


@pytest.mark.parametrize(
    ("spec", "public"),
    [
        ("package:efficientnet-lite0", "package:efficientnet-lite0"),
        ("google/vit", "google/vit"),
        ("runs/vit", "runs/vit"),
        ("/home/jane/vit/", "vit"),
        ("~/vit", "vit"),
        ("../vit", "vit"),
    ],
)
def test_only_the_name_of_a_local_folder_is_shared(spec: str, public: str) -> None:
    assert public_name(spec) == public


def test_an_existing_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jane/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_folder("jane/tiny") == Path("jane/tiny")
    assert message("jane/tiny").startswith("no run at jane/tiny; make one with: python -m train")


@pytest.mark.parametrize(
    "path", ["nowhere", "./runs/typo", "/runs/typo", "../typo", "~/typo", "a/b/c", "a b/c", "a--b/c"]
)
def test_a_name_that_the_hub_does_not_allow_is_a_path(path: str) -> None:
    assert message(path) == f"no run at {path}; make one with: python -m train --config C --data D --out {path}"


def test_a_wrong_path_that_reads_like_a_name_is_reported_as_a_path_first() -> None:
    started = time.perf_counter()
    for path in ("runs/typo", Path("runs/typo")):
        expected = "no run at runs/typo, and none of that name from the Hugging Face hub (HF_HUB_OFFLINE is set); make"
        assert message(path).startswith(expected)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", ["tiny", "jane/tiny/x", "./tiny", ""])
def test_a_name_without_a_user_is_not_pushed(name: str, tiny_run: Path) -> None:
    with pytest.raises(MiniClipError, match=r"is called USER/NAME, got"):
        load_run(tiny_run).push_to_hub(name)


def test_push_without_the_hub_is_one_line(tiny_run: Path) -> None:
    with pytest.raises(MiniClipError) as error:
        load_run(tiny_run).push_to_hub("jane/tiny")
    assert str(error.value) == "cannot push to jane/tiny on the Hugging Face hub (HF_HUB_OFFLINE is set)"


@pytest.mark.e2e
def test_a_pushed_run_opens_by_its_name_elsewhere(tiny_run: Path, hub: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "embeds.npz"
    done = with_hub(hub.address, tmp_path / "cache", "-c", PUSH_AND_OPEN, tiny_run, TOKEN, out, *TEXTS, token=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/jane/tiny"
    repository = hub.repositories["jane/tiny"]
    assert repository.private and set(repository.files) == SHARED
    assert b'from_pretrained("jane/tiny")' in repository.files[CARD]
    embeds = np.load(out)
    assert embeds["opened"].shape == (3, 32) and np.array_equal(embeds["pushed"], embeds["opened"])

    # the same with the export command, as another user with another cache; the bundle needs none of jane's images
    repository.private = False
    repository.commit({**repository.files, "calibration.npz": b"not wanted", "training_state.pt": b"not wanted"})
    command = ("-m", "export", "--run", "jane/tiny", "--out", tmp_path / "bundle", "--precision", "fp32")
    done = with_hub(hub.address, tmp_path / "other", *command)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert manifest["fingerprint"] == load_run(tiny_run).fingerprint
    assert {request.split("/")[-1] for request in hub.requests if "/resolve/" in request} == SHARED

    # and from the cache without a network
    hub.stop()
    done = with_hub(hub.address, tmp_path / "other", "-c", OPEN, "jane/tiny")
    assert Path(done.stdout.strip(), "config.json").exists(), done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_without_the_run_is_one_line(answers: bool, hub: HubServer, tmp_path: Path) -> None:
    if not answers:
        hub.stop()
    started = time.perf_counter()
    done = with_hub(hub.address, tmp_path, "-c", OPEN, "runs/typo")
    assert time.perf_counter() - started < 15
    reason = "no such model, or no access to it: check the name, or log in with: hf auth login" if answers else ".*"
    expected = (
        rf"error: no run at runs/typo, and none of that name from the Hugging Face hub \({reason}\); make one .*\n"
    )
    assert done.returncode == 2 and re.fullmatch(expected, done.stderr), done.stderr


@pytest.mark.e2e
def test_a_model_of_another_kind_is_not_a_run(hub: HubServer, tmp_path: Path) -> None:
    hub.add("jane/words", {"model.gguf": b"x"})
    done = with_hub(hub.address, tmp_path, "-c", OPEN, "jane/words")
    assert done.returncode == 2 and "the model of that name on the Hugging Face hub has no config.json" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("private", "token", "expected"),
    [
        ("public", TOKEN, None),
        ("public", "hf_of_somebody", "cannot push to jane/tiny on the Hugging Face hub (no such model, or no access"),
        ("private", TOKEN, "jane/tiny is public already; make it private on"),
    ],
)
def test_upload_to_an_existing_repository(
    private: str, token: str, expected: str | None, hub: HubServer, tmp_path: Path
) -> None:
    hub.add("jane/tiny", {"onnx": b"kept"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    done = with_hub(hub.address, tmp_path / "cache", "-c", UPLOAD, tmp_path / "run", private, token)
    files = {"onnx": b"kept"}
    if expected is None:
        assert done.stdout == f"{hub.address}/jane/tiny\n", done.stderr
        files |= {"config.json": b"{}"}
    else:
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert hub.repositories["jane/tiny"].files == files


@pytest.mark.e2e
def test_the_commands_load_neither_the_hub_client_nor_torch() -> None:
    code = "import sys, miniclip.cli, miniclip.models.hub; print({'torch', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
