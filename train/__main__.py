"""Train a dual encoder.

python -m train --config configs/setup1.toml --data PATH [PATH ...] --out runs/NAME [--resume] [--section.field value]
torchrun --nproc-per-node 2 -m train ...    (the same flags; several processes share each batch)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import add_allow_missing_flag, add_image_root_flag
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import SplitEmbeds
from miniclip.files import replace_atomically
from miniclip.inference.tokenizer import Tokenizer
from miniclip.installation import program
from miniclip.models.backbones import load_backbone
from miniclip.models.calibration_set import CALIBRATION_FILE, CalibrationSet
from miniclip.models.checkpoint import begin_run, holds_run, load_run, load_training_state, read_run_config
from miniclip.models.config import Config, add_config_flags, config_from_dict, load_config
from miniclip.models.device import Device, add_device_flag, choose_device
from miniclip.models.dual_encoder import DualEncoder, build_model
from miniclip.models.pretrained import resolve_backbone
from miniclip.models.torch_encoder import reuse_freed_memory
from miniclip.models.whole_models import holds_whole_model, load_dual_encoder

from .curves import draw_curves
from .data import TrainingData, load_data
from .distributed import begin, end, first_process_first, rank, say, share_weights
from .retrieval_figure import draw_sheet
from .tracker import TRACKERS, open_tracker
from .trainer import Trainer, fit_heads
from .validation import embed_validation


def make_parser() -> ArgumentParser:
    call = program("train")
    parser = ArgumentParser(
        prog=call,
        description="Train a dual encoder on images with captions. The defaults below are those without --config.",
        example=f"{call} --config setup1 --data flickr8k --out runs/mine",
    )
    parser.add_argument("--config", type=Path, help="recipe: a TOML file, or a recipe that ships, such as setup1")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="captions: folders, caption files, hf:USER/NAME or openmoji, each with a weight if it is not 1: "
        "A B:0.3; the first one selects the best epoch, the others only report their validation recall",
    )
    add_image_root_flag(parser)
    parser.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/NAME")
    parser.add_argument("--resume", action="store_true", help="continue the stopped run in --out")
    parser.add_argument("--tracker", default=TRACKERS[0], help=f"{' | '.join(TRACKERS)} (default {TRACKERS[0]})")
    add_allow_missing_flag(parser)
    add_device_flag(parser)
    parser.add_argument("--no-tf32", action="store_true", help="on CUDA, multiply float32 in full precision")
    add_config_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = vars(make_parser().parse_args(argv))
    flags = {name: value for name, value in arguments.items() if "." in name}
    config = load_config(arguments["config"], flags)
    out: Path = arguments["out"]
    if holds_run(out) and not arguments["resume"]:
        raise MiniClipError(f"{out} holds a run already; add --resume to continue it, or choose another --out")
    if config.train.mixup and config.train.teacher:
        raise MiniClipError(
            "--train.mixup cannot be used with --train.teacher, which describes only unmixed images and texts; "
            "leave one of them out"
        )
    if arguments["resume"]:
        _check_resumed(out, config)

    device = choose_device(arguments["device"], tf32=not arguments["no_tf32"])
    begin(device)
    try:
        return _train(config, out, arguments, device)
    finally:
        end()


def _train(config: Config, out: Path, arguments: dict[str, Any], device: Device) -> int:
    say(f"training on {device.describe()}")
    track = open_tracker(arguments["tracker"] if rank() == 0 else "none", out, config)
    reuse_freed_memory()
    torch.manual_seed(config.train.seed)
    with first_process_first():
        model, transform, text_folder = start_model(config)
        model.to(device.torch_device)
        tokenizer = begin_run(out, config, transform, text_folder) if rank() == 0 else Tokenizer.from_folder(out)
        if tokenizer.max_tokens > model.text.max_positions:
            raise MiniClipError(
                f"--model.max_tokens must be at most {model.text.max_positions}, the positions of {config.model.text}, "
                f"got {tokenizer.max_tokens}"
            )
        missing, roots = arguments["allow_missing"], arguments["image_root"]
        data = load_data(arguments["data"], config, model, transform, tokenizer, missing, device, roots)
    if not config.train.start_from:
        fit_heads(model, data)
    share_weights(model)
    trainer = Trainer(out, config, model, data)
    if arguments["resume"]:
        trainer.resume()
    if rank() == 0:
        replace_atomically(out / CALIBRATION_FILE, CalibrationSet.choose(data.table, transform).save)
    best = trainer.run(track)
    if rank() == 0:
        tqdm.write(f"best mean recall on validation (karpathy): {100 * best:.2f}; run in {out}, see {draw_curves(out)}")
        try:
            tqdm.write(f"retrieval figure: {draw_validation(out, model, data)}")
        except MiniClipError as error:  # an image may be gone by now; the run itself is finished
            tqdm.write(f"no retrieval figure: {error}")
    return 0


def start_model(config: Config) -> tuple[DualEncoder, ImageTransform, Path]:
    """The model before its first step, its preprocessing, and the folder of its tokenizer."""
    vision_folder, text_folder = resolve_backbone(config.model.vision), resolve_backbone(config.model.text)
    probed = config.model.head != "mlp" and config.model.vision == config.model.text
    if config.model.head == "linear" and not holds_whole_model(vision_folder):
        raise MiniClipError(
            f"--model.head linear: {config.model.vision} is not a model of images and text, such as CLIP; "
            "use mlp, or name such a model"
        )
    if probed and holds_whole_model(vision_folder):
        transform = ImageTransform.from_file(vision_folder / "preprocessor_config.json")
        pretrained, model = load_dual_encoder(vision_folder, config.model.vision)
        for field in ("head", "projection_dim", "image_size_px"):
            required, value = getattr(pretrained, field), getattr(config.model, field)
            if value != required:
                raise MiniClipError(f"--model.{field} must be {required}, as in {config.model.vision}, got {value}")
    else:
        model = build_model(config.model, load_backbone(vision_folder, "vision"), load_backbone(text_folder, "text"))
        transform = ImageTransform.for_backbone(vision_folder / "preprocessor_config.json", config.model.image_size_px)
    if config.train.start_from:
        _start_from(model, config)
    return model, transform, text_folder


def draw_validation(folder: Path, model: DualEncoder, data: TrainingData) -> Path:
    """Draw the retrieval figure of the kept weights into the run's folder and return its path."""
    model.load_state_dict(load_file(folder / "model.safetensors"))
    text_embeds, image_embeds, _ = embed_validation(model, data)
    return draw_sheet(folder, SplitEmbeds(data.table.split("val"), image_embeds, text_embeds))


def _start_from(model: DualEncoder, config: Config) -> None:
    """Load the weights of another run of the same model."""
    start = load_run(config.train.start_from)
    if start.config.model != config.model:
        raise MiniClipError(
            f"--train.start_from {config.train.start_from}: that run has another [model] section; use the same one here"
        )
    model.load_state_dict(start.model.state_dict())


def _check_resumed(out: Path, config: Config) -> None:
    """`MiniClipError` unless a resumed run keeps its config, with defaults for options that are newer than the run."""
    state, finished = load_training_state(out), (out / "config.json").exists()
    if state is None and finished:
        raise MiniClipError(
            f"--resume: {out} is finished and has no training state; "
            f"train it further with --train.start_from {out} and another --out"
        )
    saved = [read_run_config(out)[1]] if finished else []
    if state is not None and "config" in state:  # older versions saved none
        saved.append(config_from_dict(state["config"], source=str(out / "training_state.pt")))
    if any(earlier != config for earlier in saved):
        raise MiniClipError(f"--resume: the config differs from that of {out}; use the same one, or another --out")


if __name__ == "__main__":
    run_command(main)
