"""From its first saved step, a run is protected from another config, other data, and another run."""

import shutil
from pathlib import Path

import pytest

from miniclip.models.checkpoint import begin_run, load_training_state, save_training_state
from miniclip.models.config import Config
from tests.support.cli import run_cli
from tests.support.drawing import make_captioned_images
from tests.support.training import TRANSFORM, config, records_of, start, with_train

__all__ = ["config"]  # fixtures


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def begun(config: Config, captioned_folder: Path, tmp_path: Path) -> Path:
    """A run that was stopped in its first epoch, after its state was saved."""
    trainer = start(tmp_path / "begun", with_train(config, save_minutes=1e-9), captioned_folder)
    count = 0

    def fail(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    trainer.optimiser.register_step_post_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (tmp_path / "begun/training_state.pt").exists() and not (tmp_path / "begun/config.json").exists()
    return tmp_path / "begun"


def refused(out: Path, words: str, *arguments: object) -> None:
    """Check that training ends with these words and changes no file of its folder."""
    before = contents(out)
    done = run_cli("train", "--out", out, *arguments)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1], done.stderr
    assert contents(out) == before


def test_a_run_stopped_in_its_first_epoch_is_not_resumed_with_another_config(
    begun: Path, tiny_config: Path, captioned_folder: Path
) -> None:
    common = ("--config", tiny_config, "--data", captioned_folder, "--train.save_minutes", "1e-9")
    refused(begun, "--resume: the config differs from that of", *common, "--resume", "--train.learning_rate", "0.5")


def test_a_run_stopped_in_its_first_epoch_is_not_started_again(
    begun: Path, tiny_config: Path, captioned_folder: Path, tiny_run: Path
) -> None:
    refused(begun, "holds a run already; add --resume", "--config", tiny_config, "--data", captioned_folder)
    common = ("--before", tiny_run, "--after", tiny_run, "--data", captioned_folder, "--out", begun)
    done = run_cli("train.interpolate", *common)
    assert done.returncode == 2 and "holds a run already; choose another --out" in done.stderr


def test_a_run_without_training_state_is_not_trained_from_scratch_over_its_weights(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    (copy / "training_state.pt").unlink()
    words = f"{copy} is finished and has no training state; train it further with --train.start_from {copy}"
    refused(copy, words, "--config", tiny_config, "--data", captioned_folder, "--resume")


def test_a_run_is_not_resumed_on_other_images_captions_or_splits(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    copy, moved = (Path(shutil.copytree(own, tmp_path / own.name)) for own in (tiny_run, captioned_folder))
    before = contents(copy)
    done = run_cli("train", "--out", copy, "--config", tiny_config, "--data", moved, "--resume")
    assert done.returncode == 0 and "continuing after epoch 4" in done.stdout, done.stderr
    assert contents(copy).keys() == before.keys()  # the same data in another folder

    captions = moved / "metadata.csv"
    captions.write_text(captions.read_text().replace("a red circle on white", "a red dog on white"))
    fewer = make_captioned_images(tmp_path / "fewer", per_kind=2)
    words = f"--resume: the captions or images differ from those that {copy} was trained on; use the same --data"
    for data in (moved, fewer):
        refused(copy, words, "--config", tiny_config, "--data", data, "--resume")


def test_a_state_without_config_and_data_resumes(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    state = load_training_state(copy)
    del state["config"], state["data"]
    save_training_state(copy, state)
    done = run_cli("train", "--out", copy, "--config", tiny_config, "--data", captioned_folder, "--resume")
    assert done.returncode == 0 and "continuing after epoch 4" in done.stdout, done.stderr


def test_a_run_stopped_after_its_first_weights_continues(
    config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    trainer = start(tmp_path, config, captioned_folder)

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(track=fail)
    assert {"config.json", "model.safetensors", "training_state.pt"} <= contents(tmp_path).keys()
    resumed = start(tmp_path, config, captioned_folder)
    resumed.resume()
    resumed.run()
    assert [record["epoch"] for record in records_of(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("unsaid", ["", ', "model_max_length": null', ', "model_max_length": "long"'])
def test_the_config_limits_a_tokenizer_without_a_length(unsaid: str, config: Config, tmp_path: Path) -> None:
    text = Path(shutil.copytree(config.model.text, tmp_path / "text"))
    (text / "tokenizer_config.json").write_text(f'{{"pad_token": "[PAD]"{unsaid}}}')
    tokenizer = begin_run(tmp_path / "run", config, TRANSFORM, text)
    assert tokenizer(["dog " * 1000])[0].shape == (1, config.model.max_tokens)
