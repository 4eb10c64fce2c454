"""List the bits, the cost of 7 bits and the share of time of every layer of an int8 vision tower.

python -m benchmarks.int8_layers --run runs/NAME

In: a run with calibration data. Out: a table in Markdown. The cost of 7 bits is the increase of the mean cosine
distance to fp32, on held-back calibration data, if only this layer has 7 bits. The share of time comes from
onnxruntime's profile of the int8 tower, for one image at a time on one thread.
"""

import tempfile
from pathlib import Path
from statistics import median

import onnxruntime as ort

from benchmarks.node_profile import profile_nodes
from export.graph import Feeds, image_feeds
from export.int8 import write_int8
from export.to_onnx import export_vision
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError
from miniclip.inference.providers import CPU, session_options
from miniclip.models.calibration_set import CalibrationSet
from miniclip.models.checkpoint import load_run

PASSES = 50


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.int8_layers", description="Bits, cost and time of each layer.")
    parser.add_argument("--run", required=True, type=Path, help="run folder")
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    calibration = CalibrationSet.load(run.folder)
    if calibration is None:
        raise MiniClipError(f"{run.folder} has no calibration data; train it again")
    feeds = image_feeds(calibration.pixel_values(run.transform))
    with tempfile.TemporaryDirectory() as tmp:
        fp32, int8 = Path(tmp) / "fp32.onnx", Path(tmp) / "int8.onnx"
        export_vision(run.model, run.transform.height_px, fp32)
        summary, layers = write_int8(fp32, int8, feeds)
        times = profile(int8, feeds)
    print(summary)
    print("| layer | bits | cost of 7 bits, 1e-3 | share of multiplications | share of time |\n|---|---|---|---|---|")
    names = sorted((layer.name for layer in layers), key=len, reverse=True)  # one name may begin with another one
    layer_of = {node: next((name for name in names if node.startswith(name)), "") for node in times}
    for layer in layers:
        time = sum(times[node] for node, name in layer_of.items() if name == layer.name) / sum(times.values())
        cost = f"{1000 * layer.cost:.3f}"
        print(f"| {layer.name} | {layer.bits} | {cost} | {100 * layer.work:.1f} % | {100 * time:.1f} % |")
    return 0


def profile(path: Path, feeds: Feeds) -> dict[str, float]:
    """Microseconds of each node by name, median of all passes."""
    image = {"pixel_values": feeds[0]["pixel_values"][:1]}
    passes: dict[str, list[int]] = {}
    for event in profile_nodes(
        lambda options: ort.InferenceSession(path, options, providers=[CPU]), session_options(1), image, PASSES
    ):
        passes.setdefault(event["name"], []).append(event["dur"])
    return {name: median(durations) for name, durations in passes.items()}


if __name__ == "__main__":
    run_command(main)
