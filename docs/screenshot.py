"""Images of the running search page. In: its address. Out: page.png for the README, and screens/*.webp to judge by.

    python -m demo --images openmoji --bundle models/miniclip-s --no-browser
    python docs/screenshot.py http://127.0.0.1:7860 docs

Every tab at 1440, 1280 and 390 pixels, light and dark in turn, and the README's image. On a gallery whose images
may be shown: OpenMoji's may, with their attribution. Compare shows a second model where one is below bundles/ and its
index of the same images was made: the first command once more, with `--bundle bundles/f8k`. Here that is
configs/setup1.toml trained on Flickr8k.
"""

import argparse
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SIZES = {"desktop": (1440, 900, "light"), "laptop": (1280, 800, "dark"), "phone": (390, 844, "light")}
DARK_PHONE = {"phone-dark": (390, 844, "dark")}
WORDS = "a red car"


def main() -> int:
    flags = argparse.ArgumentParser(description="Take images of the running search page.")
    flags.add_argument("url", help="address of the page")
    flags.add_argument("out", type=Path, help="folder for page.png and screens/")
    arguments = flags.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("error: no chromium here; install Debian's package chromium", file=sys.stderr)
        return 2
    screens = arguments.out / "screens"
    screens.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        for name, (width, height, scheme) in {**SIZES, **DARK_PHONE}.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(f"{arguments.url}/?q={WORDS.replace(' ', '+')}")
            for step in (search, large_view, describe, whole_map, library, compare):
                step(tab)
                tab.wait_for_load_state("networkidle")
                # lazy thumbnails below the screen are never loaded: those on it are waited for
                tab.wait_for_function(
                    "[...document.images].every("
                    "i => i.complete || !i.offsetParent || i.getBoundingClientRect().top > innerHeight)"
                )
                png = tab.screenshot()
                title = step.__name__.replace("_", "-")
                Image.open(io.BytesIO(png)).save(screens / f"{name}-{title}.webp", quality=60, method=6)
                if (name, title) == ("desktop", "search"):
                    Image.open(io.BytesIO(png)).quantize(256).save(arguments.out / "page.png", optimize=True)
            tab.close()
        browser.close()
    return 0


def search(tab: Any) -> None:
    tab.locator("#results h2", has_text=WORDS).wait_for()
    tab.locator("#words").blur()  # no cursor in the image


def large_view(tab: Any) -> None:
    tab.locator("#results .card").first.click()
    tab.get_by_role("button", name=re.compile("^Why")).click()
    tab.locator(".heat").wait_for()


def describe(tab: Any) -> None:
    tab.get_by_role("button", name="Describe it").click()
    tab.locator(".labelled .bars").wait_for(timeout=120_000)  # the first time, all captions are embedded


def whole_map(tab: Any) -> None:
    tab.get_by_role("tab", name="Map").click()
    tab.locator("canvas[data-painted]").wait_for()


def library(tab: Any) -> None:
    tab.get_by_role("tab", name="Library").click()
    tab.locator("#library tbody").wait_for()
    tab.get_by_role("button", name="Find duplicates").click()
    tab.locator(".copies > *").first.wait_for()


def compare(tab: Any) -> None:
    tab.get_by_role("tab", name="Compare").click()
    tab.wait_for_function("document.querySelector('#compare select').options.length > 0")
    button = tab.get_by_role("button", name="Compare", exact=True)
    if button.is_enabled():  # a second model has an index of these images
        button.click()
        tab.locator(".columns").wait_for(timeout=60_000)


if __name__ == "__main__":
    sys.exit(main())
