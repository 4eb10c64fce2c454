"""Take the guards away, one at a time, in a copy of the checkout, and see a test fail for each.

    python -m tests.mutations [NAME ...]

Prints a table. Exit status 1 when a mutation survives its test, or when the line that it changes is no longer there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """`before` becomes `after` in `file`; then `test` (and perhaps `-k words`) has to fail."""

    name: str
    file: str
    before: str
    after: str
    test: str
    words: str = ""


MUTATIONS = (
    Mutation(
        "manifest hash check",
        "miniclip/inference/bundle.py",
        'matches = sha256_of(path) == expected["sha256"]',
        'matches = bool(sha256_of(path) or expected["sha256"])',
        "tests/hostile/test_wrong_parts.py",
        "other_weights",
    ),
    Mutation(
        "fingerprint check of a search",
        "miniclip/index/image_index.py",
        "if fingerprint != self.fingerprint:",
        "if False:",
        "tests/hostile/test_wrong_parts.py",
        "index_of_another_bundle",
    ),
    Mutation(
        "fingerprint check of an update",
        "miniclip/index/store.py",
        "if read_settings(folder).fingerprint != settings.fingerprint:",
        "if False:",
        "tests/hostile/test_wrong_parts.py",
        "index_of_another_bundle",
    ),
    Mutation(
        "atomic replace",
        "miniclip/files.py",
        "        write(partial)\n",
        "        write(path)\n        partial.write_bytes(path.read_bytes())\n",
        "tests/e2e/test_full_disk.py",
        "cannot_be_written_is_as_it_was",
    ),
    Mutation(
        "login check of the page's own routes",
        "demo/previews.py",
        "return any(token is not None and app.tokens.get(token) is not None for token in tokens)",
        "return tokens is not None",
        "tests/security/test_share.py",
        "without_login",
    ),
    Mutation(
        "login of a shared page",
        "demo/__main__.py",
        "            auth=login,\n",
        "            auth=None,\n",
        "tests/security/test_share.py",
        "without_login",
    ),
    Mutation(
        "bomb limit",
        "miniclip/data/images.py",
        "if width_px * height_px > MAX_PIXELS:",
        "if False:",
        "tests/unit/test_images.py",
        "bomb_is_refused",
    ),
    Mutation(
        "bomb limit of archives",
        "miniclip/models/calibration_set.py",
        "if sum(entry.file_size for entry in arrays.zip.infolist()) > MAX_BYTES:",
        "if False:",
        "tests/hostile/test_hostile.py",
        "unpacks_to_too_much",
    ),
)


def copy_checkout(folder: Path) -> Path:
    """The files that git knows, without the history."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def passes(checkout: Path, mutation: Mutation) -> bool:
    """Whether the test passes there; anything but a pass or a failure is no answer."""
    flags = ["-q", "-x", "-p", "no:cacheprovider", mutation.test, *(["-k", mutation.words] if mutation.words else [])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *flags], cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutation.test} did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.returncode == 0


def outcome(checkout: Path, mutation: Mutation) -> str:
    """Mutate, test, and put the file back."""
    file = checkout / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        return "its line is not there: mend tests/mutations.py"
    file.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        return "survived" if passes(checkout, mutation) else "a test failed"
    finally:
        file.write_text(text, encoding="utf-8")


def main(names: list[str]) -> int:
    outcomes = []
    with tempfile.TemporaryDirectory() as tmp:
        checkout = copy_checkout(Path(tmp))
        for mutation in MUTATIONS:
            if names and mutation.name not in names:
                continue
            started = time.monotonic()
            outcomes.append(outcome(checkout, mutation))
            seconds = time.monotonic() - started
            print(f"{mutation.name:38} {outcomes[-1]:15} {mutation.test} ({seconds:.0f} s)", flush=True)
    return any(result != "a test failed" for result in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
