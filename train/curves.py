"""A chart of a run: loss and recall over epochs.

In: `metrics.jsonl`. Out: `curves.png` beside it.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

from miniclip.files import replace_atomically


def draw_curves(folder: Path) -> Path:
    """Draw `folder/metrics.jsonl` into `folder/curves.png` and return that path."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [record["epoch"] for record in records]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(epochs, [record["loss"] for record in records], marker="o", markersize=3)
    left.set(title="contrastive loss", xlabel="epoch")
    for k in (1, 5, 10):
        for way, style in (("image_to_text", "-"), ("text_to_image", "--")):
            values = [100 * record[f"{way}_recall@{k}"] for record in records]
            right.plot(epochs, values, style, label=f"{way.replace('_', ' ')} R@{k}")
    right.plot(epochs, [100 * record["mean_recall"] for record in records], "k", linewidth=2, label="mean recall")
    right.set(title="validation recall, %", xlabel="epoch")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path = folder / "curves.png"
    replace_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=110))
    plt.close(figure)
    return path
