"""The data of a run: several sources, and too few images."""

import math
import os
from pathlib import Path

import pytest

from miniclip.data.caption_table import CaptionTable
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.models.config import Config
from tests.support.drawing import draw_image
from tests.support.training import TRANSFORM, config, new_model, records_of, start, tokenizer_of, with_train
from train.data import load_data

__all__ = ["config"]  # fixtures


def images_in(folder: Path, count: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        draw_image("red", "circle", seed=number).save(folder / name)
    return names


def write_csv(file: Path, rows: dict[str, str]) -> Path:
    """Write one caption for each name; names map to splits, "" for none."""
    lines = [f"{name},a red circle {name},{split}\n" for name, split in rows.items()]
    file.write_text("image,caption,split\n" + "".join(lines))
    return file


def table(config: Config, *sources: Path, allow_missing: bool = False) -> CaptionTable:
    names = [str(source) for source in sources]
    return load_data(names, config, new_model(config), TRANSFORM, tokenizer_of(config), allow_missing).table


def test_held_out_images_of_the_first_source_are_not_trained_on(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same list without one image has another split, and an image may be reached by a link."""
    names = images_in(tmp_path, 40)
    first = write_csv(tmp_path / "first.csv", dict.fromkeys(names, ""))
    second = write_csv(tmp_path / "second.csv", dict.fromkeys(names[1:], ""))
    (tmp_path / "links").mkdir()
    held_out = set(read_captions(first).split("val", "test").image_paths)
    for path in held_out:
        os.symlink(path, tmp_path / "links" / path.name)
    links = write_csv(tmp_path / "links/third.csv", {path.name: "train" for path in held_out})
    lost = len(held_out & set(read_captions(second).split("train", "val").image_paths))
    assert len(held_out) == 8 and lost > 0  # otherwise the test could not fail

    both = table(config, first, second, links)
    trained = {path.resolve() for path in both.split("train").image_paths}
    assert not trained & {path.resolve() for path in held_out}
    assert both.split("val").image_paths == read_captions(first).split("val").image_paths
    shown = capsys.readouterr().out
    assert f"{second}: {lost} images not used for training, because {first} holds them out" in shown
    assert f"{links}: 8 images not used for training" in shown and "skipping" not in shown


def test_a_further_source_may_have_only_training_images(config: Config, tmp_path: Path) -> None:
    first = write_csv(tmp_path / "first.csv", dict.fromkeys(images_in(tmp_path, 10), ""))
    names = images_in(tmp_path / "more", 5)
    second = write_csv(tmp_path / "more/second.csv", dict.fromkeys(names, "train"))
    assert table(config, first, second).image_paths[-5:] == [tmp_path / "more" / name for name in names]
    with pytest.raises(MiniClipError, match="no image is in split 'val'"):
        table(config, second, first)


@pytest.mark.parametrize("setup", [1, 2])
@pytest.mark.parametrize(
    ("broken", "left"),
    [("val", "only 4 training and 0 validation images can be read"), ("train val", "only 0 training and")],
)
def test_unreadable_images_are_found_before_the_first_epoch(
    config: Config, tmp_path: Path, setup: int, broken: str, left: str
) -> None:
    splits = dict(zip(images_in(tmp_path, 5), ("val", "train", "train", "train", "train"), strict=True))
    file = write_csv(tmp_path / "x.csv", splits)
    for name, split in splits.items():
        if split in broken:
            (tmp_path / name).write_text("no image any more")
    with pytest.raises(MiniClipError, match=f"{left}.*training needs at least 2 images and validation 1"):
        table(with_train(config, setup=setup), file, allow_missing=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_images_are_refused_with_the_required_number(config: Config, tmp_path: Path, count: int) -> None:
    file = write_csv(tmp_path / "x.csv", dict.fromkeys(images_in(tmp_path, count), ""))
    with pytest.raises(MiniClipError, match="at least 2 images and validation 1, which takes 4 images"):
        table(config, file)


def test_the_required_number_of_images_can_be_trained_on(config: Config, tmp_path: Path) -> None:
    names = images_in(tmp_path, 4)
    write_csv(tmp_path / "x.csv", dict.fromkeys(names, ""))
    start(tmp_path / "run", with_train(config, epochs=1), tmp_path).run()
    assert [math.isfinite(record["loss"]) for record in records_of(tmp_path / "run")] == [True]
