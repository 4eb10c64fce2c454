"""Measure the speed of `miniclip index` on JPEGs of two sizes, compared with the cost of its single steps.

python -m benchmarks.index_speed --bundle bundles/mine [--image-count 2000] [--json FILE]

Each step (read and hash, decode, resize, encode, write) is timed separately in CPU seconds per image, on all cores at
once, as in the index. The number of cores divided by the sum of the steps is an upper limit of the rate. The command
runs as a separate process. Its files are in the page cache, so disks are not measured. Exit status 1 if a limit is
missed.

On a busy machine, rates mean little. The share of the command's CPU time that these steps use is still meaningful. This
share excludes start and end, which a second run over unchanged files measures.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.cpu import thread_count
from miniclip.data.colour import to_rgb
from miniclip.data.images import read_image
from miniclip.index.embed_file import KnownContents, hash_file, read_file, row_columns
from miniclip.index.scan import scan_images
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.icc_profiles import display_p3

SIZES = {(500, 375): 120.0, (4000, 3000): 25.0}  # width and height in px -> required images/s
SHARE, MEMORY_MB, UNCHANGED, UNCHANGED_S = 0.9, 700.0, 10_000, 3.0
CORES = thread_count()
LAUNCH = """
import os, resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.index_speed", description="Measure indexing and its steps.")
    parser.add_argument("--bundle", required=True, type=Path, help="bundle that embeds the images")
    parser.add_argument(
        "--image-count", type=int, default=2000, help="number of small images; a fifth as many are large (default 2000)"
    )
    parser.add_argument(
        "--unchanged-count", type=int, default=UNCHANGED, help=f"files of the second run (default {UNCHANGED})"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    encoders = OnnxEncoders(Bundle.open(arguments.bundle), "cpu")
    result: dict[str, Any] = {"cores": CORES, "bundle": arguments.bundle.name}
    ok = True
    with tempfile.TemporaryDirectory() as place:
        for (width, height), wanted in SIZES.items():
            folder = Path(place, f"{width}x{height}")
            count = arguments.image_count if width < 1000 else arguments.image_count // 5
            size_kb = make_images(folder, width, height, count)
            own = measure(folder, encoders, arguments.bundle, count)
            result[folder.name] = {"kilobytes": size_kb, **own}
            passed = own["share"] >= SHARE and own["images_per_s"] >= wanted and own["memory_mb"] <= MEMORY_MB
            ok = ok and passed
            print_size(folder.name, size_kb, own, wanted)
        second_s = unchanged(Path(place, "500x375"), arguments.bundle, arguments.unchanged_count)
    result["unchanged_s"] = second_s
    ok = ok and second_s <= UNCHANGED_S
    print(
        f"second run over {arguments.unchanged_count:,} unchanged files: {second_s:.2f} s "
        f"(wanted: at most {UNCHANGED_S:.0f})"
    )
    write_result(arguments.json, result)
    print("every figure is met" if ok else "a figure was missed")
    return 0 if ok else 1


def make_images(folder: Path, width: int, height: int, count: int) -> float:
    """Write JPEGs as detailed as photographs: numbered copies of eight drawings; returns their mean KB."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(8):
        coarse = generator.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = generator.integers(-8, 9, (height, width, 3), dtype=np.int16)
        pixels = (np.asarray(smooth).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        drawn.append(stream.getvalue())
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(drawn[number % len(drawn)] + b"%d" % number)
    return sum(len(jpeg) for jpeg in drawn) / len(drawn) / 1000


def measure(folder: Path, encoders: OnnxEncoders, bundle: Path, count: int) -> dict[str, Any]:
    """CPU milliseconds of each step, and the speed and memory of the command."""
    files = list(scan_images(str(folder)).files.values())[: max(64, count // 10)]
    transform = encoders.transform
    paths = [file.path for file in files]
    steps = {"read": cpu_ms(hash_file, paths)[0]}
    steps["decode"], images = cpu_ms(lambda path: read_image(path, transform.min_size_px), paths)
    profile = display_p3()  # the images are sRGB and need no conversion: this is the cost of one from Display P3
    profile_ms, _ = cpu_ms(lambda image: to_rgb(image.image, profile), images)
    steps["resize"], pixel_values = cpu_ms(lambda image: transform(image.image), images)
    del images
    steps["encode"], _ = cpu_ms(lambda pixels: encoders.embed_on_one_core(pixels[None]), pixel_values)
    steps["write"] = write_ms(files, encoders, count)
    before = time.monotonic()
    out = folder.with_name(folder.name + ".index")
    printed, memory_mb, cpu_s = run_index(folder, bundle, out)
    wall_s = time.monotonic() - before
    found = re.search(r"\((\d+(?:\.\d+)?) images/s\)", printed)
    assert found, printed
    _, _, start_cpu_s = run_index(folder, bundle, out)
    rate, limit = float(found[1]), 1000 * CORES / sum(steps.values())
    return {
        "cpu_ms": steps,
        "profile_ms": profile_ms,
        "limit_per_s": limit,
        "images_per_s": rate,
        "share": rate / limit,
        "cpu_share": sum(steps.values()) * count / 1000 / (cpu_s - start_cpu_s),
        "memory_mb": memory_mb,
        "images": count,
        "wall_s": wall_s,
    }


def cpu_ms(step: Callable[[Any], Any], items: Sequence[Any]) -> tuple[float, list[Any]]:
    """CPU milliseconds per item of a step that runs on all cores, and its results."""

    def timed(item: Any) -> tuple[float, Any]:
        started = time.thread_time()
        value = step(item)
        return time.thread_time() - started, value

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(step, items[: 4 * CORES]))
        done = list(pool.map(timed, items))
    return 1000 * sum(seconds for seconds, _ in done) / len(done), [value for _, value in done]


def write_ms(files: Sequence[Any], encoders: OnnxEncoders, count: int) -> float:
    """CPU milliseconds per image of one large commit."""
    reading = read_file(files[0], encoders, KnownContents())[0]
    rows = [replace(reading, file=replace(files[0], path=f"{number}.jpg")) for number in range(count // 2)]
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(encoders.bundle.fingerprint, Path(place), "")
        with open_writer(Path(place, "index"), settings, encoders.dim) as writer:
            started = time.process_time()
            writer.put(row_columns(rows, {}, encoders.dim), replace=False)
            return 1000 * (time.process_time() - started) / len(rows)


def run_index(folder: Path, bundle: Path, out: Path) -> tuple[str, float, float]:
    """Run the command; returns its output, its peak memory in MB, and its CPU seconds."""
    flags = ["--bundle", str(bundle), "--out", str(out), "--provider", "cpu"]
    command = ["-m", "miniclip.cli", "index", str(folder), *flags]
    # started by a small process, because a child's peak memory includes its parent's memory at the fork
    launched = subprocess.run([sys.executable, "-c", LAUNCH, *command], stdout=subprocess.PIPE, text=True, check=True)
    printed, _, used = launched.stdout.rstrip().rpartition("\n")
    peak, cpu_s = used.split()
    return printed, int(peak) / (1000 if sys.platform != "darwin" else 1e6), float(cpu_s)


def unchanged(folder: Path, bundle: Path, count: int) -> float:
    """Seconds of the second run over many unchanged files."""
    originals = sorted(folder.iterdir())
    for number in range(count - len(originals)):
        os.link(originals[number % len(originals)], folder / f"link-{number:06}.jpg")
    out = folder.with_name(folder.name + ".index")
    run_index(folder, bundle, out)
    started = time.monotonic()
    printed, _, _ = run_index(folder, bundle, out)
    assert f"0 images embedded, {count:,} unchanged" in printed, printed
    return time.monotonic() - started


def print_size(name: str, size_kb: float, own: dict[str, Any], wanted: float) -> None:
    steps = ", ".join(f"{step} {value:.2f}" for step, value in own["cpu_ms"].items())
    print(f"{name} ({size_kb:.0f} KB per JPEG, {own['images']:,} images)")
    print(f"  CPU ms per image: {steps}; sum {sum(own['cpu_ms'].values()):.2f}; a profile {own['profile_ms']:.2f} more")
    print(
        f"  miniclip index: {own['images_per_s']:.0f} images/s (wanted {wanted:.0f}), {100 * own['share']:.0f} % "
        f"of {CORES} cores / sum = {own['limit_per_s']:.0f}/s (wanted {100 * SHARE:.0f} %); {own['memory_mb']:.0f} MB "
        f"(at most {MEMORY_MB:.0f}); {own['wall_s']:.1f} s with start and end; the steps are "
        f"{100 * own['cpu_share']:.0f} % of its CPU time",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
