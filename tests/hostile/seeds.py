"""Small valid files of every kind that MiniCLIP reads; the tests damage them."""

import io
import json
from datetime import datetime
from pathlib import Path

import numpy as np

from miniclip.data.transform import ImageTransform
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.layouts import onnx_name
from miniclip.inference.manifest import MANIFEST_FORMAT, fingerprint_of, list_files
from miniclip.inference.score_calibration import ScoreCalibration
from tests.support.camera_files import RAW_FILES, jpeg_xl
from tests.support.drawing import draw_image
from tests.support.tiny import write_backbones, write_tokenizer

DIM = 8
TRANSFORM = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3)
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000")
RAW = ("a.nef", "h.cr3", "l.raf")
KARPATHY = {
    "images": [
        {"filename": f"{name}.png", "filepath": "", "split": split, "sentences": [{"raw": f"a {name}"}, {"raw": "two"}]}
        for name, split in (("a", "train"), ("b", "restval"), ("c", "test"))
    ]
}
CAPTIONS = {
    "captions.txt": b'image,caption\na.png,a red circle\na.png,"it is, one"\nb.png,a dog, two cats\n',
    "results.csv": b"image_name| comment_number| comment\na.png| 0| a dog\nb.png| 4   A dog runs .\n",
    "flickr.token": b"a.png#0\ta red circle\na.png#1\tone\nb.png#0\ttwo\n",
    "dataset_own.json": json.dumps(KARPATHY).encode(),
    "metadata.jsonl": b'{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "caption": ["x", "y"]}\n',
    "metadata.csv": "file_name,text,split\na.png,größe,train\nb.png,two,val\nc.png,three,test\n".encode(),
    "captions.tsv": b"filename\tcaption\na.png\tone\nb.png\ttwo\n",
}


def images() -> dict[str, bytes]:
    """One small image of each format, the JPEG and the JPEG XL with EXIF, and three RAW files."""
    whole = {name: RAW_FILES[name]() for name in RAW}
    image = draw_image("red", "circle", (64, 48)).resize((24, 18))
    exif = image.getexif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:06 07:08:09"
    for name in IMAGE_FORMATS:
        stream = io.BytesIO()
        image.save(stream, name, **({"exif": exif} if name == "JPEG" else {}))
        whole[f"a.{name.lower()}"] = stream.getvalue()
    for mode, name in (("RGBA", "PNG"), ("P", "PNG"), ("I;16", "TIFF"), ("CMYK", "JPEG"), ("LA", "PNG")):
        stream = io.BytesIO()
        image.convert("L" if mode == "I;16" else "RGBA" if mode == "LA" else mode).convert(mode).save(stream, name)
        whole[f"{mode.replace(';', '')}.{name.lower()}"] = stream.getvalue()
    whole["a.jxl"] = jpeg_xl(np.asarray(image), exif.tobytes().removeprefix(b"Exif\0\0"))
    return whole


def make_bundle(folder: Path) -> dict[str, bytes]:
    """A bundle whose models are only a word each, because no test opens them. Returns its files."""
    (folder / "onnx").mkdir(parents=True)
    write_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(TRANSFORM.to_dict()))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": DIM}))
    for tower in ("vision", "text"):
        (folder / onnx_name(tower, "fp32")).write_bytes(tower.encode())
    manifest = {
        "format": MANIFEST_FORMAT,
        "fingerprint": fingerprint_of(["a", "b"]),
        "embedding_dim": DIM,
        "logit_scale": 3.5,
        "certificate": {"split": "val", "precisions": {"fp32": {"mean_recall": 0.5}}},
        "match": ScoreCalibration(20.0, -5.0, 0.2, 100, 500, "val").to_dict(),
        "files": list_files(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return _files(folder)


def make_index(folder: Path, rows: int = 5) -> dict[str, bytes]:
    """A small index. Returns its files."""
    random = np.random.default_rng(0)
    embeds = random.standard_normal((rows, DIM)).astype(np.float32)
    columns = {
        "path": [f"/pictures/{row}.png" for row in range(rows)],
        "sha256": [random.bytes(32) for _ in range(rows)],
        "bytes": list(range(rows)),
        "mtime_ns": list(range(rows)),
        "indexed_at": [datetime(2024, 5, 6)] * rows,
        "width_px": [9] * rows,
        "height_px": [9] * rows,
        "taken": [datetime(2024, 5, 6)] * (rows - 1) + [None],
        "captions": [["one", "two"]] + [[]] * (rows - 1),
        "embedding": list(embeds / np.linalg.norm(embeds, axis=1, keepdims=True)),
    }
    with open_writer(folder, Settings("0" * 64, folder, "/pictures"), DIM) as writer:
        writer.put(columns, replace=False)
        from miniclip.index.scan_result import Problem

        writer.put_problems([Problem("/pictures/x.png", "an empty file", 0, 0)])
    return _files(folder)


def make_run(folder: Path) -> dict[str, bytes]:
    """An untrained run of the tiny backbones. Returns its files."""
    import torch

    from miniclip.models.backbones import load_backbone
    from miniclip.models.calibration_set import CalibrationSet
    from miniclip.models.checkpoint import begin_run, save_run, save_training_state
    from miniclip.models.config import Config, ModelConfig
    from miniclip.models.dual_encoder import build_model

    vision, text = folder.parent / "vision", folder.parent / "text"
    write_backbones(vision, text)
    model_config = ModelConfig(str(vision), str(text), projection_dim=DIM, image_size_px=32, max_tokens=16)
    config = Config(model=model_config)
    begin_run(folder, config, TRANSFORM, text)
    model = build_model(model_config, load_backbone(vision, "vision"), load_backbone(text, "text"))
    save_run(folder, config, model, {"mean_recall": 0.5})
    save_training_state(folder, {"trained": {"a": torch.ones(2)}, "progress": {"epoch": 1, "step": 0}})
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    held_out = CalibrationSet(grey, ["a dog", "a cat"], np.arange(2))
    CalibrationSet(grey, ["red", "green"], np.arange(2), held_out).save(folder / "calibration.npz")
    torch.save({"temperature": torch.tensor(0.07), "a.weight": torch.ones(2, 2)}, folder / "original.pt")
    return _files(folder)


def _files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder except locks, the smallest first, so that fuzzing starts with settings."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files, key=_size)}


def _size(path: Path) -> int:
    return path.stat().st_size
