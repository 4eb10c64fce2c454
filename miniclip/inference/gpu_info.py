"""The NVIDIA cards of this machine and the libraries for them, for `miniclip info`. No torch."""

import shutil
import subprocess
from dataclasses import dataclass

import onnxruntime as ort
from onnxruntime.capi import build_and_package_info

from miniclip.inference.providers import CUDA, preload_cuda

FIELDS = "name,memory.total,memory.free,driver_version"


@dataclass(frozen=True)
class Card:
    """One GPU; memory in MiB."""

    name: str
    memory_mib: int
    free_mib: int
    driver: str


def cards_of(report: str) -> list[Card]:
    """The cards in the output of `nvidia-smi --query-gpu=FIELDS --format=csv,noheader,nounits`, one per line."""
    cards = []
    for line in report.strip().splitlines():
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) == 4 and parts[1].isdecimal() and parts[2].isdecimal():
            cards.append(Card(parts[0], int(parts[1]), int(parts[2]), parts[3]))
    return cards


def installed_cards() -> list[Card]:
    """The cards; none if the driver, which includes `nvidia-smi`, is missing or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return cards_of(done.stdout) if done.returncode == 0 else []


def gpu_facts() -> dict[str, str]:
    """Lines of `miniclip info`: the cards, the CUDA version of this onnxruntime, and missing libraries."""
    cards = [
        f"{card.name}, {card.memory_mib:,} MiB ({card.free_mib:,} free), driver {card.driver}"
        for card in installed_cards()
    ]
    facts = {"card": "; ".join(cards) or "no NVIDIA card with a driver"}
    if CUDA in ort.get_available_providers():
        facts["cuda"] = str(getattr(build_and_package_info, "cuda_version", "unknown"))
        if missing := preload_cuda():
            facts["missing"] = missing.splitlines()[0]
    else:
        facts["cuda"] = "this onnxruntime has none"
    return facts
