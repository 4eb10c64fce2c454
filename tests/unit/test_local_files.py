"""The page's local addresses: the requests that pass, and their effect on files."""

import io
import os
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.app_state import AppState
from demo.local_files import local_routes
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher
from tests.support.local_page import HERE, READ, Page
from tests.support.photos_on_disk import CAMERA, PLACE, write_photos


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINICLIP_STATE", str(tmp_path / "state"))
    write_photos(tmp_path / "photos", 3, (64, 48))
    return tmp_path / "photos"


@pytest.fixture
def searcher(photos: Path, tiny_bundle: Path, tmp_path: Path) -> Searcher:
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1)
    update_index(str(photos), encoders, tmp_path / "index")
    return Searcher(ImageIndex.open(tmp_path / "index"), encoders)


@pytest.fixture
def page(searcher: Searcher) -> Page:
    return Page(AppState(searcher, "cpu"))


@pytest.mark.parametrize(
    "changed",
    [
        {"Host": "photos.example"},  # a reverse proxy, or another name of this machine
        {"Host": "127.0.0.1.photos.example"},
        {"Origin": "https://photos.example"},
        {"Origin": "http://127.0.0.1:9999"},  # another program's page on this machine
        {"Origin": "null"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Host": "photos.example"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Content-Type": "text/plain"},  # a form of another site can send this
        {"Origin": ""},
    ],
    ids=str,
)
def test_requests_from_elsewhere_get_no_key_and_change_nothing(
    page: Page, photos: Path, changed: dict[str, str]
) -> None:
    key = page.key
    headers = {name: value for name, value in {**HERE, **changed}.items() if value}
    assert page.post("open", headers=headers).status_code in (403, 415)
    values = {"gallery": page.gallery, "rows": [0], "action": "move", "folder": str(photos / "away")}
    assert page.post(f"{key}/plan", values, headers).status_code in (403, 415)
    assert len(list(photos.iterdir())) == 3


@pytest.mark.parametrize("client", [("203.0.113.9", 40000), ("127.0.0.1", 0), ("::ffff:203.0.113.9", 40000)])
def test_connections_from_elsewhere_get_no_key(searcher: Searcher, client: tuple[str, int]) -> None:
    assert Page(AppState(searcher, "cpu"), client).post("open").status_code == 403


def test_a_wrong_key_opens_nothing(page: Page) -> None:
    wrong = "x" * 32
    assert page.post(f"{wrong}/details", {"gallery": page.gallery, "row": 0}).status_code == 403
    assert page.client.get(f"/local/{wrong}/original/{page.gallery}/0", headers=READ).status_code == 403


def test_a_page_with_a_login_asks_for_it(page: Page) -> None:
    page.app.auth = {"user": "password"}
    assert page.post("open").status_code == 401


@pytest.mark.parametrize("kind", ["public", "proxied"])
def test_a_shared_page_has_no_such_addresses(searcher: Searcher, kind: str) -> None:
    page = Page(AppState(searcher, "cpu", is_public=kind == "public", is_proxied=kind == "proxied"))
    assert page.post("open").status_code == 404
    assert local_routes(page.app_state) == []


@pytest.mark.parametrize("path", ["original/{gallery}/..", "original/{gallery}/3", "original/00000000/0", "archive/x"])
def test_only_rows_of_the_open_gallery_are_served(page: Page, path: str) -> None:
    assert page.get(path.format(gallery=page.gallery)).status_code == 404


def test_the_original_is_the_file_itself_and_runs_nothing(page: Page, photos: Path) -> None:
    answer = page.get(f"original/{page.gallery}/0")
    assert answer.content == (photos / "photo-0.jpg").read_bytes()
    assert answer.headers["content-type"] == "image/jpeg" and "sandbox" in answer.headers["content-security-policy"]
    assert "attachment" in page.get(f"original/{page.gallery}/0?save").headers["content-disposition"]
    cross = page.get(f"original/{page.gallery}/0", {**READ, "Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403


def test_a_file_that_is_no_longer_an_image_is_not_served(page: Page, photos: Path) -> None:
    (photos / "photo-0.jpg").unlink()
    (photos / "photo-0.jpg").symlink_to("/etc/passwd")
    assert page.get(f"original/{page.gallery}/0").status_code == 404


def test_details_come_from_the_file(page: Page, photos: Path) -> None:
    found = page.act("details", row=1)
    facts = dict(found["facts"])
    assert (facts["Camera"], facts["Place"]) == (CAMERA, PLACE)
    assert facts["Path"] == found["path"] == str(photos / "photo-1.jpg")
    assert facts["Taken"] == "2024-07-02 12:00"


def test_a_move_is_shown_first_done_once_and_undone(page: Page, photos: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    shown = page.act("plan", action="move", rows=[0, 2], folder=str(away))
    assert "2 images will be moved to" in shown["html"] and not away.exists()
    done = page.act("run", plan=shown["plan"])
    assert sorted(os.listdir(away)) == ["photo-0.jpg", "photo-2.jpg"]
    assert "2 images were moved" in done["html"]
    assert "expired" in page.act("run", plan=shown["plan"])["message"]
    assert "Undone for 2 images" in page.act("undo", undo=done["undo"])["html"]
    assert len(list(photos.iterdir())) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"action": "move", "rows": [], "folder": "/pictures/chosen"},
        {"action": "move", "rows": [99], "folder": "/pictures/chosen"},
        {"action": "move", "rows": ["../../etc/passwd"], "folder": "/pictures/chosen"},
        {"action": "move", "rows": [True, -1], "folder": "/pictures/chosen"},
        {"action": "move", "rows": [0] * 5001, "folder": "/pictures/chosen"},
        {"action": "move", "rows": [0], "folder": "../x"},
        {"action": "move", "rows": [0], "gallery": "00000000", "folder": "/pictures/chosen"},
        {"action": "delete", "rows": [0]},
        {"action": "move", "duplicates": True},
        {"action": "move", "rows": "all", "folder": "/pictures/chosen"},
    ],
    ids=lambda values: str(values)[:60],
)
def test_an_invalid_plan_is_one_sentence(page: Page, values: dict[str, Any]) -> None:
    answer = page.act("plan", **values)
    assert answer["message"].endswith(".") and "Internal" not in answer["message"] and "plan" not in answer


def test_the_archive_has_the_chosen_files(page: Page, photos: Path) -> None:
    name = page.act("archive", rows=[0, 1])["archive"]
    answer = page.get(f"archive/{name}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["photo-0.jpg", "photo-1.jpg"]
        assert archive.read("photo-1.jpg") == (photos / "photo-1.jpg").read_bytes()
    for number in range(9):
        last = page.act("archive", rows=[number % 3])["archive"]
    assert page.get(f"archive/{name}").status_code == 404  # only the last ones are kept
    assert page.get(f"archive/{last}").status_code == 200
    assert "expired" in page.act("run", plan=last)["message"]  # a download moves nothing


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A desktop whose only program records the files to open."""
    programs, log = tmp_path / "programs", tmp_path / "opened"
    programs.mkdir()
    program = programs / "xdg-open"
    program.write_text(f'#!/bin/sh\nprintf "%s" "$1" > "{log}.part"\n/bin/mv "{log}.part" "{log}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DISPLAY", ":0")
    yield log


def test_show_in_folder_opens_the_folder(page: Page, photos: Path, opened: Path) -> None:
    assert page.act("show", row=0) == {"notice": "The file manager shows the image."}
    until = time.monotonic() + 20
    while not opened.exists() and time.monotonic() < until:
        os.sched_yield()
    assert opened.read_text() == str(photos)


def test_a_missing_desktop_is_reported(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert page.act("show", row=0)["message"] == "The machine that runs this page has no desktop to show a folder on."
