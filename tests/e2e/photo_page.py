"""A page of photographs with all metadata of a camera, for tests of the viewer and of the selection."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DemoProcess
from tests.support.photos_on_disk import write_photos

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


CARDS = "#results .card"
PHOTOS = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "photos"


@pytest.fixture(scope="module")
def photo_url(photos: Path, tiny_bundle: Path) -> Iterator[str]:
    """A page of six photographs, two of them equal. Its trash is not the user's."""
    write_photos(photos, PHOTOS - 1)
    (photos / "copy.jpg").write_bytes((photos / "photo-0.jpg").read_bytes())
    home = photos.parent / "home"
    home.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_DATA_HOME", str(home / "data"))
    patch.delenv("DISPLAY", raising=False)
    with DemoProcess("--images", str(photos), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        patch.undo()
        yield process.url


@pytest.fixture
def photo_page(open_tab: Any, photo_url: str) -> Any:
    tab = open_tab(f"{photo_url}?q=a+red+circle&copies=1")
    expect(tab.locator(CARDS)).to_have_count(PHOTOS)
    return tab


def viewer(tab: Any, place: int = 0) -> Any:
    """The viewer of one card."""
    tab.locator(CARDS).nth(place).click()
    tab.locator("#detail-dialog").get_by_role("button", name="Full screen").click()
    found = tab.locator("#viewer-dialog")
    expect(found).to_be_visible()
    expect(found.locator("[data-original]")).to_be_visible()
    return found
