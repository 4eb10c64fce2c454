"""The retrieval figure shows the results of the embeddings and marks the correct ones."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import SplitEmbeds
from miniclip.models.checkpoint import load_run
from miniclip.models.config import Config
from miniclip.models.dual_encoder import DualEncoder
from tests.support.cli import run_cli
from tests.support.training import config, start, with_train
from train.__main__ import draw_validation
from train.data import TrainingData
from train.retrieval_figure import (
    CAPTIONS,
    GAP_PX,
    GREEN,
    IMAGES,
    LINE_PX,
    PAPER,
    ROWS,
    SHEET_FILE,
    TEXT_PX,
    TICK_PX,
    TILE_PX,
    WIDTH_PX,
    draw_sheet,
)
from train.trainer import Trainer
from train.validation import embed_validation

__all__ = ["config"]  # fixtures
TITLE_PX = 2 * LINE_PX + GAP_PX
CAPTION_ROWS = (0, 4, 9, 13, 18, 23)  # of 24, evenly


@pytest.fixture(scope="module")
def shown(image_folder: Path) -> SplitEmbeds:
    """Twelve images with two captions each, and embeddings that find some images and miss others."""
    table = read_captions(image_folder)
    generator = np.random.default_rng(0)
    image_embeds = generator.normal(size=(12, 8))
    text_embeds = image_embeds[table.image_of_caption] + 2 * generator.normal(size=(24, 8))
    unit = [
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (image_embeds, text_embeds)
    ]
    return SplitEmbeds(table, *unit)


def sheet_of(shown: SplitEmbeds, folder: Path) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    assert draw_sheet(folder, shown) == folder / SHEET_FILE
    return np.asarray(Image.open(folder / SHEET_FILE))


def test_the_correct_image_has_a_green_frame_at_its_rank(shown: SplitEmbeds, tmp_path: Path) -> None:
    pixels = sheet_of(shown, tmp_path)
    framed, expected = [], []
    for number, row in enumerate(CAPTION_ROWS):
        top = TITLE_PX + number * (TILE_PX + GAP_PX)
        lefts = [TEXT_PX + GAP_PX + place * (TILE_PX + GAP_PX) for place in range(IMAGES)]
        framed.append([tuple(pixels[top, left]) == GREEN for left in lefts])
        similarity = shown.image_embeds @ shown.text_embeds[row]
        rank = int((similarity > similarity[shown.table.image_of_caption[row]]).sum())
        expected.append([place == rank for place in range(IMAGES)])
    assert framed == expected
    assert 0 < np.sum(expected) < ROWS  # some are found, others are not


def test_the_found_images_are_the_nearest_in_order(shown: SplitEmbeds, tmp_path: Path) -> None:
    pixels = sheet_of(shown, tmp_path)
    for number, row in enumerate(CAPTION_ROWS):
        order = np.argsort(-(shown.image_embeds @ shown.text_embeds[row]))
        for place in range(IMAGES):
            left, top = TEXT_PX + GAP_PX + place * (TILE_PX + GAP_PX), TITLE_PX + number * (TILE_PX + GAP_PX)
            tile = pixels[top + 10 : top + TILE_PX - 10, left + 10 : left + TILE_PX - 10].reshape(-1, 3)
            colour = shown.table.image_paths[order[place]].name.split("-")[0]
            drawn = tile[np.ptp(tile.astype(int), axis=1) > 100].mean(axis=0)  # the shape, not the white around it
            strongest = {"red": [0], "green": [1], "blue": [2], "yellow": [0, 1]}[colour]
            weakest = [channel for channel in range(3) if channel not in strongest]
            assert drawn[strongest].min() > drawn[weakest].max() + 40, (row, place)


def test_only_correct_captions_have_a_tick(shown: SplitEmbeds, tmp_path: Path) -> None:
    pixels = sheet_of(shown, tmp_path)
    begin = 2 * TITLE_PX + ROWS * (TILE_PX + GAP_PX)
    ticked, expected = [], []
    for number, row in enumerate((0, 2, 4, 6, 8, 11)):  # of 12, evenly
        top, left = begin + number * (TILE_PX + GAP_PX), TILE_PX + 3 * GAP_PX
        order = np.argsort(-(shown.text_embeds @ shown.image_embeds[row]))
        for place in range(CAPTIONS):
            line = pixels[top + place * LINE_PX : top + (place + 1) * LINE_PX, left : left + TICK_PX]
            ticked.append(bool((line != PAPER).any()))
            expected.append(bool(shown.table.image_of_caption[order[place]] == row))
    assert ticked == expected and 0 < sum(expected) < len(expected)


def test_the_figure_is_repeatable(shown: SplitEmbeds, tmp_path: Path) -> None:
    for name in ("one", "two"):
        sheet_of(shown, tmp_path / name)
    assert (tmp_path / "one" / SHEET_FILE).read_bytes() == (tmp_path / "two" / SHEET_FILE).read_bytes()


@pytest.mark.parametrize("caption", ["W" * 300, "WIDE LETTERS " * 30, "красный круг " * 30, ""])
def test_words_do_not_cover_images(caption: str, shown: SplitEmbeds, tmp_path: Path) -> None:
    wordy = replace(shown, table=replace(shown.table, captions=[caption] * 24))
    pixels = sheet_of(wordy, tmp_path)
    bottom = TITLE_PX + ROWS * (TILE_PX + GAP_PX)
    assert (pixels[TITLE_PX:bottom, TEXT_PX : TEXT_PX + GAP_PX] == PAPER).all()
    assert (pixels[bottom:, WIDTH_PX - GAP_PX // 2 :] == PAPER).all()


def test_a_small_split_and_a_missing_image(shown: SplitEmbeds, tmp_path: Path) -> None:
    table = replace(shown.table.first(2), captions=shown.table.captions[:2], image_of_caption=np.asarray([0, 0]))
    few = SplitEmbeds(table, shown.image_embeds[:2], shown.text_embeds[:2])
    assert sheet_of(few, tmp_path).shape[0] < sheet_of(shown, tmp_path).shape[0]
    table = replace(shown.table.first(1), image_paths=[tmp_path / "gone.png"])
    gone = SplitEmbeds(table, shown.image_embeds[:1], shown.text_embeds[:2])
    with pytest.raises(MiniClipError, match=r"gone\.png: no such file"):
        draw_sheet(tmp_path, gone)


def test_training_draws_the_figure_of_the_kept_weights(
    tiny_run: Path, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    assert Image.open(tiny_run / SHEET_FILE).width == WIDTH_PX  # drawn by the command

    trainer = start(tmp_path, with_train(config, epochs=20, patience=2, learning_rate=0.1), captioned_folder)
    trainer.run()
    last = sheet_of(of_validation(trainer.model, trainer.data), tmp_path / "last")
    draw_validation(tmp_path, trainer.model, trainer.data)
    kept = sheet_of(of_validation(load_run(tmp_path).model, trainer.data), tmp_path / "kept")
    assert (tmp_path / SHEET_FILE).read_bytes() == (tmp_path / "kept" / SHEET_FILE).read_bytes()
    assert (last != kept).any()


def of_validation(model: DualEncoder, data: TrainingData) -> SplitEmbeds:
    text_embeds, image_embeds, image_of_text = embed_validation(model, data)
    table = data.table.split("val")
    assert image_of_text.tolist() == table.image_of_caption.tolist()
    return SplitEmbeds(table, image_embeds, text_embeds)


@pytest.mark.parametrize("size", [(1200, 3), (3, 1200)])
def test_an_image_as_thin_as_a_line_is_drawn(shown: SplitEmbeds, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (200, 0, 0)).save(tmp_path / "line.png")
    paths = [tmp_path / "line.png", *shown.table.image_paths[1:]]
    pixels = sheet_of(replace(shown, table=replace(shown.table, image_paths=paths)), tmp_path / "run")
    assert (pixels == (200, 0, 0)).all(axis=2).sum() >= TILE_PX - 12  # one pixel high, as long as the square


def test_a_run_is_finished_even_if_its_images_disappear_before_the_figure(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shutil.copytree(captioned_folder, tmp_path / "images")
    train = Trainer.run

    def train_and_lose_the_images(trainer: Trainer, *arguments: object) -> float:
        best = train(trainer, *arguments)
        shutil.rmtree(images)
        return best

    monkeypatch.setattr(Trainer, "run", train_and_lose_the_images)
    done = run_cli("train", "--config", tiny_config, "--data", images, "--out", tmp_path / "run")
    assert done.returncode == 0 and "best mean recall" in done.stderr + done.stdout
    assert "no retrieval figure: " in done.stderr + done.stdout and not (tmp_path / "run" / SHEET_FILE).exists()
    load_run(tmp_path / "run")
