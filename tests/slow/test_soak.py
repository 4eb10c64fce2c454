"""Long load: 64 clients on the page, 16 threads on the encoders. Answers stay correct, and memory does not grow.

The load on the page lasts MINICLIP_SOAK_S seconds (180), on the encoders a fifth of that. Clients do not pause between
two queries, so the page is as busy as possible.
"""

import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.e2e.conftest import DemoProcess
from tests.support.cli import REPOSITORY
from tests.support.drawing import COLOURS, SHAPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process's memory is read from /proc"),
]

SOAK_S = float(os.environ.get("MINICLIP_SOAK_S", "180"))
CLIENTS, THREADS = 64, 16
WARM_UP = 1 / 4  # of the time, until caches are full and allocators settle
GROWTH = 0.05  # of the memory during the measurement; sampling alone varies as much
BUNDLE = REPOSITORY / "models/miniclip-s"
QUESTIONS = [f"{words} {colour} {shape}" for colour in COLOURS for shape in SHAPES for words in ("a", "photo of the")]
LOGIN = ("anna", "a long password")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(work: Callable[[int], None], workers: int, seconds: float, pid: int) -> np.ndarray:
    """Run `work(worker number)` repeatedly in threads; returns the memory of `pid`, (samples, 2): seconds, bytes."""
    ends = time.monotonic() + seconds
    failed = threading.Event()

    def worker(number: int) -> None:
        try:
            while time.monotonic() < ends and not failed.is_set():
                work(number)
        except BaseException:
            failed.set()
            raise

    samples = []
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(worker, number) for number in range(workers)]
        started = time.monotonic()
        while (now := time.monotonic()) < ends and not failed.is_set():
            samples.append((now - started, resident_bytes(pid)))
            failed.wait(min(0.5, seconds / 100))
        for one in running:
            one.result()
    return np.array(samples)


def growth(samples: np.ndarray) -> tuple[float, float, float]:
    """After the warm-up: rise of the fitted line and scatter around it, as shares of the memory, and the memory."""
    seconds, memory = samples[samples[:, 0] > WARM_UP * samples[-1, 0]].T
    slope, start = np.polyfit(seconds, memory, 1)
    scatter = np.std(memory - (slope * seconds + start))
    return slope * np.ptp(seconds) / memory.mean(), scatter / memory.mean(), float(memory.mean())


class Client:
    """One visitor with a persistent connection."""

    def __init__(self, url: str, cookies: str = "") -> None:
        address = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
        self.cookies = cookies
        self.component = 0

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        self._connection.request(method, path, body, {"Cookie": self.cookies, "Content-Type": kind})
        answer = self._connection.getresponse()
        reply = answer.read()
        if answer.status != 200:
            raise AssertionError(f"{path}: {answer.status} {reply[:200]!r}")
        self.set_cookies = answer.headers.get_all("Set-Cookie") or []
        return reply

    def enter(self) -> None:
        form = urllib.parse.urlencode(dict(zip(("username", "password"), LOGIN, strict=True))).encode()
        self.send("POST", "/login", form, "application/x-www-form-urlencoded")
        self.cookies = "; ".join(one.split(";")[0] for one in self.set_cookies)

    def search(self, values: dict[str, Any]) -> str:
        body = {"session_hash": "soak", "component_id": self.component, "fn_name": "search", "data": values}
        answer = json.loads(self.send("POST", "/gradio_api/component_server", json.dumps(body).encode()))
        if "html" not in answer:
            raise AssertionError(f"{values}: {answer}")
        return str(answer["html"])

    def upload(self, content: bytes) -> str:
        form = (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            + content
            + b"\r\n--b--\r\n"
        )
        return str(json.loads(self.send("POST", "/gradio_api/upload", form, "multipart/form-data; boundary=b"))[0])


@pytest.fixture(scope="module")
def page(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    index = tmp_path_factory.mktemp("soak") / "index"
    update_index(str(captioned_folder), OnnxEncoders(Bundle.open(BUNDLE), "cpu"), index)
    flags = ("--index", str(index), "--bundle", str(BUNDLE), "--provider", "cpu", "--auth", ":".join(LOGIN))
    with DemoProcess(*flags) as running:
        yield running


def test_the_page_serves_64_clients(
    page: DemoProcess, captioned_folder: Path, record: Callable[[str, float, str], None]
) -> None:
    alone = Client(page.url)
    alone.enter()
    config = json.loads(alone.send("GET", "/config"))
    alone.component = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "search")
    images = [path.read_bytes() for path in sorted(captioned_folder.glob("*.jpg"))[:8]]
    of_words = {words: alone.search({"q": words}) for words in QUESTIONS}
    of_images = [alone.search({"picture": {"path": alone.upload(content)}}) for content in images]
    previews = re.findall(r"preview/\w+/small/\d+\.webp", of_words[QUESTIONS[0]])
    of_previews = {preview: alone.send("GET", f"/{preview}") for preview in previews}

    clients = [Client(page.url, alone.cookies) for _ in range(CLIENTS)]
    turns = [0] * CLIENTS
    taken: list[list[float]] = [[] for _ in range(CLIENTS)]

    def visit(number: int) -> None:
        """A query, its first thumbnail, and at every tenth turn an upload."""
        client, turn = clients[number], turns[number]
        client.component = alone.component
        turns[number] += 1
        words = QUESTIONS[(7 * number + turn) % len(QUESTIONS)]
        started = time.perf_counter()
        found = client.search({"q": words})
        taken[number].append(time.perf_counter() - started)
        assert found == of_words[words], words
        preview = previews[turn % len(previews)]
        assert client.send("GET", f"/{preview}") == of_previews[preview]
        if turn % 10 == number % 10:
            which = (number + turn) % len(images)
            path = client.upload(images[which])
            assert client.search({"picture": {"path": path}}) == of_images[which]

    samples = soak(visit, CLIENTS, SOAK_S, page.pid)
    seconds = np.concatenate([np.array(one) for one in taken])
    rise, scatter, memory = growth(samples)
    record("soak, page: seconds with 64 clients", SOAK_S, "s")
    record("soak, page: visits without an error, answers as of one alone", sum(turns), "visits")
    record("soak, page: search p50", 1000 * float(np.percentile(seconds, 50)), "ms")
    record("soak, page: search p99", 1000 * float(np.percentile(seconds, 99)), "ms")
    record("soak, page: memory", memory / 2**20, "MiB")
    record("soak, page: growth of memory after the warm-up", 100 * rise, "%")
    record("soak, page: scatter of memory", 100 * scatter, "%")
    assert min(turns) > 0
    assert rise < GROWTH, f"memory grows by {100 * rise:.1f} % of {memory / 2**20:.0f} MiB"


def test_encoders_serve_16_threads(captioned_folder: Path, record: Callable[[str, float, str], None]) -> None:
    encoders = OnnxEncoders(Bundle.open(BUNDLE), "cpu")
    images = sorted(captioned_folder.glob("*.jpg"))[:24]
    of_words = [encoders.encode_texts([words]) for words in QUESTIONS]
    of_images = [encoders.encode_images([path])[1] for path in images]
    turns, taken = [0] * THREADS, [list[float]() for _ in range(THREADS)]

    def encode(number: int) -> None:
        turn = turns[number] = turns[number] + 1
        words, image = (5 * number + turn) % len(QUESTIONS), (number + turn) % len(images)
        started = time.perf_counter()
        text_embeds = encoders.encode_texts([QUESTIONS[words]])
        taken[number].append(time.perf_counter() - started)
        assert np.array_equal(text_embeds, of_words[words])
        assert np.array_equal(encoders.encode_images([images[image]])[1], of_images[image])

    samples = soak(encode, THREADS, SOAK_S / 5, os.getpid())
    rise, scatter, memory = growth(samples)
    record("soak, encoders: seconds with 16 threads", SOAK_S / 5, "s")
    record("soak, encoders: texts and images, embeddings as of one alone", 2 * sum(turns), "embeddings")
    record("soak, encoders: a text, p99", 1000 * float(np.percentile(np.concatenate(taken), 99)), "ms")
    record("soak, encoders: growth of memory after the warm-up", 100 * rise, "%")
    record("soak, encoders: scatter of memory", 100 * scatter, "%")
    assert min(turns) > 0
    assert rise < GROWTH, f"memory grows by {100 * rise:.1f} % of {memory / 2**20:.0f} MiB"
