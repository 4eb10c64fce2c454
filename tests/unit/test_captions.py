"""Every caption format on small real files: captions, images and official splits."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from miniclip.data.caption_table import Skipped
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name, reasons, splits_by_name

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
    with pytest.raises(MiniClipError, match=r"a\.jpg is also in the list of train"):
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
    with pytest.raises(MiniClipError, match=r"x\.csv line 3: a\.jpg is in split test here, but in train before"):
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
