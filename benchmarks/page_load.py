"""Measure the time from a key press to painted results in a real browser, for one user and for sixteen.

python -m benchmarks.page_load --bundle bundles/NAME --images FOLDER [--image-count 5000] [--json FILE]

In: a bundle and a folder of JPEGs, which are repeated if there are fewer than `--image-count`. Out: a table with the
time from a key press until the new cards and their first row of thumbnails are painted, and with the server's part of
it, for one user and while fifteen other users type. Exit status 1 if a time is above its limit.

A time starts with the last key of a query. It ends with the first frame after the new cards are in the page and the
thumbnails of the first row are decoded. It includes the page's wait for more typing.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.errors import MiniClipError

REPOSITORY = Path(__file__).parents[1]
WORDS: tuple[str, ...] = ("dog", "cat", "beach", "child", "red", "car", "snow", "street")
WORDS += ("food", "water", "people", "night", "old", "big")
OTHERS = 15  # other users who search at the same time
MAX_MS = {"painted_p50": 300, "painted_p95": 600, "server_p50": 30, "server_p95": 30}
THINK_S = 1.0  # between two queries of another user, who types fast

# runs in the page: resolves to the times in ms from the key press to new cards and to painted results
WATCH = """words => {
    const results = document.querySelector('#results');
    const input = document.querySelector('#words');
    return new Promise(resolve => {
        let pressed;
        input.addEventListener('keydown', () => { pressed = performance.now(); }, {once: true, capture: true});
        const observer = new MutationObserver(async () => {
            if (!results.querySelector('.card') || results.dataset.answered !== words) return;
            observer.disconnect();
            const shown = performance.now();
            const first = [...results.querySelectorAll('img')].slice(0, 6);
            await Promise.all(first.map(image => image.decode().catch(() => {})));
            requestAnimationFrame(() => requestAnimationFrame(() => resolve({
                cards: shown - pressed, painted: performance.now() - pressed, server: Number(results.dataset.searchMs),
            })));
        });
        observer.observe(results, {childList: true, attributes: true});
    });
}"""


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.page_load", description="Time the page's searches.")
    parser.add_argument("--bundle", required=True, type=Path, help="bundle to search with")
    parser.add_argument("--images", required=True, type=Path, help="folder of JPEGs")
    parser.add_argument("--image-count", type=int, default=5000, help="number of images to search (default 5000)")
    parser.add_argument(
        "--queries", type=int, default=60, help="queries of each measurement: one user, then sixteen (default 60)"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = gather(arguments.images, Path(scratch) / "images", arguments.image_count)
        with Page(arguments.bundle, folder, Path(scratch) / "index") as page:
            start = f"page ready {page.start_s:.1f} s after its start"
            print(f"{arguments.image_count:,} images, {os.cpu_count()} cores; {start}", flush=True)
            figures = {"images": arguments.image_count, "start_s": page.start_s}
            figures["one"] = measure(page.url, arguments.queries)
            stop = threading.Event()
            with ThreadPoolExecutor(OTHERS) as pool:
                users = [pool.submit(keep_searching, page.url, seed, stop) for seed in range(OTHERS)]
                try:
                    figures["sixteen"] = measure(page.url, arguments.queries)
                finally:
                    stop.set()
                for user in users:
                    user.result()  # raises the error of a user whose search failed
    print(f"{'':26}{'cards p50':>11}{'p95':>9}{'painted p50':>13}{'p95':>9}{'server p50':>12}{'p95':>9}")
    for name, label in (("one", "one user"), ("sixteen", "sixteen users at once")):
        values = [figures[name][f"{part}_p{q}_ms"] for part in ("cards", "painted", "server") for q in (50, 95)]
        widths = 8, 6, 10, 6, 9, 6
        print(f"{label:26}" + "".join(f"{value:{width}.0f} ms" for value, width in zip(values, widths, strict=True)))
    passed = []
    for name, limit in MAX_MS.items():
        most = max(figures[part][f"{name}_ms"] for part in ("one", "sixteen"))
        print(f"{name.replace('_', ' '):12} {most:.0f} ms, at most {limit} ms: {'ok' if most <= limit else 'FAILED'}")
        passed.append(most <= limit)
    write_result(arguments.json, figures)
    return 0 if all(passed) else 1


def gather(images: Path, folder: Path, count: int) -> Path:
    """Fill a folder with `count` JPEGs: links to the images, then copies of them."""
    sources = sorted(path for path in images.expanduser().rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not sources:
        raise MiniClipError(f"{images} holds no JPEGs; give a folder of photographs to --images")
    folder.mkdir(parents=True)
    for number in range(count):
        source = sources[number % len(sources)]
        target = folder / f"{number:06d}.jpg"
        if number < len(sources):
            target.symlink_to(source.resolve())
        else:  # a comment at the end changes only the hash, so that the JPEG counts as a different image
            shutil.copy(source, target)
            with target.open("ab") as file:
                file.write(number.to_bytes(8, "big"))
    return folder


class Page:
    """`python -m demo` on a free port, with a new index of `images`."""

    def __init__(self, bundle: Path, images: Path, index: Path) -> None:
        model = ["--bundle", str(bundle.absolute())]
        command = [sys.executable, "-m", "miniclip.cli", "index", str(images), *model, "--out", str(index)]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        self._command = [sys.executable, "-m", "demo", "--index", str(index), *model]
        self._command += ["--no-browser", "--port", str(port)]

    def __enter__(self) -> "Page":
        started = time.perf_counter()
        self._process = subprocess.Popen(self._command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "search page is at" in line:
                break
        else:
            raise MiniClipError("the page ended before it was ready; its message is above")
        self.start_s = time.perf_counter() - started
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def measure(url: str, queries: int) -> dict[str, float]:
    """Type new queries, and return percentiles of their times in ms."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise MiniClipError("chromium is not installed; install Debian's package chromium")
    random = np.random.default_rng(0)
    taken: list[dict[str, float]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(url)
        tab.locator("#results .card").first.wait_for()
        for number in range(queries + 3):
            words = f"{' '.join(random.choice(WORDS, 3))} {number:03d}"
            tab.locator("#words").fill(words[:-1])
            tab.wait_for_function(
                "words => document.querySelector('#results').dataset.answered === words", arg=words[:-1].strip()
            )
            tab.keyboard.press("End")
            tab.evaluate(f"words => {{ window.measured = ({WATCH})(words); }}", words)
            tab.keyboard.type(words[-1])
            taken.append(tab.evaluate("window.measured"))
        browser.close()
    return {
        f"{part}_p{q}_ms": float(np.percentile([times[part] for times in taken[3:]], q))
        for part in ("cards", "painted", "server")
        for q in (50, 95)
    }


def keep_searching(url: str, seed: int, stop: threading.Event) -> None:
    """One other user: a query, its first thumbnails, a moment to think, the next query."""
    random = np.random.default_rng(100 + seed)
    with urllib.request.urlopen(f"{url}config", timeout=60) as answer:
        components = json.load(answer)["components"]
    search = next(one["id"] for one in components if one["props"].get("elem_id") == "search")
    while not stop.is_set():
        body = {"session_hash": f"user{seed}", "component_id": search, "fn_name": "search"}
        body["data"] = {"q": " ".join(random.choice(WORDS, 3))}
        request = urllib.request.Request(
            f"{url}gradio_api/component_server", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            html = json.load(answer)["html"]
        for part in html.split('src="')[1:13]:
            urllib.request.urlopen(url + part.partition('"')[0], timeout=60).read()
        stop.wait(THINK_S * random.uniform(0.5, 1.5))


if __name__ == "__main__":
    run_command(main)
