"""Remove safeguards one at a time in a copy of the checkout, and check that a test fails for each.

    python -m tests.mutations [NAME ...]

Prints a table. Exit status 1 if a test does not notice its mutation, or if the line to change no longer exists.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """`before` becomes `after` in `file`; then `test`, in this `tier`, must fail."""

    name: str
    file: str
    before: str
    after: str
    test: str
    tier: str = "test"


MUTATIONS = (
    Mutation(
        "manifest hash check",
        "miniclip/inference/bundle.py",
        'matches = sha256_of(path) == expected["sha256"]',
        'matches = bool(sha256_of(path) or expected["sha256"])',
        "tests/hostile/test_wrong_parts.py::test_other_weights_of_the_same_dimension_are_refused_by_name",
    ),
    Mutation(
        "fingerprint check of a search",
        "miniclip/index/image_index.py",
        "if fingerprint != self.fingerprint:",
        "if False:",
        "tests/hostile/test_wrong_parts.py::test_index_of_another_bundle_is_refused_by_search_and_update",
    ),
    Mutation(
        "fingerprint check of an update",
        "miniclip/index/store.py",
        "if read_settings(folder).fingerprint != settings.fingerprint:",
        "if False:",
        "tests/hostile/test_wrong_parts.py::test_index_of_another_bundle_is_refused_by_search_and_update",
    ),
    Mutation(
        "no file is replaced by a move",
        "miniclip/files.py",
        "    if not _rename_in_one_step(source, target):\n",
        "    os.replace(source, target)\n    if False:\n",
        "tests/unit/test_files.py::test_a_rename_never_replaces_a_file",
    ),
    Mutation(
        "a recovery touches only files of its own",
        "miniclip/index/relocate.py",
        "    if not (is_moved or has_both_names or inode == entry.partial_inode):\n",
        "    if False:\n",
        "tests/unit/test_relocate.py::test_recovery_never_touches_a_file_of_another_program",
    ),
    Mutation(
        "a file goes only while its better copy is there",
        "miniclip/index/relocation_plan.py",
        "    if step.kept and (kept is None or state_of(kept) != step.kept_state):\n",
        "    if False:\n",
        "tests/unit/test_best_copy.py::test_an_image_stays_if_its_better_copy_changed",
    ),
    Mutation(
        "files are for this page's own address",
        "demo/local_access.py",
        'return origin == f"http://{host}"',
        "return True",
        "tests/unit/test_local_files.py::test_requests_from_elsewhere_get_no_key_and_change_nothing",
    ),
    Mutation(
        "files are for connections from this machine",
        "demo/local_access.py",
        "is_here = client is not None and client.port != 0 and is_loopback(client.host)",
        "is_here = True",
        "tests/unit/test_local_files.py::test_connections_from_elsewhere_get_no_key",
    ),
    Mutation(
        "frames of one video are one file",
        "miniclip/index/relocation_plan.py",
        "dict.fromkeys(map(file_of, paths))",
        "dict.fromkeys(paths)",
        "tests/unit/test_video_files.py::test_the_trash_gets_each_file_once",
    ),
    Mutation(
        "a video is no duplicate of a photograph",
        "miniclip/search/duplicates.py",
        "        if frames:\n",
        "        if False:\n",
        "tests/unit/test_video_files.py::test_only_equal_videos_are_duplicates",
    ),
    Mutation(
        "a video never goes for a better photograph",
        "miniclip/search/best_copy.py",
        "is_alike |= (similarity >= threshold) & np.isnan(index.frames.second[rest])",
        "is_alike |= similarity >= threshold",
        "tests/unit/test_video_files.py::test_a_video_never_goes_for_a_better_photograph",
    ),
    Mutation(
        "playlists are no videos",
        "miniclip/data/video.py",
        'OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}',
        'OPTIONS = {"protocol_whitelist": "file,crypto,data", "allowed_extensions": "ALL"}',
        "tests/unit/test_video.py::test_other_files_have_a_reason_and_are_not_tried_again",
    ),
    Mutation(
        "an interrupted update of a video is repeated",
        "miniclip/index/update_plan.py",
        "if states.setdefault(name, state) != state:",
        "if states.setdefault(name, state) and False:",
        "tests/unit/test_index_videos.py::test_a_frame_of_another_state_means_that_an_update_was_interrupted",
    ),
    Mutation(
        "a file in the place of a video is not served",
        "demo/local_files.py",
        "if not is_as_indexed(path, gallery.index.states[row]):",
        "if False:",
        "tests/unit/test_video_files.py::test_another_file_in_the_place_of_the_video_is_not_served",
    ),
    Mutation(
        "atomic replace",
        "miniclip/files.py",
        "        write(partial)\n",
        "        write(path)\n        partial.write_bytes(path.read_bytes())\n",
        "tests/unit/test_files.py::test_a_failed_write_keeps_the_old_file",
    ),
    Mutation(
        "private filters of a shared page",
        "demo/search_request.py",
        "if gallery.is_public and one.is_private:",
        "if False:",
        "tests/unit/test_page_browse.py::test_private_filters_exist_only_on_the_local_page",
    ),
    Mutation(
        "login check",
        "demo/request_filter.py",
        "return any(token is not None and app.tokens.get(token) is not None for token in tokens)",
        "return tokens is not None",
        "tests/security/test_share.py::test_without_login_there_is_no_data",
        "e2e",
    ),
    Mutation(
        "login of a shared page",
        "demo/__main__.py",
        "            auth=login,\n",
        "            auth=None,\n",
        "tests/security/test_share.py::test_without_login_there_is_no_data",
        "e2e",
    ),
    Mutation(
        "bomb limit",
        "miniclip/data/images.py",
        "if image.width * image.height > MAX_PIXELS:",
        "if False:",
        "tests/unit/test_images.py::test_a_decompression_bomb_is_refused_by_its_header",
    ),
    Mutation(
        "bomb limit of archives",
        "miniclip/models/calibration_set.py",
        "if sum(entry.file_size for entry in arrays.zip.infolist()) > MAX_BYTES:",
        "if False:",
        "tests/hostile/test_hostile.py::test_oversized_calibration_is_refused_before_unpacking",
    ),
    Mutation(
        "values of a frozen tower in onnxruntime",
        "train/frozen_tower.py",
        "if not difference <= MAX_DIFFERENCE:",
        "if False:",
        "tests/unit/test_frozen_tower.py::test_a_tower_that_fails_in_onnxruntime_stays_in_pytorch",
    ),
    Mutation(
        "parity gate",
        "export/benchmark/__main__.py",
        "            if not difference <= allowed + 1e-9:  # also true for NaN\n",
        "            if False:\n",
        "tests/unit/test_export.py::test_every_recall_of_every_precision_is_checked",
    ),
    Mutation(
        "recall gate",
        "export/recall_check.py",
        '        if not abs(recalls[precision] - recalls["fp32"]) <= allowed:  # also true for NaN\n',
        "        if False:\n",
        "tests/unit/test_recall_check.py::test_the_recall_check_refuses_an_fp16_tower_with_nan",
    ),
    Mutation(
        "cosine gate",
        "export/recall_check.py",
        "            if not cosine >= least:\n",
        "            if False:\n",
        "tests/unit/test_recall_check.py::test_the_recall_check_refuses_fp16_embeddings_that_are_far_from_fp32",
    ),
    Mutation(
        "split by image",
        "miniclip/data/captions.py",
        "        if image.split and image.split != split:\n",
        "        if False:\n",
        "tests/unit/test_captions.py::test_an_image_in_two_splits_is_an_error_that_names_it",
    ),
    Mutation(
        "resume state",
        "train/trainer.py",
        '                self.optimiser.load_state_dict(state["optimiser"])\n',
        "",
        "tests/unit/test_train_resume.py::test_a_resumed_run_equals_an_uninterrupted_one[heads]",
    ),
    Mutation(
        "moving average of the weights",
        "train/ema.py",
        "        self._put(self.values)\n",
        "        self._put(own)\n",
        "tests/unit/test_train_resume.py::test_validated_and_kept_weights_are_the_moving_average",
    ),
    Mutation(
        "padding is not pooled",
        "miniclip/models/pooling.py",
        "(output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)",
        "output.last_hidden_state.mean(dim=1)",
        "tests/unit/test_model.py::test_mean_pooling_takes_the_mean_of_the_words_and_ignores_padding",
    ),
    Mutation(
        "EXIF orientation",
        "miniclip/data/metadata.py",
        "return image.transpose(TURNS[orientation])",
        "return image",
        "tests/unit/test_images.py::test_exif_orientation_turns_the_image_upright",
    ),
    Mutation(
        "names that lead out of a data set",
        "miniclip/data/captions.py",
        '    if name.split("/")[0] == "..":\n',
        "    if False:\n",
        "tests/unit/test_skipped_captions.py::test_names_that_leave_the_folder_are_skipped",
    ),
    Mutation(
        "one commit for a changed image",
        "miniclip/index/store.py",
        '                merge = self._images.merge_insert("path")\n',
        '                self._images.delete("true")\n                merge = self._images.merge_insert("path")\n',
        "tests/unit/test_index_commits.py::test_every_version_of_an_index_holds_all_images",
    ),
    Mutation(
        "upload limit",
        "demo/request_filter.py",
        "int(length) > 2 * max_bytes:",
        "False:",
        "tests/security/test_attacks.py::test_oversized_requests_are_refused_before_reading",
        "e2e",
    ),
    Mutation(
        "calibration of scores",
        "miniclip/inference/score_calibration.py",
        "    if not slope > 0:\n",
        "    if False:\n",
        "tests/unit/test_score_calibration.py::test_scores_that_are_lower_for_matches_are_not_calibrated",
    ),
    Mutation(
        "fallback to the CPU",
        "miniclip/inference/onnx_encoders.py",
        "            if not is_accelerated(session.get_providers()):\n",
        "            if True:\n",
        "tests/unit/test_gpu_fails.py::test_a_failing_gpu_is_replaced_by_the_cpu_with_one_line",
    ),
)


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git knows, without the history."""
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


def passes(checkout: Path, mutations: Sequence[Mutation], **environment: str) -> bool:
    """Whether the tests of these mutations pass in the checkout. Exits if they did not run."""
    tests = dict.fromkeys(mutation.test for mutation in mutations)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", *tests],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{', '.join(tests)} did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    if done.returncode == 1 and len(mutations) > 1:
        print(done.stdout[-3000:])
    return done.returncode == 0


def prepare(folder: Path, mutations: Sequence[Mutation]) -> Path:
    """A copy of the checkout in which every test passes. It also makes the files that tests share, once."""
    checkout = copy_checkout(folder)
    if not passes(checkout, mutations):
        raise SystemExit("a test fails although no safeguard was removed")
    return checkout


def outcome(checkout: Path, mutation: Mutation) -> str:
    """Mutate, test, and put the file back."""
    file = checkout / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        return "its line does not exist: correct tests/mutations.py"
    file.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    made = next((checkout / ".pytest_cache").glob("made/*"), None)  # made by the unchanged code
    try:
        kept = {"MINICLIP_TESTS_MADE": str(made)} if made else {}
        return "survived" if passes(checkout, [mutation], **kept) else "a test failed"
    finally:
        file.write_text(text, encoding="utf-8")


def main(names: list[str]) -> int:
    mutations = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    outcomes = []
    with tempfile.TemporaryDirectory() as tmp:
        checkout = prepare(Path(tmp), mutations)
        for mutation in mutations:
            started = time.monotonic()
            outcomes.append(outcome(checkout, mutation))
            seconds = time.monotonic() - started
            test = f"{mutation.tier}: {mutation.test}"
            print(f"{mutation.name:38} {outcomes[-1]:15} {test} ({seconds:.0f} s)", flush=True)
    print(f"{outcomes.count('a test failed')} of {len(outcomes)} caught")
    return any(result != "a test failed" for result in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
