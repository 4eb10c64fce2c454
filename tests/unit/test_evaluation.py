"""Evaluation of a split: the measured images, and the images left out."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import embed_split, recall_table
from miniclip.evaluation.metrics import retrieval_recalls
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.calibration_set import CALIBRATION_FILE, CalibrationSet
from miniclip.models.checkpoint import load_run
from miniclip.models.config import Config
from miniclip.models.torch_encoder import TorchEncoders
from tests.support.cli import run_cli
from tests.support.drawing import draw_image
from tests.support.training import TRANSFORM, config, new_model, tokenizer_of

__all__ = ["config"]  # fixtures

KEYS = {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)} | {"mean_recall"}


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.mark.parametrize("protocol", ["karpathy", "paired"])
def test_recalls_follow_from_embeddings(encoders: OnnxEncoders, image_folder: Path, protocol: str) -> None:
    embedded = embed_split(encoders, read_captions(image_folder))
    assert (len(embedded.image_embeds), len(embedded.text_embeds)) == (12, 24)
    result = embedded.recalls(protocol)
    assert set(result) == KEYS and all(0 <= value <= 1 for value in result.values())
    assert result["mean_recall"] == pytest.approx(sum(result[key] for key in KEYS - {"mean_recall"}) / 6)
    assert result == retrieval_recalls(
        embedded.text_embeds, embedded.image_embeds, embedded.table.image_of_caption, protocol
    )


def test_an_unreadable_image_is_dropped_with_its_captions(
    encoders: OnnxEncoders, image_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(image_folder, tmp_path / "pictures"))
    damaged = sorted(folder.glob("*-*"))[3]
    damaged.write_text("no image any more")
    embedded = embed_split(encoders, read_captions(folder))
    assert (len(embedded.image_embeds), len(embedded.text_embeds)) == (11, 22)
    assert [skipped.name for skipped in embedded.table.skipped] == [damaged.name]
    whole = embed_split(encoders, read_captions(image_folder))
    kept = [row for row, path in enumerate(whole.table.image_paths) if path.name != damaged.name]
    assert embedded.image_embeds == pytest.approx(whole.image_embeds[kept], abs=1e-5)


def test_nothing_to_measure_is_an_error(encoders: OnnxEncoders, image_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(image_folder, tmp_path / "pictures"))
    (folder / "metadata.csv").unlink()
    with pytest.raises(MiniClipError, match="the data has no captions"):
        embed_split(encoders, read_captions(folder))
    shutil.copy(image_folder / "metadata.csv", folder)
    for image in folder.glob("*-*"):
        image.write_text("no image any more")
    with pytest.raises(MiniClipError, match=r"no image could be read; the first: .*: not an image"):
        embed_split(encoders, read_captions(folder))


def test_unknown_protocol_is_named(encoders: OnnxEncoders, image_folder: Path) -> None:
    embedded = embed_split(encoders, read_captions(image_folder))
    with pytest.raises(MiniClipError, match="protocol must be one of karpathy, paired, got clip"):
        embedded.recalls("clip")


def test_table_shows_percent() -> None:
    shown = recall_table({"tiny fp32": dict.fromkeys(KEYS, 0.125)})
    assert shown.splitlines()[1].split() == ["tiny", "fp32", "12.5/12.5/12.5", "12.5/12.5/12.5", "12.5"]


def test_columns_of_a_table_never_touch() -> None:
    """Even with long names and 100 % everywhere."""
    shown = recall_table({"clip-vit-large-patch14-336 torch fp32": dict.fromkeys(KEYS, 1.0)}).splitlines()
    assert shown[1].split()[-3:] == ["100.0/100.0/100.0", "100.0/100.0/100.0", "100.0"]
    assert shown[0].index("mean") + len("mean") == len(shown[1])


def test_a_sample_is_measured_and_shown_image_by_image(
    tiny_bundle: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    flags = ["--bundle", tiny_bundle, "--data", captioned_folder, "--split", "all", "--precision", "fp32"]
    flags += ["--samples", 6, "--per-image", "--json", tmp_path / "r.json"]
    done = run_cli("miniclip.cli", "evaluate", *flags, "--seed", 3)
    assert done.returncode == 0, done.stderr
    blocks = done.stdout.split("\n\n")[:-1]
    assert len(blocks) == 6 and json.loads((tmp_path / "r.json").read_text())["images"] == 6
    for block in blocks:
        image, *captions, caption = block.splitlines()[:7]
        images = block.splitlines()[7:]
        assert image.startswith("image ") and caption.startswith("caption ")
        assert len(captions) == len(images) == 5
        name = image.removeprefix("image ")
        assert all(line.endswith(name) for line in images if line.startswith("  *"))
        scores = [float(line.split()[line.startswith("  *")]) for line in captions]
        assert scores == sorted(scores, reverse=True)
        for line in captions:  # the correct captions name the image's colour and shape
            if line.startswith("  *"):
                assert all(word in line for word in name.split("-")[:2])
    assert run_cli("miniclip.cli", "evaluate", *flags, "--seed", 3).stdout == done.stdout
    assert run_cli("miniclip.cli", "evaluate", *flags, "--seed", 4).stdout != done.stdout


def test_a_split_with_training_images_gives_a_warning(tiny_run: Path, tmp_path: Path) -> None:
    """As after adding an image to a data set whose split depends on a seed."""
    data, run = tmp_path / "data", Path(shutil.copytree(tiny_run, tmp_path / "run"))
    data.mkdir()
    lines = ["file_name,text"]

    def add(number: int) -> None:
        image = draw_image("red", "circle")
        image.paste((number, 0, 0), (0, 0, 40, 40))  # all are different
        image.save(data / f"{number}.png")
        lines.append(f"{number}.png,circle {number}")
        (data / "metadata.csv").write_text("\n".join(lines) + "\n")

    for number in range(40):
        add(number)
    CalibrationSet.choose(read_captions(data), TRANSFORM).save(run / CALIBRATION_FILE)
    command = ("miniclip.cli", "evaluate", "--run", run, "--data", data, "--split")
    done = run_cli(*command, "test")
    assert (done.returncode, done.stderr) == (0, "")
    add(40)
    done = run_cli(*command, "test")
    found = re.search(r"warning: this split contains images that .* was trained on \(\d of 32 checked\)", done.stderr)
    assert done.returncode == 0 and found, done.stderr
    assert "warning" not in run_cli(*command, "train").stderr


@pytest.mark.parametrize("head", ["vision_head", "text_head"])
def test_a_model_with_nan_is_refused(config: Config, image_folder: Path, head: str) -> None:
    model = new_model(config)
    with torch.no_grad():
        for parameter in getattr(model, head).parameters():
            parameter.fill_(math.nan)
    encoders = TorchEncoders(model.eval(), TRANSFORM, tokenizer_of(config))
    with pytest.raises(MiniClipError, match="spoilt: the model's embeddings are not finite numbers"):
        embed_split(encoders, read_captions(image_folder), "spoilt")


@pytest.fixture(scope="module")
def seven(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, as if its data had been split by seed 7."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("seven") / "run"))
    settings = json.loads((folder / "config.json").read_text())
    settings["config"]["data"]["seed"] = 7
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_a_run_is_measured_on_the_split_it_was_trained_with(seven: Path, captioned_folder: Path) -> None:
    command = ("miniclip.cli", "evaluate", "--run", seven, "--data", captioned_folder)
    recalls = [
        embed_split(load_run(seven).encoders(), read_captions(captioned_folder, seed).split("test")).recalls()
        for seed in (7, 0)
    ]
    assert recalls[0] != recalls[1]  # otherwise this test could not fail
    for flags, seed, expected in (((), 7, recalls[0]), (("--seed", 0), 0, recalls[1])):
        file = seven.parent / f"{seed}.json"
        done = run_cli(*command, *flags, "--json", file)
        assert done.returncode == 0, done.stderr
        written = json.loads(file.read_text())
        assert (written["seed"], {key: written[key] for key in expected}) == (seed, pytest.approx(expected))


def test_models_are_compared_on_a_split_that_none_of_them_was_trained_on(
    seven: Path, tiny_run: Path, tiny_bundle: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    def compare(*flags: object) -> Any:
        return run_cli("miniclip.cli", "compare", *flags, "--data", captioned_folder, "--json", tmp_path / "c.json")

    done = compare(tiny_bundle, seven)  # a bundle has no seed, so the run determines it
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "c.json").read_text())["models"]
    assert [result["seed"] for result in results.values()] == [7, 7]
    done = compare(tiny_run, seven)
    assert done.returncode == 2 and re.fullmatch(
        r"error: the runs split this data differently \(.*tiny by seed 0, .*run by seed 7\); choose one with --seed\n",
        done.stderr,
    )
    for flags in (("--seed", 7), ("--split", "all")):
        done = compare(tiny_run, seven, *flags)
        assert done.returncode == 0, done.stderr


def test_paired_counts_the_captions_that_it_measures(tiny_bundle: Path, image_folder: Path, tmp_path: Path) -> None:
    flags = ("--data", image_folder, "--split", "all", "--protocol", "paired", "--json", tmp_path / "paired.json")
    done = run_cli("miniclip.cli", "evaluate", "--bundle", tiny_bundle, *flags)
    assert done.returncode == 0, done.stderr
    assert "12 images, 12 captions; protocol paired" in done.stdout
    assert json.loads((tmp_path / "paired.json").read_text())["captions"] == 12
