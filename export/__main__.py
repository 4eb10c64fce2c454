"""Export a run to an ONNX bundle.

python -m export --run runs/NAME --out bundles/NAME [--precision fp32 fp16 int8]
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from export.card import write_card
from export.precision import write_fp16, write_int8
from export.to_onnx import export_text, export_vision
from miniclip.bundle import MANIFEST_FORMAT, PRECISION_SUFFIX, Bundle, list_files, onnx_name, write_json
from miniclip.checkpoint import Run, load_run
from miniclip.encoders import session_options
from miniclip.errors import ArgumentParser, MiniClipError, run_command

LEAST_COSINE = 0.7  # a broken graph is near 0; how good a whole one is, the benchmark measures


def parse_arguments() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m export", description="Turn a run into an ONNX bundle.")
    parser.add_argument("--run", required=True, type=Path, help="run folder, from: python -m train")
    parser.add_argument("--out", required=True, type=Path, help="bundle folder to make")
    parser.add_argument("--precision", nargs="+", choices=list(PRECISION_SUFFIX), default=list(PRECISION_SUFFIX))
    return parser


def main() -> int:
    arguments = parse_arguments().parse_args()
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()) and not (out / "manifest.json").exists():
        raise MiniClipError(f"{out} exists and is no bundle; choose another --out")
    run = load_run(arguments.run)
    if out.exists() and any(out.iterdir()) and Bundle.open(out).fingerprint != run.fingerprint:
        raise MiniClipError(f"{out} is the bundle of another run; choose another --out, or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as tmp:
        bundle = Path(tmp) / "bundle"
        build_bundle(run, bundle, arguments.precision)
        _put_in_place(bundle, out, Path(tmp) / "old")
    size_mb = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"bundle in {out}: {', '.join(arguments.precision)}, {size_mb:.0f} MB")
    return 0


def build_bundle(run: Run, folder: Path, precisions: list[str]) -> None:
    """Write every file of a bundle, the manifest last. The same run gives the same bytes."""
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copyfile(run.folder / name, folder / name)
    # transformers.js opens a dual encoder by this type; the towers' own kinds matter to nobody once they are ONNX
    dim = run.config.model.projection_dim
    write_json(folder / "config.json", {"model_type": "clip", "projection_dim": dim, "architectures": ["CLIPModel"]})

    fp32 = {tower: folder / onnx_name(tower, "fp32") for tower in ("vision", "text")}
    print("exporting the vision tower")
    export_vision(run.model, run.transform.height_px, fp32["vision"])
    print("exporting the text tower")
    export_text(run.model, fp32["text"])
    calibration = _calibration(run) if "int8" in precisions else None
    for tower, path in fp32.items():
        if "fp16" in precisions:
            write_fp16(path, folder / onnx_name(tower, "fp16"))
        if "int8" in precisions:
            print(f"quantising the {tower} tower")
            write_int8(path, folder / onnx_name(tower, "int8"), calibration)
    check_fidelity(folder, precisions, calibration)
    if "fp32" not in precisions:
        for path in fp32.values():
            path.unlink()

    manifest = {
        "format": MANIFEST_FORMAT,
        "fingerprint": run.fingerprint,
        "embedding_dim": dim,
        "logit_scale": float(run.model.logit_scale.detach()),
        "certificate": None,
    }
    write_card(folder, run.config, run.metrics, None)
    write_json(folder / "manifest.json", {**manifest, "files": list_files(folder)})


def check_fidelity(folder: Path, precisions: list[str], calibration: np.ndarray | None) -> None:
    """Refuse a bundle whose vision tower lost its way in a lower precision; `export.benchmark` measures the rest.

    Errors: `MiniClipError` when the median cosine to fp32 on the calibration pictures is below `LEAST_COSINE`.
    """
    if calibration is None:
        return
    image_embeds: dict[str, np.ndarray] = {}
    for precision in ["fp32", *(p for p in precisions if p != "fp32")]:
        path = folder / onnx_name("vision", precision)
        session = ort.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
        batches = [session.run(None, {"pixel_values": pixels[None]})[0] for pixels in calibration]
        image_embeds[precision] = np.concatenate(batches)
        cosine = float(np.median((image_embeds[precision] * image_embeds["fp32"]).sum(axis=1)))
        if not cosine >= LEAST_COSINE:  # a NaN is below every bound, too
            raise MiniClipError(
                f"{precision}: median cosine to fp32 is {cosine:.3f}, below {LEAST_COSINE}; leave it out "
                f"with --precision {' '.join(p for p in precisions if p != precision)}"
            )


def _calibration(run: Run) -> np.ndarray | None:
    """The training pictures that the run kept for this, as `pixel_values (N, 3, H, W)`."""
    path = run.folder / "calibration.npy"
    if not path.exists():
        return None
    return np.stack([run.transform(Image.fromarray(picture)) for picture in np.load(path)])


def _put_in_place(bundle: Path, out: Path, old: Path) -> None:
    """Swap the finished bundle in; a bundle that was there goes only when the new one is in its place."""
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(bundle, out)
    except OSError as error:
        if old.exists():
            os.rename(old, out)
        raise MiniClipError(f"cannot write {out}: {error.strerror}; choose another --out") from None


if __name__ == "__main__":
    run_command(main)
