"""Export a run to an ONNX bundle.

python -m export --run runs/NAME --out bundles/NAME [--precision fp32 fp16 int8] [--data PATH]
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import add_image_root_flag
from miniclip.data.captions import read_sources
from miniclip.data.stages import Stages
from miniclip.errors import MiniClipError
from miniclip.files import exchange, write_json
from miniclip.inference.calibration_queries import judged_queries
from miniclip.inference.judged_queries import JudgedQueries
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.inference.manifest import MANIFEST_FORMAT, list_files, read_manifest
from miniclip.inference.precision import PRECISIONS
from miniclip.inference.score_calibration import ScoreCalibration, calibrate
from miniclip.installation import program
from miniclip.models.calibration_set import CALIBRATION_FILE, CalibrationSet
from miniclip.models.checkpoint import Run, load_run

from .fp16 import write_fp16
from .graph import embed, image_feeds, text_feeds
from .int8 import write_int8
from .model_card import write_card
from .recall_check import check_recall
from .to_onnx import export_text, export_vision


def make_parser() -> ArgumentParser:
    call = program("export")
    parser = ArgumentParser(
        prog=call, description="Turn a run into an ONNX bundle.", example=f"{call} --run runs/mine --out bundles/mine"
    )
    parser.add_argument(
        "--run",
        required=True,
        type=Path,
        help="run folder, or a whole model such as CLIP or SigLIP: its folder or USER/NAME",
    )
    parser.add_argument("--out", required=True, type=Path, help="bundle folder to write")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=list(PRECISIONS),
        default=list(PRECISIONS),
        help="precisions to export (default all)",
    )
    parser.add_argument("--data", help="captions for calibrating int8, if the run has no calibration.npz")
    add_image_root_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    out: Path = arguments.out.resolve()  # write to the target of a link; the link stays
    if out.exists() and not out.is_dir():
        raise MiniClipError(f"{arguments.out} is a file; choose another --out")
    present = out.exists() and any(out.iterdir())
    if present and not (out / "manifest.json").exists():
        raise MiniClipError(f"{arguments.out} exists and is not a bundle; choose another --out")
    run = load_run(arguments.run)
    replaced = _replaceable(out, run.fingerprint) if present else {}
    calibration = _calibration(run, arguments.data, arguments.image_root)
    if "int8" in arguments.precision and calibration is None:
        others = " ".join(name for name in arguments.precision if name != "int8") or "fp32"
        raise MiniClipError(
            f"int8 needs calibration images, and {arguments.run} has no {CALIBRATION_FILE}; "
            f"name captions with --data, or leave int8 out with --precision {others}"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-")
    except OSError as error:
        raise MiniClipError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    with temporary as tmp:
        bundle = Path(tmp) / "bundle"
        build_bundle(run, bundle, arguments.precision, calibration)
        _put_in_place(bundle, out, Path(tmp) / "old")
    size_mb = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"bundle in {arguments.out}: {', '.join(arguments.precision)}, {size_mb:.0f} MB")
    if replaced.get("certificate"):
        command = program("export.benchmark")
        print(f"the benchmark results belonged to the replaced files and were removed; run: {command}")
    return 0


def build_bundle(run: Run, folder: Path, precisions: list[str], calibration: CalibrationSet | None) -> None:
    """Write every file of a bundle, the manifest last. The same run always gives the same bytes."""
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copyfile(run.settings / name, folder / name)
    # transformers.js needs this type to open a dual encoder, whatever the types of the towers are
    dim = run.config.model.projection_dim
    write_json(folder / "config.json", {"model_type": "clip", "projection_dim": dim, "architectures": ["CLIPModel"]})

    fp32 = {tower: folder / onnx_name(tower, "fp32") for tower in TOWERS}
    stages = Stages(_durations(precisions, calibration is not None))
    with stages("exporting the vision tower"):
        export_vision(run.model, run.transform.height_px, fp32["vision"])
    with stages("exporting the text tower"):
        export_text(run.model, fp32["text"])
    calibration = calibration and calibration.by_length(run.tokenizer)
    feeds = calibration and {
        "vision": image_feeds(calibration.pixel_values(run.transform)),
        "text": text_feeds(run.tokenizer, calibration.captions),
    }
    for tower, path in fp32.items():
        if "fp16" in precisions:
            write_fp16(path, folder / onnx_name(tower, "fp16"))
        if "int8" in precisions and feeds:
            with stages(f"quantising the {tower} tower"):
                how, _ = write_int8(path, folder / onnx_name(tower, "int8"), feeds[tower])
            print(f"quantised the {tower} tower: {how}", flush=True)
    match = None
    if calibration and feeds:
        with stages("comparing the precisions"):
            check_recall(folder, precisions, feeds, calibration.image_of_caption)
        with stages("calibrating scores"):
            match = calibrate_match(run, fp32, calibration)
    if "fp32" not in precisions:
        for path in fp32.values():
            path.unlink()

    manifest = {
        "format": MANIFEST_FORMAT,
        "fingerprint": run.fingerprint,
        "embedding_dim": dim,
        "logit_scale": float(run.model.logit_scale.detach()),
        "sigmoid": dict(zip(("scale", "bias"), run.model.sigmoid, strict=True)) if run.model.sigmoid else None,
        "certificate": None,
        "match": match and match.to_dict(),
    }
    write_card(folder, run.config, run.metrics, None)
    write_json(folder / "manifest.json", {**manifest, "files": list_files(folder)})


def _durations(precisions: list[str], is_calibrated: bool) -> dict[str, float]:
    """Rough estimates of the stages' relative durations, from which `Stages` computes the remaining time."""
    durations = {"exporting the vision tower": 10.0, "exporting the text tower": 8.0}
    if is_calibrated:
        if "int8" in precisions:
            durations |= {"quantising the vision tower": 40.0, "quantising the text tower": 20.0}
        durations |= {"comparing the precisions": 10.0, "calibrating scores": 10.0}
    return durations


def calibrate_match(run: Run, fp32: dict[str, Path], calibration: CalibrationSet) -> ScoreCalibration | None:
    """Fit match probabilities to the run's held-out images, or to training images if the run kept no others."""
    own, split = (calibration.held_out, "val") if calibration.held_out else (calibration, "train")
    image_embeds = embed(fp32["vision"], image_feeds(own.pixel_values(run.transform)))
    queries, relation = judged_queries(own.captions, own.image_of_caption, len(image_embeds))
    text_embeds = embed(fp32["text"], text_feeds(run.tokenizer, queries))
    match = calibrate([JudgedQueries(text_embeds, image_embeds, relation)], split)
    if match is None:
        print("scores could not be calibrated: matching pairs score no higher than others")
    elif split == "train":
        print("the run kept only training images, so scores are calibrated on these and probabilities are too high")
    return match


def _calibration(run: Run, data: str | None, image_roots: Sequence[Path] | None) -> CalibrationSet | None:
    """The training images that the run kept for calibration, or images from `--data`."""
    if data is None:
        return CalibrationSet.load(run.folder)
    (table,) = read_sources([data], run.config.data.seed, image_roots)
    return CalibrationSet.choose(table, run.transform)


def _replaceable(out: Path, fingerprint: str) -> dict[str, Any]:
    """The manifest of the bundle in `out`; `MiniClipError` if an export would delete files that no export wrote."""
    try:
        manifest = read_manifest(out / "manifest.json")
    except MiniClipError as error:
        raise MiniClipError(f"the bundle in {out} cannot be read; choose another --out") from error
    if manifest["fingerprint"] != fingerprint:
        raise MiniClipError(f"{out} is the bundle of another run; choose another --out, or delete it")
    files, present, card = manifest["files"], list_files(out), "README.md"
    others = [name for name in present if name not in files]
    if card in files and present.get(card, files[card]) != files[card]:
        others.append(f"{card}, changed by hand")
    if others:
        raise MiniClipError(
            f"{out} has files that no export wrote ({'; '.join(others[:3])}); move them away, or choose another --out"
        )
    return manifest


def _put_in_place(bundle: Path, out: Path, old: Path) -> None:
    """Move the finished bundle into place, and only then delete the old one."""
    if out.exists():
        if exchange(bundle, out):
            return
        os.rename(out, old)
    try:
        os.rename(bundle, out)
    except OSError as error:
        if old.exists():
            os.rename(old, out)
        raise MiniClipError(f"cannot write {out}: {error.strerror}; choose another --out") from error


if __name__ == "__main__":
    run_command(main)
