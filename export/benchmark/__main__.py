"""Benchmark report: parity and speed of every precision against PyTorch.

python -m export.benchmark --run runs/NAME --bundle bundles/NAME --data PATH --split test --json FILE

In: a run, the bundle made from it, captions. Out: two tables, JSON with a chart beside it, and the results in the
bundle's manifest and README. PyTorch is measured with its defaults (`torch`), with freed memory kept (`torch-reuse`;
see `reuse_freed_memory` in `miniclip.models.torch_encoder`), and in bfloat16 (`torch-bf16`), except on a device that
would only emulate bfloat16. `--device` chooses where PyTorch runs, and `--provider` where onnxruntime runs. Each model
is timed in a separate process. Exit status 1 if the recalls or the embeddings of a precision differ from those of torch
by more than `miniclip.inference.precision` allows.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import add_allow_missing_flag, add_image_root_flag, positive
from miniclip.data.caption_table import check_skipped
from miniclip.data.captions import read_sources
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import check_protocol, embed_split
from miniclip.files import write_json
from miniclip.inference.bundle import Bundle
from miniclip.inference.encoders import Encoders
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.inference.manifest import file_entry
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.precision import PRECISIONS
from miniclip.installation import program
from miniclip.models.checkpoint import Run, load_run, weight_files
from miniclip.models.device import Device, add_device_flag, choose_device

from ..model_card import write_card
from .machine import measure_machine
from .measure import quality, speeds
from .report import draw_chart, format_table


def make_parser() -> ArgumentParser:
    call = program("export.benchmark")
    parser = ArgumentParser(
        prog=call,
        description="Check that a bundle retrieves like its run, and measure its speed.",
        example=f"{call} --run runs/mine --bundle bundles/mine --data flickr8k --json mine.json",
    )
    parser.add_argument("--run", required=True, type=Path, help="run folder")
    parser.add_argument("--bundle", required=True, type=Path, help="bundle exported from it")
    parser.add_argument("--data", required=True, help="captions: a folder, a caption file, hf:USER/NAME, or openmoji")
    add_image_root_flag(parser)
    parser.add_argument("--split", default="test", help="train | val (dev) | test | all (default test)")
    parser.add_argument("--protocol", default="karpathy", help="karpathy | paired (default karpathy)")
    parser.add_argument("--provider", default="auto", help="auto | cuda | coreml | directml | cpu (default auto)")
    add_device_flag(parser)
    parser.add_argument("--strict", action="store_true", help="fail if a requested GPU does not start")
    add_allow_missing_flag(parser)
    parser.add_argument("--turns", type=positive, default=5, help="measurements of each speed (default 5)")
    parser.add_argument("--json", type=Path, help="write the result to this file, and a chart beside it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    if arguments.json is not None and arguments.json.suffix == ".png":
        raise MiniClipError(f"--json {arguments.json} would be overwritten by the chart; name a file .json")
    device = choose_device(arguments.device, tf32=False)
    run, bundle = load_run(arguments.run), Bundle.open(arguments.bundle)
    if bundle.manifest and bundle.fingerprint != run.fingerprint:
        raise MiniClipError(f"{bundle.folder} was not exported from {run.folder}; name the run it came from")
    check_protocol(arguments.protocol)
    (table,) = read_sources([arguments.data], run.config.data.seed, arguments.image_root)
    table = table.split(arguments.split)

    models: dict[str, Encoders] = {
        "torch": run.encoders(reuse_memory=False, device=device),
        "torch-reuse": run.encoders(device=device),  # keeps memory between layers
    }
    if device.dtype == torch.bfloat16:
        models["torch-bf16"] = run.encoders(autocast=True, device=device)
    else:
        print("leaving out torch-bf16: this device would emulate bfloat16, which is very slow")
    for precision in bundle.precisions:
        models[precision] = encoders = OnnxEncoders(bundle, arguments.provider, precision, arguments.strict, exact=True)
        print(encoders.running_on)
    embeds = {name: embed_split(encoders, table, name) for name, encoders in models.items() if name != "torch"}
    reference = embeds["torch-reuse"]
    embeds = {"torch": reference, **embeds}  # torch-reuse differs only in speed
    for line in reference.table.skipped_lines():
        print(line)
    check_skipped(reference.table, arguments.allow_missing)
    rows = {name: quality(own, reference, arguments.protocol) for name, own in embeds.items()}

    print("measuring speed, every model in turn", flush=True)
    machine = measure_machine()
    gflop = gflop_per_image(run, device)
    folders = {name: run.folder if name.startswith("torch") else bundle.folder for name in models}
    torch_device = str(device.torch_device)
    found = speeds(folders, reference, run.transform, arguments.turns, arguments.provider, torch_device)
    for name, speed in found.items():
        rate = max(speed["images_per_s"].values())
        rows[name] |= {**speed, "gemm_share": rate * gflop / machine.gemm_gflop_per_s}
        if name == "int8":
            rows[name]["int8_gemm_share"] = rate * gflop / machine.int8_gemm_gflop_per_s
        files = [bundle.folder / onnx_name(tower, name) for tower in TOWERS] if name in bundle.precisions else []
        rows[name]["megabytes"] = sum(f.stat().st_size for f in files or weight_files(run.folder)) / 1e6
        rows[name]["providers"] = list(getattr(models[name], "providers", [f"torch on {torch_device}"]))

    failures = parity_failures(rows, len(reference.table.image_paths))
    result = {
        "data": Path(arguments.data).name,
        "split": arguments.split,
        "protocol": arguments.protocol,
        "images": len(reference.table.image_paths),
        "captions": len(reference.table.captions),
        "fingerprint": bundle.fingerprint,
        "machine": asdict(machine),
        "gflop_per_image": gflop,
        "models": rows,
        "passed": not failures,
    }
    print(format_table(rows))
    print(f"machine: {machine}")
    if arguments.json is not None:
        _write(arguments.json, result)
    if failures:
        for failure in failures:
            print(f"parity failed: {failure}")
        return 1
    print(f"every precision retrieves like torch; {certify(bundle, run, result)}")
    return 0


def gflop_per_image(run: Run, device: Device) -> float:
    """Floating-point operations of the vision tower, which is on `device`, for one image, in 10^9."""
    pixel_values = device.put(torch.zeros(1, 3, run.transform.height_px, run.transform.width_px))
    # only this implementation of attention is counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run.model.encode_image(pixel_values)
    return float(counter.get_total_flops()) / 1e9


def parity_failures(models: dict[str, dict[str, Any]], images: int) -> list[str]:
    """A line for each figure that differs too much from torch's; recalls may always differ by one image."""
    failures = []
    for precision, row in models.items():
        if precision not in PRECISIONS:
            continue
        limits = PRECISIONS[precision]
        for name in [name for name in row if "recall" in name]:
            tolerance = limits.mean_recall_tolerance if name == "mean_recall" else limits.recall_tolerance
            allowed = max(tolerance, 1 / images)
            difference = abs(row[name] - models["torch"][name])
            if not difference <= allowed + 1e-9:  # also true for NaN
                failures.append(f"{precision} {name} differs by {difference:.4f}, allowed {allowed:g}")
        for name in ("image_cosine_p1", "text_cosine_p1"):
            if not row[name] >= limits.min_cosine:
                failures.append(f"{precision} {name} is {row[name]:.4f}, but must be at least {limits.min_cosine}")
    return failures


def certify(bundle: Bundle, run: Run, result: dict[str, Any]) -> str:
    """Put the measured result into the bundle's manifest and README, and return a line that says where it is.

    A README that was edited by hand stays unchanged.
    """
    if not bundle.manifest:
        return "the bundle has no manifest, so the certificate is not stored"
    files, card = dict(bundle.manifest["files"]), bundle.folder / "README.md"
    is_ours = not card.exists() or file_entry(card) == files.get(card.name)
    if is_ours:
        write_card(bundle.folder, run.config, run.metrics, result)
        files[card.name] = file_entry(card)
    write_json(bundle.folder / "manifest.json", {**bundle.manifest, "certificate": result, "files": files})
    where = f"the certificate is in {bundle.folder / 'manifest.json'}"
    return where if is_ours else f"{where}, not in README.md, which was changed by hand"


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write the JSON file, and the chart beside it."""
    title = f"{result['data']} {result['split']}, {result['images']:,} images, {result['machine']['cores']} cores"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
        draw_chart(result["models"], title, path.with_suffix(".png"))
    except OSError as error:
        raise MiniClipError(f"cannot write {path}: {error.strerror}; choose another --json") from error


if __name__ == "__main__":
    run_command(main)
