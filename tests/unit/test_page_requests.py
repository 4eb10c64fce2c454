"""Requests to the page: paths and headers of the filter, forms, and internal errors."""

import json
import logging
from typing import Any

import pytest

from demo.__main__ import main
from demo.app import launch_options
from demo.errors import sentence
from demo.form import number, text
from demo.i18n import TABLES
from demo.page import STATIC, answering, split_script
from demo.request_filter import path_below_root, trusted_headers
from demo.search_request import ADDRESS_FIELDS, FORM_FILTERS
from demo.tabs import TABS
from miniclip.errors import MiniClipError

FORWARDED = [(b"host", b"page"), (b"x-forwarded-host", b"elsewhere"), (b"x-forwarded-proto", b"https")]


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        ("", "/config", "/config"),
        ("/clip", "/clip/config", "/config"),
        ("/clip", "/config", "/config"),
        ("/clip", "/clip", "/"),
        ("/clip", "/clip/", "/"),
        ("/clip", "/clipboard", "/clipboard"),
        ("/clip", "/clip/clip/config", "/clip/config"),
    ],
)
def test_the_root_path_is_removed_once(root: str, path: str, below: str) -> None:
    assert path_below_root({"root_path": root, "path": path}) == below


@pytest.mark.parametrize("client", [("127.0.0.1", 4000), ("::1", 4000), ("203.0.113.9", 0)])
def test_forwarded_headers_of_a_trusted_proxy_are_kept(client: tuple[str, int]) -> None:
    assert trusted_headers({"headers": FORWARDED, "client": client}) == FORWARDED


def test_forwarded_headers_of_a_direct_client_are_dropped() -> None:
    assert trusted_headers({"headers": FORWARDED, "client": ("203.0.113.9", 4000)}) == FORWARDED[:1]


def test_a_bug_is_logged_and_reported_as_internal(caplog: pytest.LogCaptureFixture) -> None:
    def broken(form: Any) -> dict[str, Any]:
        return {"value": form["missing"]}

    with caplog.at_level(logging.ERROR, "miniclip.demo"):
        assert answering("broken", broken)({}) == {"message": "Internal error: the server's log has the details."}
    assert "internal error in “broken”" in caplog.text and "KeyError: 'missing'" in caplog.text


def test_an_invalid_request_is_not_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    for value in (None, 1, "text", ["list"]):
        assert answering("search", dict)(value) == {"message": "This request cannot be read."}
    assert caplog.text == ""


@pytest.mark.parametrize("value", [None, "", "nan", "inf", "many", [], {}, 10**400])
def test_an_invalid_number_becomes_the_default_or_the_limit(value: Any) -> None:
    assert 1 <= number({"shown": value}, "shown", 24, 1, 1000) <= 1000


def test_text_is_shortened_and_has_single_spaces() -> None:
    assert text({"q": "  a \n dog " + "x" * 1000}, "q").startswith("a dog xxx")
    assert len(text({"q": "x" * 1000}, "q")) == 500


def test_an_error_keeps_the_users_capital_letters() -> None:
    error = MiniClipError("photos does not exist")
    assert sentence(error, about="Indexing photos failed") == "Indexing photos failed: photos does not exist."


def test_an_invalid_argument_is_named_as_the_page_names_it() -> None:
    error = MiniClipError("text_weight must be from 0 to 1")
    error.field = "text_weight"  # type: ignore[attr-defined]
    assert sentence(error) == "“Weight of the words” must be from 0 to 1."


def test_the_scripts_have_the_filters_from_one_list() -> None:
    class Public:
        is_public, is_local = True, False

    head = launch_options(Public())["head"]  # type: ignore[arg-type]
    settings = json.loads(head.split("window.miniclip = ", 1)[1].split(";", 1)[0])
    assert settings["filters"] == list(FORM_FILTERS) and settings["addressFields"] == list(ADDRESS_FIELDS)


def test_every_tab_has_a_script_and_a_title() -> None:
    assert list(TABS) == ["search", "describe", "map", "library", "compare"]
    for name in TABS:
        assert "server." in split_script((STATIC / f"{name}.html").read_text(encoding="utf-8"))[1]
        assert all(f"tab_{name}" in table for table in TABLES.values())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--root-path", "clip"), "must begin with /"),
        (("--host", "no.such.host.invalid"), "--host must be an address of this machine"),
        (("--host", "203.0.113.9"), "--host must be an address of this machine"),
    ],
)
def test_wrong_flags_say_what_to_type(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(MiniClipError, match=words):
        main(["--index", "none", "--no-browser", *flags])
