"""The tabs Describe, Library and Compare in a real browser. Screens as in test_page.py."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run_cli
from tests.support.tabs import asks_for, go

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


def test_upload_gets_captions_and_labels_with_probabilities(tab: Any, image_folder: Path) -> None:
    go(tab, "Describe")
    image = next(path for path in sorted(image_folder.rglob("*")) if path.suffix == ".png")
    tab.locator("#describe input[type=file]").set_input_files(image)
    expect(tab.locator("#describe .found .bars li")).not_to_have_count(0)
    tab.get_by_label("Labels, separated by commas").fill("red circle, blue square, dog")
    tab.get_by_text("Prompt templates").click()
    tab.get_by_label("One per line").fill("photo of a {}")
    tab.get_by_role("button", name="Compare labels").click()
    expect(tab.locator(".labelled .bars li")).to_have_count(3)
    shares = [int(re.sub(r"\D", "", text)) for text in tab.locator(".labelled .score").all_text_contents()]
    assert 97 <= sum(shares) <= 103
    tab.get_by_label("One per line").fill("no place for it")
    tab.get_by_role("button", name="Compare labels").click()
    expect(tab.locator(".labelled .message")).to_contain_text("needs {} where the label goes")


@pytest.mark.all_screens
def test_image_of_the_gallery_is_described(tab: Any) -> None:
    tab.locator("#results .card").first.click()
    tab.get_by_role("dialog").get_by_role("button", name="Describe it").click()
    expect(tab.locator("#describe .found .bars li")).not_to_have_count(0)
    tab.locator(".picks button").nth(3).click()
    expect(tab.locator(".labelled .bars li")).to_have_count(7)


def test_captions_that_are_not_ready_come_by_themselves(tab: Any, image_folder: Path) -> None:
    """The page's side of it; tests/unit/test_desk.py has the server's."""
    waiting = {"html": "<p class='message'>Still being prepared.</p>", "wait": True}
    waits = [waiting, waiting]

    def answer(route: Any) -> None:
        if asks_for(route.request, "describe") and waits:
            route.fulfill(json=waits.pop())
        else:
            route.continue_()

    tab.route("**/component_server/", answer)
    go(tab, "Describe")
    tab.locator("#describe input[type=file]").set_input_files(next(image_folder.rglob("*.png")))
    expect(tab.locator("#describe .found .message")).to_be_visible()
    expect(tab.locator(".labelled .bars li")).to_have_count(7)
    expect(tab.locator("#describe .drop img")).to_be_visible()
    expect(tab.locator("#describe .found .bars li")).not_to_have_count(0)
    assert not waits


def test_bad_upload_is_a_message(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    go(tab, "Describe")
    tab.locator("#describe input[type=file]").set_input_files(tmp_path / "bad.png")
    expect(tab.locator("#describe .found .message")).to_contain_text("not an image in a known format")
    assert str(tmp_path) not in tab.content()


def test_the_library_shows_status_models_and_duplicates(tab: Any, image_folder: Path) -> None:
    go(tab, "Library")
    facts = tab.locator(".facts-of-index")
    expect(facts).to_contain_text("12")
    expect(facts).to_contain_text(str(image_folder))
    expect(facts).to_contain_text("on the CPU in int8")
    rows = tab.locator("#library tbody tr").filter(has_text="tiny")  # beside those of the checkout
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="int8")).to_contain_text("in use")
    tab.get_by_role("slider").fill("1")
    tab.get_by_role("button", name="Find duplicates").click()
    expect(tab.locator(".copies .message")).to_have_text("There are no duplicates.")


@pytest.mark.all_screens
def test_compare_shows_two_precisions_with_their_times(tab: Any) -> None:
    go(tab, "Compare")
    expect(tab.get_by_label("First")).to_have_value("tiny · int8")
    tab.get_by_label("Second").select_option("tiny · fp32")
    tab.get_by_label("Words", exact=True).fill("a red circle")
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator(".columns section")).to_have_count(2)
    for times in tab.locator(".columns h3 .score").all_text_contents():
        assert re.fullmatch(r"\d+\.\d ms per query", times)
    expect(tab.locator(".columns section").first.locator(".card")).to_have_count(12)


def test_another_folder_is_indexed_with_its_skipped_files_and_then_open(
    open_tab: Any, tiny_bundle: Path, image_folder: Path, demo_process: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(image_folder.glob("*.png"))[:3]:
        shutil.copy(path, other)
    shutil.copy(other / min(path.name for path in other.iterdir()), other / "twin.png")
    (other / "broken.jpg").write_text("no image")
    with demo_process("--images", str(image_folder), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        tab = open_tab(running.url)
        tab.wait_for_load_state("networkidle")  # images of the first gallery are not there once another one is open
        go(tab, "Library")
        tab.get_by_label("Folder with images on this machine").fill(str(tmp_path / "none"))
        tab.get_by_role("button", name="Index and open it").click()
        expect(tab.locator(".job .message")).to_contain_text("does not exist")
        tab.get_by_label("Folder with images on this machine").fill(str(other))
        tab.get_by_role("button", name="Index and open it").click()
        expect(tab.locator(".job")).to_contain_text("4 images embedded")
        expect(tab.locator(".job .skipped li")).to_have_text(re.compile("broken.jpg .*not an image"))
        expect(tab.locator("#results .card")).to_have_count(3)  # the gallery opens automatically, without copies
        go(tab, "Library")
        tab.get_by_role("button", name="Find duplicates").click()
        expect(tab.locator(".copies .groups .card").first).to_be_visible()
        expect(tab.locator("#status-line")).to_contain_text("4 images (1 could not be read)")
        tab.get_by_label("Folder with images on this machine").fill(str(other))
        tab.get_by_label("Leave out (one pattern per line)").fill("twin.*")
        tab.get_by_role("button", name="Index and open it").click()
        expect(tab.locator("#status-line")).to_contain_text("3 images (1 could not be read)")
        go(tab, "Library")
        expect(tab.locator(".facts-of-index")).to_contain_text("twin.*")
        tab.reload()
        go(tab, "Library")
        tab.get_by_label("Folder with images on this machine").fill(str(other))
        tab.keyboard.press("Tab")
        expect(tab.get_by_label("Leave out (one pattern per line)")).to_have_value("twin.*")
        tab.goto("about:blank")  # ends open requests, which would fail once the server has stopped


def test_precision_is_changed_while_the_page_runs(
    open_tab: Any, tiny_bundle: Path, image_index: Path, demo_process: Any
) -> None:
    flags = ("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu")
    with demo_process(*flags) as running:
        tab = open_tab(running.url)
        go(tab, "Library")
        tab.get_by_role("button", name="Use tiny in fp32").click()
        expect(tab.locator("#status-line")).to_contain_text("running on the CPU in fp32")
        expect(tab.locator("#results .card")).to_have_count(12)
        tab.goto("about:blank")


@pytest.fixture(scope="module")
def two_bundles(tiny_bundle: Path, tiny_config: Path, captioned_folder: Path, tmp_path_factory: Any) -> Path:
    """A folder of two bundles, `tiny` and `other`, with different embeddings."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(tiny_bundle, folder / "tiny")
    run = folder / "run"
    words = ("--config", tiny_config, "--data", captioned_folder, "--out", run, "--train.epochs", 1)
    for done in (run_cli("train", *words), run_cli("export", "--run", run, "--out", folder / "other")):
        assert done.returncode == 0, done.stderr
    return folder


def test_another_bundle_is_opened_and_compared(
    open_tab: Any, two_bundles: Path, image_folder: Path, demo_process: Any, tmp_path: Path
) -> None:
    """Its embeddings differ, so the images are indexed again; then both models search the same gallery."""
    images = tmp_path / "pictures"
    shutil.copytree(image_folder, images)
    with demo_process("--images", str(images), "--bundle", str(two_bundles / "tiny"), "--provider", "cpu") as running:
        tab = open_tab(running.url)
        expect(tab.locator("#status-line")).to_contain_text("model tiny")
        go(tab, "Library")
        tab.get_by_role("button", name="Use other in fp32").click()
        expect(tab.locator(".job")).to_contain_text("12 images embedded")
        expect(tab.locator("#status-line")).to_contain_text("model other · running on the CPU in fp32")
        expect(tab.locator("#results .card")).to_have_count(12)
        go(tab, "Compare")
        expect(tab.get_by_label("First")).to_have_value("other · fp32")
        tab.get_by_label("Second").select_option("tiny · fp32")
        tab.get_by_label("Words", exact=True).fill("a red circle")
        tab.get_by_role("button", name="Compare", exact=True).click()
        expect(tab.locator(".columns h3")).to_have_text([re.compile("other · fp32"), re.compile("tiny · fp32")])
        expect(tab.locator(".compared [role=status]")).to_have_text("Both found 12 of 12 images.")
        scores = [side.locator(".card .score").all_text_contents() for side in tab.locator(".columns section").all()]
        assert len(scores[0]) == len(scores[1]) == 12 and scores[0] != scores[1]
        tab.goto("about:blank")
