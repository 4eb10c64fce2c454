"""A picture of the running search page. In: its address and words to search for. Out: a PNG of 1440 x 900.

python -m demo --images openmoji --bundle B --no-browser
python docs/screenshot.py http://127.0.0.1:7860 docs/page.png --words "birthday party"
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LOADED = "[...document.images].filter(image => image.loading != 'lazy').every(image => image.complete)"


def main() -> int:
    flags = argparse.ArgumentParser(description="Take a picture of the running search page.")
    flags.add_argument("url", help="address of the page")
    flags.add_argument("out", type=Path, help="PNG to write")
    flags.add_argument("--words", default="something to eat", help="query to type first")
    flags.add_argument("--width", type=int, default=1440)
    flags.add_argument("--height", type=int, default=900)
    flags.add_argument("--dark", action="store_true", help="in the dark theme")
    arguments = flags.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("error: no chromium here; install Debian's package chromium", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        tab = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme="dark" if arguments.dark else "light",
        )
        tab.goto(arguments.url)
        tab.locator("#words").get_by_role("textbox").fill(arguments.words)
        tab.keyboard.press("Enter")
        tab.locator("#words-results .heading", has_text=arguments.words).wait_for()
        tab.locator("#words").get_by_role("textbox").blur()  # no cursor in the picture
        tab.wait_for_function(LOADED)
        tab.wait_for_load_state("load")
        tab.evaluate("Promise.all([...document.images].slice(0, 18).map(image => image.decode()))")
        tab.screenshot(path=arguments.out)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
