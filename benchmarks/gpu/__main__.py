"""Check that training, export and search run on this machine's GPU and agree with its CPU.

python -m benchmarks.gpu [--quick] [--json FILE] [--data PATH --vision FOLDER --text FOLDER]

It draws its own images and makes its own backbones, so it downloads nothing. Without a GPU it runs only the CPU part.
Exit status 1 if a check fails. `--data` adds a line for configs/setup2.toml on real captions.
"""

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.gpu.parity import check_extremes, check_recall, export_run, measure_towers
from benchmarks.gpu.real_data import real_data_speed
from benchmarks.gpu.scenes import MIDDLE, TINY
from benchmarks.gpu.searching import check_memory, check_no_driver, check_search
from benchmarks.gpu.table import Table
from benchmarks.gpu.training import Experiment, compare_setups, full_size_speed
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.errors import one_line
from miniclip.inference.providers import CUDA


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m benchmarks.gpu", description="Check the GPU against the CPU.")
    parser.add_argument("--quick", action="store_true", help="tiny towers and few images, for the test suite")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--data", type=Path, help="captions for measuring configs/setup2.toml, such as Flickr8k")
    parser.add_argument("--vision", help="vision backbone for --data (default: from the config)")
    parser.add_argument("--text", help="text backbone for --data (default: from the config)")
    return parser


def main() -> int:
    arguments = make_parser().parse_args()
    started = time.perf_counter()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    table = Table()
    describe_machine(devices, table)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        check_all(folder, devices, arguments.quick, table)
        if arguments.data is not None:
            with failure_as_line("real data", table):
                real_data_speed(folder, arguments.data, arguments.vision, arguments.text, devices, table)
    seconds = time.perf_counter() - started
    table.add("whole check", f"{seconds:.0f} s")
    write_result(arguments.json, {"passed": not table.failed, "seconds": seconds, "lines": table.to_json()})
    if len(devices) == 1:
        print("no GPU here: only the CPU part was run")
    print(f"{len(table.failed)} lines failed" if table.failed else "all lines passed")
    return 1 if table.failed else 0


def describe_machine(devices: list[str], table: Table) -> None:
    """Add lines for versions, cores and the GPU."""
    table.add("python, torch, onnxruntime", f"{platform.python_version()}, {torch.__version__}, {ort.__version__}")
    table.add("processor cores", str(os.cpu_count()))
    if "cuda" in devices:
        card = torch.cuda.get_device_properties(0)
        table.add("card, memory", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
        has_cuda = CUDA in ort.get_available_providers()
        table.add("onnxruntime has the CUDA provider", str(has_cuda), "True", has_cuda)
    else:
        table.add("card", "none that PyTorch can use")


def check_all(folder: Path, devices: list[str], quick: bool, table: Table) -> None:
    """Run all parts; if one raises, its line fails and the others continue."""
    device = devices[-1]
    experiment = Experiment(folder / "experiment", TINY if quick else MIDDLE, 120 if quick else 2000)
    compare_setups(experiment, devices, 6 if quick else 3, 32 if quick else 128, table)
    bundle = folder / "bundle"
    with failure_as_line("export and recall", table):
        run = experiment.run_folder("setup 2", device)
        export_run(run, bundle)
        check_no_driver(bundle, table)
        check_recall(run, bundle, experiment.data, devices, table)
        for own in devices:
            check_extremes(bundle, own, table)
    with failure_as_line("search", table):
        check_search("cpu", 20_000 if quick else 200_000, table)
        if "cuda" in devices:
            check_search("cuda", 20_000 if quick else 1_000_000, table)
            check_memory(1_000_000, table)
    if not quick:
        with failure_as_line("full size", table):
            full_run = full_size_speed(folder, devices, {"cpu": 320, "cuda": 2560}, table)
            if full_run is not None:
                export_run(full_run, folder / "full-bundle")
                for own in devices:
                    measure_towers(folder / "full-bundle", own, table)


@contextlib.contextmanager
def failure_as_line(name: str, table: Table) -> Iterator[None]:
    """Turn an exception of a part into a failed line, so that one run shows all faults."""
    try:
        yield
    except Exception as error:
        table.add(name, type(error).__name__, one_line(error), False)


if __name__ == "__main__":
    run_command(main)
