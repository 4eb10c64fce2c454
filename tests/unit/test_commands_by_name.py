"""Every command with a bundle takes its name on the hub, and still works when the hub is gone."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.space import main as write_space
from miniclip.inference.bundle import Bundle
from miniclip.search.searcher import Searcher
from tests.support.cli import run_cli
from tests.support.hub_server import HubServer, Repository, read_files, use_hub

NAME = "jane/others"
Run = Callable[..., str]


@pytest.fixture
def hub(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A published bundle without a manifest; `MINICLIP_CACHE` is new."""
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "miniclip"))
    server = HubServer().start()
    server.repositories[NAME] = Repository()
    server.repositories[NAME].commit({n: c for n, c in read_files(tiny_bundle).items() if n != "manifest.json"})
    use_hub(monkeypatch, server, tmp_path / "hub")
    yield server
    server.stop()


def succeeded(*arguments: object) -> str:
    done = run_cli("miniclip.cli", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_take_a_name_with_and_without_the_hub(
    hub: HubServer, image_folder: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    data = ("--data", captioned_folder, "--split", "val", "--precision", "fp32")

    def each(place: Path) -> list[str]:
        """The output of all commands, without paths and rates."""
        index = place / "index"
        succeeded("index", image_folder, "--bundle", NAME, "--out", index, "--precision", "fp32")
        search = ("a red circle", "--json", "--precision", "fp32")
        figures = place / "figures.json"
        succeeded("evaluate", "--bundle", NAME, *data, "--json", figures)
        return [
            str([hit["score"] for hit in json.loads(succeeded("search", *search, "--index", index))["results"]]),
            succeeded("search", *search, "--in", image_folder, "--bundle", NAME),
            str(json.loads(figures.read_text())["mean_recall"]),
            succeeded("compare", NAME, f"hf:{NAME}", *data),
            succeeded(
                "classify", image_folder, "--labels", "circle", "square", "--bundle", NAME, "--precision", "fp32"
            ),
            succeeded("info", NAME, "--json", "--precision", "fp32"),
        ]

    before = each(tmp_path / "online")
    asked = len(hub.requests)
    hub.stop()
    assert each(tmp_path / "offline") == before
    assert asked == len(hub.requests) > 0


def test_calibration_of_a_named_bundle_leaves_the_hubs_cache_alone(
    hub: HubServer, captioned_folder: Path, tmp_path: Path
) -> None:
    succeeded("info", NAME)
    before = read_files(tmp_path / "hub")
    said = succeeded("calibrate", NAME, "--data", captioned_folder, "--split", "all")
    assert f"calibrated {NAME} on 120 images" in said and str(tmp_path / "miniclip") in said
    assert read_files(tmp_path / "hub") == before
    (snapshot,) = (tmp_path / "hub").glob("models--*/snapshots/*")
    assert Bundle.open(snapshot).match is not None


def test_a_space_is_complete_without_the_hub(hub: HubServer, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "space"
    assert write_space(["--images", str(image_folder), "--bundle", NAME, "--out", str(out)]) == 0
    hub.stop()
    shutil.rmtree(tmp_path / "hub")
    assert not any(path.is_symlink() for path in out.rglob("*"))
    moved = out.rename(tmp_path / "moved")
    searcher = Searcher.open(moved / "index", moved / "bundle", "cpu", "fp32")
    assert len(searcher.index) == 12 and len(searcher.encoders.encode_texts(["a red circle"])) == 1


def test_the_page_calls_the_bundle_by_its_name(hub: HubServer, image_folder: Path, tmp_path: Path) -> None:
    from demo.app_state import AppState

    succeeded("index", image_folder, "--bundle", NAME, "--out", tmp_path / "index")
    state = AppState(Searcher.open(tmp_path / "index", provider="cpu"))
    assert NAME in state.bundles() and state.name_of(state.search.searcher.encoders.bundle) == NAME


def test_what_is_wrong_with_a_name_is_one_line_in_every_command(
    hub: HubServer, image_folder: Path, tmp_path: Path
) -> None:
    hub.repositories["jane/gated"] = Repository(token="hf_of_jane")
    hub.repositories["jane/gated"].commit({"config.json": b"{}"})
    out = tmp_path / "out"
    for name, words in (("jane/none", "no such model or revision"), ("jane/gated", "must grant access first")):
        for command in (
            ("index", image_folder, "--bundle", name, "--out", out),
            ("search", "a dog", "--in", image_folder, "--bundle", name),
            ("evaluate", "--bundle", name, "--data", image_folder),
            ("classify", image_folder, "--labels", "a", "b", "--bundle", name),
            ("calibrate", name, "--data", image_folder),
            ("info", name),
        ):
            done = run_cli("miniclip.cli", *command)
            assert done.returncode == 2, done.stdout
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"error: no folder {name}") and words in line
    assert not out.exists()
