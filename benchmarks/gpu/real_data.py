"""Train configs/setup2.toml on real captions, and compare pairs per second on the GPU and on the CPU."""

import csv
from pathlib import Path

from benchmarks.gpu.processes import ROOT
from benchmarks.gpu.table import Table
from benchmarks.gpu.training import Recipe, pairs_per_s, records_of, run_training
from miniclip.data.captions import read_captions

TRAIN_IMAGES = {"cpu": 512, "cuda": 4096}
VAL_IMAGES = 64
MIN_RATIO = 20


def real_data_speed(
    folder: Path, data: Path, vision: str | None, text: str | None, devices: list[str], table: Table
) -> None:
    """Time whole epochs, including decoding; the CPU gets fewer images, because only its speed is measured."""
    rates = {}
    for device in devices:
        subset = link_subset(data, folder / f"real-{device}", TRAIN_IMAGES[device])
        flags: dict[str, object] = {"train.epochs": 3 if device == "cuda" else 1, "train.patience": 99}
        flags |= {f"model.{name}": spec for name, spec in (("vision", vision), ("text", text)) if spec}
        out = folder / f"run-real-{device}"
        config = str(ROOT / "configs" / "setup2.toml")
        run_training(subset, out, flags, device, folder / f"cache-real-{device}", "--config", config)
        recipe = Recipe("real", {"train.batch_size": 256, "train.captions_per_image": 1})
        rates[device] = pairs_per_s(records_of(out), recipe.pairs(TRAIN_IMAGES[device]))
        table.add(f"configs/setup2.toml on {device}", f"{rates[device]:,.1f} pairs/s", pairs_per_s=rates[device])
    if len(rates) == 2:
        ratio = rates["cuda"] / rates["cpu"]
        wanted = f"at least {MIN_RATIO} times"
        table.add("configs/setup2.toml: cuda against cpu", f"{ratio:,.1f} times", wanted, ratio >= MIN_RATIO)


def link_subset(data: Path, folder: Path, train_images: int) -> Path:
    """The first images of the training and validation splits, as links."""
    folder.mkdir()
    source = read_captions(data)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "split"])
        for split, count in (("train", train_images), ("val", VAL_IMAGES)):
            captions = source.split(split).first(count)
            for row, caption in zip(captions.image_of_caption, captions.captions, strict=True):
                path = captions.image_paths[row].resolve()
                link = folder / f"{split}-{row:05}{path.suffix}"
                if not link.exists():
                    link.symlink_to(path)
                rows.writerow([link.name, caption, split])
    return folder
