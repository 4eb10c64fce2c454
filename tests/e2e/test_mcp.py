"""`--mcp` with the client of the package `mcp`: tools, their answers, wrong calls, and the login."""

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DemoProcess

mcp = pytest.importorskip("mcp", reason="the package mcp is not installed; get it with: pip install mcp")
streamable = pytest.importorskip("mcp.client.streamable_http")
LOGIN = "guest:secret"


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, image_index: Path) -> Iterator[str]:
    flags = ("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu")
    with DemoProcess(*flags, "--mcp", "--auth", LOGIN) as running:
        yield f"{running.url}gradio_api/mcp/"


def ask(server: str, *calls: tuple[str, dict[str, Any]], login: str = LOGIN) -> tuple[list[Any], list[Any]]:
    """The tools, and the answer to each call."""

    async def session() -> tuple[list[Any], list[Any]]:
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        async with (
            streamable.streamablehttp_client(server, headers=headers) as (read, write, _),
            mcp.ClientSession(read, write) as client,
        ):
            await client.initialize()
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(name, values) for name, values in calls]

    with ThreadPoolExecutor(1) as pool:  # browser tests in the same process may have an event loop in this thread
        return pool.submit(lambda: asyncio.run(asyncio.wait_for(session(), 60))).result()


def found(answer: Any) -> Any:
    assert not answer.isError, answer.content
    return json.loads(answer.content[0].text.replace("'", '"').replace("None", "null"))


def test_tools_are_typed_and_documented(server: str) -> None:
    tools, _ = ask(server)
    assert {tool.name for tool in tools} == {"search_text", "similar_images", "label_image"}
    for tool in tools:
        assert len(tool.description) > 40
        for name, field in tool.inputSchema["properties"].items():
            assert field["type"] in ("string", "integer") and field["description"], (tool.name, name)


def test_tools_search_and_label(server: str, image_folder: Path) -> None:
    image = base64.b64encode(next(image_folder.rglob("*.png")).read_bytes()).decode()
    _, answers = ask(
        server,
        ("search_text", {"words": "a red circle", "top_k": 3}),
        ("similar_images", {"image_base64": image, "top_k": 1}),
        ("label_image", {"image_base64": f"data:image/png;base64,{image}", "labels": "circle, square"}),
    )
    by_words, similar, labels = map(found, answers)
    assert len(by_words) == 3 and by_words[0]["score"] >= by_words[2]["score"]
    assert similar[0]["score"] == pytest.approx(1, abs=0.02)
    assert set(labels) == {"circle", "square"} and sum(labels.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/etc/passwd", "must be an image file in base64"),
        ("http://127.0.0.1:9/secret.png", "must be an image file in base64"),
        (base64.b64encode(b"no image").decode(), "not an image in a known format"),
    ],
)
def test_a_wrong_image_is_an_error_that_says_so(server: str, image: str, message: str) -> None:
    _, (answer,) = ask(server, ("similar_images", {"image_base64": image}))
    assert answer.isError and message in answer.content[0].text


def test_without_the_login_there_is_no_tool(server: str) -> None:
    for login in ("", "guest:wrong", "guest:"):
        with pytest.raises(BaseExceptionGroup) as refused:
            ask(server, login=login)
        assert "401" in str([*_leaves(refused.value)])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
