"""Bundles by name from the hub: the downloaded files, the cache, and one line for each failure."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniclip.inference.bundle import SNAPSHOT
from miniclip.inference.bundle_location import HUB_NAME
from tests.support.cli import REPOSITORY
from tests.support.hub_server import HubServer, read_files

SETTINGS = dict.fromkeys(("config.json", "preprocessor_config.json", "tokenizer.json"), b"{}")
GRAPHS = {
    f"onnx/{tower}_model{suffix}.onnx": f"{tower}{suffix}".encode() * 50
    for tower in ("vision", "text")
    for suffix in ("", "_fp16", "_quantized", "_q4")
}
FILES = {**SETTINGS, **GRAPHS, "onnx/model.onnx": b"both" * 50, "README.md": b"card", "pytorch_model.bin": b"no"}
FIND = """
import sys
from miniclip.errors import MiniClipError
from miniclip.inference.bundle_location import find_bundle

for line in sys.argv[1:]:
    name, _, precision = line.partition(" ")
    try:
        print(find_bundle(name, precision or "auto"))
    except MiniClipError as error:
        print("error:", error)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer().start()
    server.add("jane/tiny", FILES)
    yield server
    server.stop()


def with_hub(hub: HubServer, cache: Path, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **settings, "NO_PROXY": "*", "PYTHONPATH": str(REPOSITORY), **environment},
        cwd=cache.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def find(hub: HubServer, cache: Path, *names: str, **environment: str) -> list[str]:
    done = with_hub(hub, cache, "-c", FIND, *names, **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stdout  # one line each, including errors
    return lines


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("jane/tiny", ("jane/tiny", None, None)),
        ("hf:jane/tiny", ("jane/tiny", None, None)),
        ("jane/tiny@v1.0", ("jane/tiny", None, "v1.0")),
        ("hf:jane/tiny/onnx/s0@main", ("jane/tiny", "onnx/s0", "main")),
    ],
)
def test_names_are_split_into_their_parts(name: str, parts: tuple[str | None, ...]) -> None:
    match = HUB_NAME.fullmatch(name)
    assert match is not None and match.groups() == parts
    assert HUB_NAME.fullmatch("/jane/tiny") is None


def test_only_needed_files_are_downloaded_and_a_moved_branch_is_followed(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.repositories["jane/tiny"].branches["main"]
    (folder,) = map(Path, find(hub, tmp_path / "cache", "jane/tiny"))
    assert folder.name == commit and SNAPSHOT.fullmatch(str(folder))
    wanted = {*SETTINGS, "README.md", *(name for name in GRAPHS if not name.endswith(("_fp16.onnx", "_q4.onnx")))}
    assert set(read_files(folder)) == wanted
    (same,) = map(Path, find(hub, tmp_path / "fp16", "jane/tiny fp16"))
    assert {name for name in read_files(same) if "onnx" in name} == {name for name in GRAPHS if "_fp16" in name}

    moved = hub.repositories["jane/tiny"].commit({**FILES, "tokenizer.json": b"[]"})
    new, pinned, emptied = find(hub, tmp_path / "cache", "jane/tiny", f"jane/tiny@{commit}", str(folder))
    assert Path(new).name == moved and (Path(new) / "tokenizer.json").read_bytes() == b"[]"
    assert pinned == emptied == str(folder)

    before = len(hub.requests)
    hub.stop()
    offline = find(hub, tmp_path / "cache", "jane/tiny", f"jane/tiny@{commit}", "jane/other")
    assert offline[:2] == [new, pinned] and len(hub.requests) == before
    assert offline[2].startswith("error: no folder jane/other, and no bundle of that name from the Hugging Face hub")


def test_an_index_keeps_its_commit_after_the_cache_was_emptied(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.repositories["jane/tiny"].branches["main"]
    hub.repositories["jane/tiny"].commit({**FILES, "tokenizer.json": b"[]"})
    gone = tmp_path / "cache/hub/models--jane--tiny/snapshots" / commit
    assert find(hub, tmp_path / "cache", str(gone)) == [str(gone)]
    assert (gone / "tokenizer.json").read_bytes() == b"{}"


def test_folder_inside_a_repository(hub: HubServer, tmp_path: Path) -> None:
    files = {f"onnx/s0/{name.removeprefix('onnx/')}": content for name, content in FILES.items() if "token" not in name}
    hub.add("jane/many", {**files, "tokenizer.json": b"{}", "onnx/s1/text_model.onnx": b"other"})
    (folder,) = map(Path, find(hub, tmp_path / "cache", "hf:jane/many/onnx/s0"))
    assert (folder / "vision_model.onnx").exists() and folder.name == "s0"
    assert (folder / "../../tokenizer.json").exists() and not (folder / "../s1").exists()


def test_a_refusal_of_the_hub_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    hub.add("jane/gated", FILES, token="hf_of_jane")
    hub.add("jane/consent", FILES, token="hf_of_jane", is_listed=True)
    hub.add("jane/torch", {**SETTINGS, "model.safetensors": b"weights"})
    hub.add("jane/q4", {name: content for name, content in FILES.items() if "_q4" in name or "json" in name})
    names = ("jane/none", "jane/tiny@v9", "jane/gated", "jane/consent", "jane/torch", "jane/q4")
    none, revision, gated, consent, torch, q4 = find(hub, tmp_path / "cache", *names)
    assert "no such model or revision" in none and "no such model or revision" in revision
    for refused in (gated, consent):
        assert "its owner must grant access first" in refused and "hf auth login" in refused
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    assert torch == "error: jane/torch on the hub is not a bundle for MiniCLIP: no ONNX file"
    assert "onnx/text_model_q4.onnx, onnx/vision_model_q4.onnx; MiniCLIP runs both towers in fp32" in q4
    (folder,) = find(hub, tmp_path / "cache", "jane/gated", HF_TOKEN="hf_of_jane")
    assert Path(folder, "tokenizer.json").exists()


def test_damaged_download_leaves_the_cache_and_can_be_repeated(hub: HubServer, tmp_path: Path) -> None:
    hub.damaged = {"onnx/text_model.onnx"}
    (refused,) = find(hub, tmp_path / "cache", "jane/tiny")
    assert refused == "error: text_model.onnx of jane/tiny arrived damaged; run the command again"
    hub.damaged = set()
    (folder,) = map(Path, find(hub, tmp_path / "cache", "jane/tiny"))
    assert (folder / "onnx/text_model.onnx").read_bytes() == GRAPHS["onnx/text_model.onnx"]


def test_download_that_ends_early_is_one_line_and_leaves_no_file(hub: HubServer, tmp_path: Path) -> None:
    hub.cut = {"onnx/text_model.onnx"}
    (refused,) = find(hub, tmp_path / "cache", "jane/tiny")
    assert refused.startswith("error: jane/tiny was not downloaded completely (")
    assert refused.endswith("); run the command again")
    assert not list((tmp_path / "cache").rglob("text_model.onnx"))
    hub.stop()  # an incomplete bundle does not count, so offline there is none
    (offline,) = find(hub, tmp_path / "cache", "jane/tiny")
    assert offline.startswith("error: no folder jane/tiny")


@pytest.mark.e2e
def test_commands_take_a_name_and_continue_offline(
    hub: HubServer, tiny_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    hub.add("jane/real", read_files(tiny_bundle))
    index = ("-m", "miniclip.cli", "index", image_folder, "--bundle", "jane/real", "--out", tmp_path / "index")
    made = with_hub(hub, tmp_path / "cache", *index)
    assert made.returncode == 0, made.stderr
    hub.stop()
    search = ("-m", "miniclip.cli", "search", "a red circle", "--index", tmp_path / "index", "--json")
    found = with_hub(hub, tmp_path / "cache", *search)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["results"]
    reported = with_hub(hub, tmp_path / "cache", "-m", "miniclip.cli", "info", "jane/real", "--json")
    assert json.loads(reported.stdout)["dimension"] == 32, reported.stderr
