"""Every caption format on small real files: the rows read, the rows skipped and why, and the splits."""

import csv
import io
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniclip.data.caption_table import CaptionTable, Skipped, check_skipped
from miniclip.data.captions import read_captions
from miniclip.data.splits import normalise_split
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name

FLICKR8K = Path(os.environ.get("MINICLIP_FLICKR8K", "no-flickr8k"))


def test_a_limited_number_of_skipped_rows_is_named() -> None:
    skipped = [Skipped(f"{number}.jpg", "no such file") for number in range(25)]
    table = CaptionTable([], [], [], np.empty(0, dtype=np.int64), skipped)
    lines = table.skipped_lines(most=20)
    assert lines[0] == "skipping 0.jpg: no such file"
    assert lines[-1] == "... and 5 more"
    assert len(lines) == 21


def splits_by_name(table: CaptionTable) -> dict[str, str]:
    return {path.name: split for path, split in zip(table.image_paths, table.splits, strict=True)}


def reasons(table: CaptionTable) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in table.skipped}


# Kaggle captions.txt


def test_captions_txt_keeps_kaggles_commas_and_quotes(tmp_path: Path) -> None:
    add_images(tmp_path / "Images", "a.jpg", "b.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\n"
        'a.jpg,"A dog , a red ball"\n'
        'a.jpg,"A sign says "" active . """\n'
        "a.jpg,A plain one .\n"
        "b.jpg,No quotes , but commas , too\n"
    )
    assert captions_by_name(read_captions(tmp_path)) == {
        "a.jpg": ["A dog , a red ball", 'A sign says " active . "', "A plain one ."],
        "b.jpg": ["No quotes , but commas , too"],
    }


def test_folder_and_caption_file_give_the_same_table(tmp_path: Path) -> None:
    add_images(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,one\nb.jpg,two\nc.jpg,three\n")
    from_folder, from_file = read_captions(tmp_path), read_captions(str(tmp_path / "captions.txt"))
    assert captions_by_name(from_folder) == captions_by_name(from_file)
    assert splits_by_name(from_folder) == splits_by_name(from_file)


def test_a_stray_quote_does_not_lose_the_following_lines(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "captions.txt").write_text('image,caption\na.jpg,"Hello\nb.jpg,two\nc.jpg,"three , four"\n')
    assert captions_by_name(read_captions(tmp_path)) == {
        "a.jpg": ["Hello"],
        "b.jpg": ["two"],
        "c.jpg": ["three , four"],
    }


def test_a_stray_quote_in_the_header_is_read_or_refused(tmp_path: Path) -> None:
    """The header is only the first line, for detection and for reading; fuzzing found a difference between them."""
    add_images(tmp_path, "a.jpg")
    (tmp_path / "pairs.csv").write_text('"id, of a row",image,"caption\n1,a.jpg,one\n2,a.jpg,"two"\n')
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["one", "two"]}
    (tmp_path / "pairs.csv").write_text('image,"it is, one,caption\na.jpg,two\n"\n')
    with pytest.raises(MiniClipError, match=r"pairs\.csv"):
        read_captions(tmp_path / "pairs.csv")


@pytest.mark.parametrize("line", ["5", "null", "[]", '"caption"', "{", "nan"])
def test_a_json_line_must_be_an_object(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "one"}\n' + line)
    with pytest.raises(MiniClipError, match="line 2 is not a JSON object"):
        read_captions(tmp_path)


def test_a_quoted_caption_may_hold_a_line_break(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "captions.csv").write_text('image,caption\na.jpg,"first line\nsecond line"\nb.jpg,two\n')
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["first line second line"], "b.jpg": ["two"]}


def test_official_lists_determine_the_splits(tmp_path: Path) -> None:
    add_images(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(f"{n}.jpg,caption {n}\n" for n in "abcd"))
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("b.jpg\r\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\n\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("d.jpg")
    table = read_captions(tmp_path)
    assert splits_by_name(table) == {"a.jpg": "val", "b.jpg": "train", "c.jpg": "", "d.jpg": "test"}
    assert captions_by_name(table.split("test")) == {"d.jpg": ["caption d"]}


def test_an_image_in_two_official_lists_is_an_error(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,one\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("a.jpg\n")
    with pytest.raises(MiniClipError, match=r"a\.jpg is in the list of train too"):
        read_captions(tmp_path)


# Kaggle results.csv, Flickr tokens


def test_results_csv_repairs_a_row_with_a_missing_bar(tmp_path: Path) -> None:
    add_images(tmp_path / "flickr30k_images", "1.jpg", "2199200615.jpg")
    (tmp_path / "results.csv").write_text(
        "image_name| comment_number| comment\n"
        "1.jpg| 0| Two young guys , one with a | on his shirt .\n"
        '1.jpg| 1| A sign says " stop " .\n'
        "2199200615.jpg| 3| 2 dogs .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n"
    )
    assert captions_by_name(read_captions(tmp_path)) == {
        "1.jpg": ["Two young guys , one with a | on his shirt .", 'A sign says " stop " .'],
        "2199200615.jpg": ["2 dogs .", "A dog runs across the grass ."],
    }


def test_captions_inside_the_image_folder_are_found_from_above(tmp_path: Path) -> None:
    add_images(tmp_path / "flickr30k_images/flickr30k_images", "1.jpg")
    results = tmp_path / "flickr30k_images/results.csv"
    results.write_text("image_name| comment_number| comment\n1.jpg| 0| A man .\n")
    assert captions_by_name(read_captions(tmp_path)) == {"1.jpg": ["A man ."]}


@pytest.mark.parametrize("name", ["Flickr8k.token.txt", "results_20130124.token"])
def test_token_file_lies_beside_its_image_folder_and_lists(tmp_path: Path, name: str) -> None:
    add_images(tmp_path / "Flicker8k_Dataset", "a.jpg", "b.jpg")
    (tmp_path / name).write_text('a.jpg#0\tA child , "sitting"\na.jpg#1\tA girl .\nb.jpg#0\tTeam #1 wins .\n')
    (tmp_path / "Flickr8k.lemma.token.txt").write_text("a.jpg#0\tchild sit\n")
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text("a.jpg\tb.jpg#2\t1\t0\t3\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("b.jpg\n")
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ['A child , "sitting"', "A girl ."], "b.jpg": ["Team #1 wins ."]}
    assert table.splits == ["train", "test"]


def test_a_token_name_may_contain_a_number_sign(tmp_path: Path) -> None:
    add_images(tmp_path, "a#1.jpg")
    (tmp_path / "x.token").write_text("a#1.jpg#0\tone\n")
    assert captions_by_name(read_captions(tmp_path)) == {"a#1.jpg": ["one"]}


def test_token_names_without_an_image_are_skipped_by_name(tmp_path: Path) -> None:
    add_images(tmp_path, "2258277193_586949ec62.jpg")
    (tmp_path / "Flickr8k.token.txt").write_text(
        "2258277193_586949ec62.jpg#0\tpeople\n2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n"
    )
    assert reasons(read_captions(tmp_path)) == {"2258277193_586949ec62.jpg.1": "no such file"}


# Karpathy JSON


def test_karpathy_restval_is_training_and_filepath_is_a_folder(tmp_path: Path) -> None:
    add_images(tmp_path, "val2014/1.jpg", "train2014/2.jpg", "3.jpg", "4.jpg")
    images: list[dict[str, Any]] = [
        {"filepath": "val2014", "filename": "1.jpg", "split": "restval", "sentences": [{"raw": "one"}, {"raw": "uno"}]},
        {"filepath": "train2014", "filename": "2.jpg", "split": "train", "sentences": [{"raw": "two", "tokens": []}]},
        {"filename": "3.jpg", "split": "val", "sentences": [{"raw": "three"}]},
        {"filename": "4.jpg", "split": "test", "sentences": []},
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"1.jpg": ["one", "uno"], "2.jpg": ["two"], "3.jpg": ["three"]}
    assert table.splits == ["train", "train", "val"]
    assert table.skipped == [Skipped("4.jpg", "image without any caption", 1, "test")]


def test_json_that_is_not_karpathys_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dataset_x.json").write_text('{"images": [{"file_name": "1.jpg"}]}')
    with pytest.raises(MiniClipError, match=r"not in Karpathy's form.*'filename'"):
        read_captions(tmp_path)


# CSV, TSV, imagefolder


@pytest.mark.parametrize("name_column", ["image", "file_name", "filename", "filepath"])
@pytest.mark.parametrize(("caption_column", "delimiter"), [("caption", ","), ("text", "\t")])
def test_csv_and_tsv_columns_are_identified_by_their_header(
    tmp_path: Path, name_column: str, caption_column: str, delimiter: str
) -> None:
    add_images(tmp_path, "pictures/a.jpg", "pictures/b.jpg")
    file = tmp_path / ("pairs.tsv" if delimiter == "\t" else "pairs.csv")
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["id", caption_column.upper(), name_column, "split"])
        writer.writerow(["1", 'one, "quoted"\ttab', "pictures/a.jpg", "validation"])
        writer.writerow(["2", "two", "pictures/b.jpg", "Test"])
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ['one, "quoted" tab'], "b.jpg": ["two"]}
    assert table.splits == ["val", "test"]


def test_unquoted_commas_stay_in_a_caption_before_the_split_column(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,red, white, blue,test\n")
    table = read_captions(tmp_path)
    assert (table.captions, table.splits) == (["red, white, blue"], ["test"])


def test_rows_without_a_split_get_none_if_others_have_one(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,\na.jpg,uno,test\nb.jpg,two\nc.jpg,three,train\n")
    assert splits_by_name(read_captions(tmp_path)) == {"a.jpg": "test", "b.jpg": "", "c.jpg": "train"}


def test_an_image_in_two_splits_is_an_error_that_names_it(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,train\na.jpg,two,test\n")
    with pytest.raises(MiniClipError, match=r"x\.csv line 3: a\.jpg is in split test here and in train before"):
        read_captions(tmp_path)


def test_an_unknown_split_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,holdout\n")
    with pytest.raises(MiniClipError, match=r"x\.csv line 2: unknown split 'holdout'"):
        read_captions(tmp_path)


def test_imagefolder_reads_metadata_csv_and_jsonl_alike(tmp_path: Path) -> None:
    for form in ("csv", "jsonl"):
        add_images(tmp_path / form, "a.png", "sub/b.png")
    (tmp_path / "csv/metadata.csv").write_text("file_name,text\na.png,one\nsub/b.png,two\n")
    (tmp_path / "jsonl/metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "one"}\n\n{"file_name": "sub/b.png", "caption": "two"}\n'
    )
    expected = {"a.png": ["one"], "b.png": ["two"]}
    assert captions_by_name(read_captions(tmp_path / "csv")) == expected
    assert captions_by_name(read_captions(tmp_path / "jsonl")) == expected


def test_imagefolder_with_a_folder_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        add_images(tmp_path / split, "1.png")  # the same name in each folder: three images
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\n1.png,of {split}\ngone.png,lost\n")
    table = read_captions(tmp_path)
    assert {(path.parent.name, split) for path, split in zip(table.image_paths, table.splits, strict=True)} == {
        ("train", "train"),
        ("validation", "val"),
        ("test", "test"),
    }
    assert table.split("val").captions == ["of validation"]
    assert table.split("val").skipped == [Skipped("validation/gone.png", "no such file", 1, "val")]


# A bare folder


def test_bare_folder_is_read_recursively_without_hidden_files(tmp_path: Path) -> None:
    add_images(tmp_path, "b.PNG", "deep/er/a.jpg", ".thumbs/x.jpg", "._b.png")
    (tmp_path / "notes.txt").write_text("not an image")
    table = read_captions(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in table.image_paths] == ["b.PNG", "deep/er/a.jpg"]
    assert table.captions == [] and table.image_of_caption.shape == (0,) and table.captions_of(1) == []


def test_bare_folder_of_twenty_is_split_16_2_2(tmp_path: Path) -> None:
    add_images(tmp_path, *(f"{n}.png" for n in range(20)))
    assert Counter(read_captions(tmp_path).splits) == {"train": 16, "val": 2, "test": 2}


# Hugging Face


def encoded(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(stream, "BMP")
    return stream.getvalue()


class HubPart(list[dict[str, Any]]):
    """The part of a `datasets.Dataset` that MiniCLIP uses: rows, features and `cast_column`."""

    features: dict[str, Any]

    def cast_column(self, name: str, feature: Any) -> "HubPart":
        assert name == "image" and feature.decode is False
        return self


def offer_on_the_hub(monkeypatch: pytest.MonkeyPatch, parts: dict[str, list[dict[str, Any]]]) -> None:
    class HubImage:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    def load_dataset(name: str) -> dict[str, HubPart]:
        if name != "someone/pairs":
            raise ConnectionError("no\nroute")
        hub_parts = {}
        for part, rows in parts.items():
            hub_parts[part] = HubPart(rows)
            hub_parts[part].features = dict.fromkeys(rows[0]) | {"image": HubImage()}
        return hub_parts

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, Image=HubImage))


def test_hub_dataset_with_one_row_per_caption_gives_one_png_per_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    add_images(tmp_path, "own.png")
    rows = {
        "train": [
            {"image": {"bytes": encoded(1), "path": "1.bmp"}, "caption": "one"},
            {"image": {"bytes": encoded(1), "path": "1.bmp"}, "caption": "uno"},
            {"image": {"bytes": b"damaged", "path": None}, "caption": "nothing"},
        ],
        "validation": [{"image": {"bytes": None, "path": str(tmp_path / "own.png")}, "caption": ["two", "due"]}],
    }
    offer_on_the_hub(monkeypatch, rows)
    table = read_captions("hf:someone/pairs")
    assert [table.captions_of(0), table.captions_of(1)] == [["one", "uno"], ["two", "due"]]
    assert table.splits == ["train", "val"]
    assert table.image_paths[1] == tmp_path / "own.png"
    with Image.open(table.image_paths[0]) as image:
        assert image.format == "PNG" and image.getpixel((0, 0)) == (1, 0, 0)
    assert [(entry.name, entry.split) for entry in table.skipped] == [("train row 2", "train")]


def test_hub_dataset_with_one_split_is_split_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path))
    rows = [{"image": {"bytes": encoded(n // 2), "path": None}, "caption_0": f"{n}"} for n in range(20)]
    offer_on_the_hub(monkeypatch, {"train": rows})
    assert Counter(read_captions("hf:someone/pairs").splits) == {"train": 8, "val": 1, "test": 1}


def test_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    offer_on_the_hub(monkeypatch, {})
    with pytest.raises(MiniClipError, match=r"cannot load hf:someone/else \(no route\); check the name"):
        read_captions("hf:someone/else")


def test_hub_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MiniClipError, match=r"pip install .*\[datasets\]"):
        read_captions("hf:someone/pairs")


# Encodings and line ends


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_blank_lines_and_byte_order_mark_change_nothing(tmp_path: Path, line_end: str, mark: bytes) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    lines = ["", "image,caption", "", "a.jpg,Ein Bär", "  ", "b.jpg,two", ""]
    (tmp_path / "captions.txt").write_bytes(mark + line_end.join(lines).encode())
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["Ein Bär"], "b.jpg": ["two"]}


def test_latin_1_and_utf_8_in_one_file_are_read(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    content = b"\xef\xbb\xbfimage,caption\na.jpg,caf\xe9 cr\xe8me\nb.jpg," + "naïve".encode() + b"\n"
    (tmp_path / "captions.txt").write_bytes(content)
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["café crème"], "b.jpg": ["naïve"]}


def test_a_unicode_line_separator_does_not_break_a_caption(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "x.token").write_text("a.jpg#0\tone\u2028two\n", encoding="utf-8")
    assert read_captions(tmp_path).captions == ["one two"]


# Skipped rows


def test_every_skipped_row_is_named_with_its_reason(tmp_path: Path) -> None:
    add_images(tmp_path / "Images", "a.jpg", "empty.jpg", "unnamed.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\na.jpg,one\na.jpg,\n,no name\ngone.jpg,lost\ngone.jpg,lost too\nempty.jpg,  \n"
    )
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["one"]}
    assert reasons(table) == {
        "captions.txt line 4": "no image name",
        "a.jpg": "empty caption",
        "gone.jpg": "no such file",
        "empty.jpg": "empty caption",
        "unnamed.jpg": "image without any caption",
    }
    assert {entry.name: entry.rows for entry in table.skipped}["gone.jpg"] == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/outside.jpg", "absolute path"),
        ("C:\\outside.jpg", "absolute path"),
        ("\\\\server\\outside.jpg", "absolute path"),
        ("../outside.jpg", "leads out"),
        ("sub/../../outside.jpg", "leads out"),
        ("..\\outside.jpg", "leads out"),
        ("x" * 5000 + ".jpg", "no such file"),
        ("sub", "no such file"),
    ],
)
def test_names_that_leave_the_folder_are_skipped(tmp_path: Path, name: str, reason: str) -> None:
    add_images(tmp_path, "outside.jpg", "data/a.jpg", "data/sub/b.jpg", "data/Images/c.jpg")
    (tmp_path / "data/captions.txt").write_text(f"image,caption\na.jpg,one\n{name},other\n")
    table = read_captions(tmp_path / "data")
    assert table.captions == ["one"]
    assert [entry.reason.startswith(reason) for entry in table.skipped if entry.rows] == [True]


def test_every_spelling_of_a_path_inside_the_folder_is_found(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "Images/b.jpg", "sub/c.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\n./a.jpg,1\nsub/../a.jpg,2\n Images/b.jpg,3\nb.jpg,5\nsub\\c.jpg,4\n"
    )
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["1", "2"], "b.jpg": ["3", "5"], "c.jpg": ["4"]}
    assert len(table.image_paths) == 3


def test_identical_captions_of_one_image_are_kept_once(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,dog\na.jpg,cat\na.jpg, dog\nb.jpg,dog\n")
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["dog", "cat"], "b.jpg": ["dog"]}
    assert table.skipped == []


@pytest.mark.parametrize(("missing", "accepted"), [(1, True), (2, False)])
def test_more_than_five_percent_skipped_needs_a_flag(tmp_path: Path, missing: int, accepted: bool) -> None:
    kept = [f"{n:02d}.jpg" for n in range(20 - missing)]
    add_images(tmp_path, *kept)
    names = [*kept, *(f"gone{n}.jpg" for n in range(missing))]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(f"{n},x\n{n},y\n" for n in names))
    table = read_captions(tmp_path)
    check_skipped(table, allow_missing=True)
    if accepted:
        check_skipped(table, allow_missing=False)
    else:
        with pytest.raises(MiniClipError, match=r"4 of 40 rows.*gone0\.jpg \(no such file\).*--allow-missing"):
            check_skipped(table, allow_missing=False)


def test_uncaptioned_images_do_not_count_as_skipped_rows(tmp_path: Path) -> None:
    add_images(tmp_path, *(f"{n}.jpg" for n in range(10)))
    (tmp_path / "captions.txt").write_text("image,caption\n0.jpg,zero\n")
    table = read_captions(tmp_path)
    assert len(table.skipped) == 9
    check_skipped(table, allow_missing=False)


def test_summary_counts_splits_and_reasons(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,train\nb.jpg,two,\ngone.jpg,lost,\nno.jpg,lost,\n")
    assert read_captions(tmp_path).summary() == (
        "2 images, 2 captions: train 1, in no split 1\nskipped: 2 no such file"
    )


# Splits and the table


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


# Wrong paths


def test_a_missing_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match="does not exist; give a folder"):
        read_captions(tmp_path / "nowhere")


def test_an_empty_folder_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match=r"no caption file and no images.*captions\.txt.*openmoji"):
        read_captions(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "captions.txt", "x.csv", "x.json"])
def test_a_file_of_unknown_format_lists_the_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear diary\n")
    with pytest.raises(MiniClipError, match=r"not a caption file that MiniCLIP knows.*Karpathy JSON"):
        read_captions(tmp_path / name)


def test_an_empty_caption_file_is_an_error(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").touch()
    with pytest.raises(MiniClipError, match=r"captions\.txt is empty"):
        read_captions(tmp_path)


def test_several_caption_files_need_a_choice(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,caption\na.jpg,one\n")
    with pytest.raises(MiniClipError, match=r"several caption files \(one\.csv, two\.csv\); name the one"):
        read_captions(tmp_path)
    assert read_captions(tmp_path / "two.csv").captions == ["one"]


def test_a_dataset_without_images_says_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,one\n")
    with pytest.raises(MiniClipError, match=r"a\.jpg \(no such file\).*beside the caption file and in Images"):
        read_captions(tmp_path)


# Real data


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
