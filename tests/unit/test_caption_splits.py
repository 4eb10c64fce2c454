"""Splits of captions: by image, by seed, official ones, and their names."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from miniclip.data.caption_table import CaptionTable, Skipped, check_skipped
from miniclip.data.captions import read_captions
from miniclip.data.splits import normalise_split
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name, splits_by_name

FLICKR8K = Path(os.environ.get("MINICLIP_FLICKR8K", "no-flickr8k"))


def write_shuffled(folder: Path, order: random.Random, gone: str = "") -> CaptionTable:
    names = [f"{n:03d}.jpg" for n in range(50)]
    add_images(folder, *(name for name in names if name != gone))
    rows = [f"{name},caption {k} of {name}\n" for name in names for k in range(5)] + [",nameless\n"]
    order.shuffle(rows)
    (folder / "captions.txt").write_text("image,caption\n" + "".join(rows))
    return read_captions(folder, seed=7)


def test_seeded_splits_do_not_depend_on_row_order(tmp_path: Path) -> None:
    one = write_shuffled(tmp_path / "one", random.Random(1))
    two = write_shuffled(tmp_path / "two", random.Random(2))
    assert [path.name for path in one.image_paths] != [path.name for path in two.image_paths]
    assert splits_by_name(one) == splits_by_name(two)
    assert Counter(one.splits) == {"train": 40, "val": 5, "test": 5}


def test_a_missing_image_does_not_change_the_split_of_others(tmp_path: Path) -> None:
    whole = splits_by_name(write_shuffled(tmp_path / "whole", random.Random(1)))
    holed = splits_by_name(write_shuffled(tmp_path / "holed", random.Random(1), gone="013.jpg"))
    del whole["013.jpg"]
    assert holed == whole


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    seven = write_shuffled(tmp_path, random.Random(1))
    assert splits_by_name(read_captions(tmp_path, seed=8)) != splits_by_name(seven)


def test_all_captions_of_an_image_are_in_the_same_split(tmp_path: Path) -> None:
    table = write_shuffled(tmp_path, random.Random(3))
    seen: dict[str, str] = {}
    for name in ("train", "val", "test"):
        part = table.split(name)
        for text, row in zip(part.captions, part.image_of_caption, strict=True):
            assert text.endswith(part.image_paths[row].name)
            assert seen.setdefault(part.image_paths[row].name, name) == name
        assert np.bincount(part.image_of_caption).tolist() == [5] * len(part.image_paths)
    assert len(seen) == 50


@pytest.mark.parametrize("word", ["val", "dev", "valid", "validation", " Validation "])
def test_words_for_validation_mean_val(tmp_path: Path, word: str) -> None:
    table = write_shuffled(tmp_path, random.Random(1))
    assert normalise_split(word) == "val"
    assert table.split(word).image_paths == table.split("val").image_paths


def test_split_all_is_the_whole_table(tmp_path: Path) -> None:
    table = write_shuffled(tmp_path, random.Random(1))
    assert table.split("all").captions == table.captions


def test_two_splits_are_combined_without_repeats(tmp_path: Path) -> None:
    table = write_shuffled(tmp_path, random.Random(1))
    assert Counter(table.split("train", "dev").splits) == {"train": 40, "val": 5}
    assert Counter(table.split("val", "dev").splits) == {"val": 5}


def test_an_unknown_or_empty_split_lists_the_existing_ones(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,train\nb.jpg,two,dev\n")
    table = read_captions(tmp_path)
    with pytest.raises(MiniClipError, match="no image is in split 'test'; there are: train 1, val 1"):
        table.split("test")
    with pytest.raises(MiniClipError, match="unknown split 'holdout'"):
        table.split("holdout")


def test_dropping_images_drops_their_captions(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,1,test\nb.jpg,2,test\nb.jpg,3,test\nc.jpg,4,test\n")
    table = read_captions(tmp_path).without({1: "damaged"})
    assert captions_by_name(table) == {"a.jpg": ["1"], "c.jpg": ["4"]}
    assert table.image_of_caption.dtype == np.int64 and table.image_of_caption.tolist() == [0, 1]
    assert table.skipped == [Skipped("b.jpg", "damaged", 2, "test")]
    with pytest.raises(MiniClipError, match="2 of 4 rows"):
        check_skipped(table, allow_missing=False)


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="set MINICLIP_FLICKR8K to the folder of Flickr8k (research use only)")
def test_flickr8k_has_its_official_splits() -> None:
    table = read_captions(FLICKR8K)
    assert Counter(table.splits) == {"train": 6000, "val": 1000, "": 91}
    assert table.skipped == []
    # five captions each; nine images have a repeated caption, which is kept once
    assert Counter(np.bincount(table.image_of_caption).tolist()) == {5: 7082, 4: 9}
    row = next(row for row, path in enumerate(table.image_paths) if path.name == "1253275679_e955fb7304.jpg")
    assert 'Young boy with a black " ADHD " t-shirt nodding off' in table.captions_of(row)
    dev = table.split("dev")
    assert (len(dev.image_paths), len(dev.captions)) == (1000, 5000)
    assert not set(dev.image_paths) & set(table.split("train").image_paths)
