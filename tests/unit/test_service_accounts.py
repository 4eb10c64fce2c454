"""Accounts without a home folder: an unwritable cache is one line, and searching an index needs no cache."""

from pathlib import Path

import pytest

from miniclip.cache import cache_folder, write_cached
from miniclip.errors import MiniClipError
from miniclip.index.location import index_folder
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.models.pretrained import resolve_backbone
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher

WAY_OUT = "set MINICLIP_CACHE to a folder you can write"


@pytest.fixture(params=["home is a device", "cache is a file", "cache below a file", "cache that cannot be made"])
def no_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    cache = {"cache is a file": tmp_path / "file", "cache below a file": tmp_path / "file/below"}
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if request.param == "home is a device":
        monkeypatch.delenv("MINICLIP_CACHE", raising=False)
        monkeypatch.setenv("HOME", "/dev/null")
    else:
        monkeypatch.setenv("MINICLIP_CACHE", str(cache.get(request.param, "/proc/none")))


@pytest.mark.usefixtures("no_cache")
def test_commands_without_a_cache_end_in_one_line(tmp_path: Path) -> None:
    index = index_folder(str(tmp_path), "0" * 64)
    attempts = [
        lambda: write_cached(cache_folder() / "features/x", b"x"),
        lambda: resolve_backbone("package:efficientnet-lite0"),
        lambda: open_writer(index, Settings("0" * 64, tmp_path, "x"), 8).__enter__(),
    ]
    for attempt in attempts:
        with pytest.raises(MiniClipError, match=WAY_OUT) as refused:
            attempt()
        assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("no_cache")
def test_searching_an_index_needs_no_cache(tiny_index: Path, tiny_bundle: Path) -> None:
    searcher = Searcher.open(tiny_index, tiny_bundle, "cpu", "fp32")
    assert searcher.search(Query(texts=["red circle"], top_k=2)).hits  # a list works


def test_account_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MINICLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(MiniClipError, match=f"no home folder; {WAY_OUT}"):
        cache_folder()


def test_a_query_takes_lists_and_single_values(tmp_path: Path) -> None:
    query = Query(texts=["dog"], minus=["cat"], rows=[1, 2], images=[tmp_path])
    assert (query.texts, query.minus, query.rows, query.images) == (("dog",), ("cat",), (1, 2), (tmp_path,))
    assert Query(texts="dog").texts == ("dog",) and Query(images=tmp_path).images == (tmp_path,)
    query.check(5)
