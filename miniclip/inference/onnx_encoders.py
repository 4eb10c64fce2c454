"""A bundle's two towers in onnxruntime, on the GPU or the CPU.

In: a `Bundle`. Out: `OnnxEncoders`, which embed texts and images (see `Encoders`).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import onnxruntime as ort

from miniclip.cpu import thread_count
from miniclip.errors import MiniClipError, one_line
from miniclip.inference.bundle import Bundle
from miniclip.inference.encoders import IMAGE_BATCH, TEXT_BATCH, Encoders, Tokens
from miniclip.inference.layouts import TOWERS
from miniclip.inference.own_probability import own_probability
from miniclip.inference.precision import of_tower
from miniclip.inference.providers import (
    DIRECTML,
    NAMES,
    ProviderChoice,
    choose_provider,
    is_accelerated,
    is_gpu_expected,
    open_session,
    session_options,
    worth_timing,
)
from miniclip.inference.score_calibration import ScoreCalibration
from miniclip.inference.self_test import examine, fastest_precision
from miniclip.inference.tower_io import TowerIO

TEXTS_A_CORE = 4  # batch size if each core has its own batch: as fast as 8, and faster for few texts


class OnnxEncoders(Encoders):
    """The two towers of a bundle in onnxruntime. Sessions are thread-safe, so one object is enough for a page.

    `running_on` names the real device, not the requested one: onnxruntime falls back to the CPU with only a log line.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        precision: str = "auto",
        strict: bool = False,
        threads: int | None = None,
        available: Sequence[str] | None = None,
        exact: bool = False,
    ) -> None:
        """Open the bundle's sessions; with `strict`, it is an error if a requested GPU does not start.

        `exact`: no TF32 on a GPU, for a comparison with a CPU.
        """
        available = ort.get_available_providers() if available is None else available
        self.choice = choose_provider(provider, precision, available, bundle.precisions, is_gpu_expected())
        if precision == "auto" and not bundle.manifest and not is_accelerated(self.choice.providers):
            # our own int8 was checked at export, that of other bundles was not
            fastest = fastest_precision(bundle, lambda name: OnnxEncoders(bundle, "cpu", name, threads=threads))
            self.choice = choose_provider(
                provider, fastest or precision, available, bundle.precisions, is_gpu_expected()
            )
        self.bundle = bundle
        self.precision = self.choice.precision
        self.transform, self.tokenizer = bundle.transform, bundle.tokenizer
        self.logit_scale = bundle.logit_scale
        self._strict, self._exact, self._threads = strict, exact, threads or thread_count()
        self._on_cpu = choose_provider("cpu", precision, available, bundle.precisions)  # fp16 is slow on a CPU
        self._falling_back, self._opening = threading.Lock(), threading.Lock()
        one_at_a_time = DIRECTML in self.choice.providers  # its sessions are not thread-safe
        self._running = threading.Lock() if one_at_a_time else contextlib.nullcontext()
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._on_one_core: dict[str, ort.InferenceSession] = {}
        self._pool = ThreadPoolExecutor(self._threads)  # one thread per core, each with a session of one thread
        self._open_towers("")
        if is_accelerated(self.choice.providers) and not self.on_gpu:
            what = f"{NAMES[self.choice.providers[0]]} did not start"
            self._fall_back(what)
            print(f"the GPU was requested, but {what}; continuing on the CPU", file=sys.stderr)
        if (declared := self._io["text"].exact_length) is not None and declared != self.tokenizer.exact_length:
            self.tokenizer.pad_to(declared)
        self.dim = int(self._dimension())
        self._check_parts()
        if not bundle.manifest:
            examine(self)
        if accelerator := worth_timing(provider, available):
            self._try(choose_provider(accelerator, precision, available, bundle.precisions))

    def _open_towers(self, why: str) -> None:
        """Open both towers with the current choice; `why` it differs from the requested one."""
        sessions = self._open_all(self._threads)
        if not self.bundle.manifest:
            why += "; the bundle has no manifest, so its files are unchecked"
        self.running_on = self.choice.message + why
        self.providers: tuple[str, ...] = tuple(sessions["vision"].get_providers())
        self._io = {
            tower: TowerIO.of(sessions[tower], tower, self.bundle.is_pooled, self.transform) for tower in TOWERS
        }
        self._sessions = sessions  # replaced at once, so that other threads see either the old or the new ones
        if self._io["text"].dummies:
            one = self.tokenizer(["a"])
            self._io["text"].try_empty_dummy(lambda: sessions["text"].run(None, self._io["text"].feeds(*one)))

    @cached_property
    def match(self) -> ScoreCalibration | None:
        """How likely a score is a match: measured, or as the model itself says."""
        return self.bundle.match or own_probability(self)

    @property
    def on_gpu(self) -> bool:
        """Whether an accelerator runs the towers."""
        return is_accelerated(self.providers)

    def _open_all(self, threads: int) -> dict[str, ort.InferenceSession]:
        """A session for each tower; if one graph contains both, they share it."""
        graphs = self.bundle.layout.files(self.precision)
        if graphs["vision"] == graphs["text"]:
            return dict.fromkeys(TOWERS, self._open("vision", threads))
        return {tower: self._open(tower, threads) for tower in TOWERS}

    def _open(self, tower: str, threads: int) -> ort.InferenceSession:
        path = self.bundle.model_path(tower, self.precision)
        try:
            half_convolutions = (tower, of_tower(self.precision, tower)) == ("vision", "fp16")
            providers, options = self.choice.providers, session_options(threads)
            return open_session(path, options, providers, half_convolutions, self._exact)
        except Exception as error:  # onnxruntime raises its own types, none of them public
            raise MiniClipError(
                f"onnxruntime cannot open {path}: {one_line(error)}; export the bundle again"
            ) from error

    def _check_parts(self) -> None:
        """Refuse parts that do not belong together; without a manifest, hashes cannot show that."""
        shape = self._io["vision"].shape
        if len(shape) != 4:
            raise MiniClipError(f"{self.bundle.folder}: the vision model does not take images; export the bundle again")
        *_, height_px, width_px = shape
        for declared, own in ((height_px, self.transform.height_px), (width_px, self.transform.width_px)):
            if isinstance(declared, int) and declared != own:
                raise MiniClipError(
                    f"{self.bundle.folder}: preprocessor_config.json makes images of {own} pixels, the vision model "
                    f"takes {declared}; they are of different bundles, so copy or export the bundle again"
                )
        image_dim = self._io["vision"].dim
        for other, what in (
            (image_dim, "the vision model"),
            (self.bundle.manifest.get("embedding_dim"), "the manifest"),
        ):
            if isinstance(other, int) and other != self.dim:
                raise MiniClipError(
                    f"{self.bundle.folder}: the text model has {self.dim} dimensions, {what} {other}; "
                    "they are of different bundles, so copy or export the bundle again"
                )
        if not self.bundle.manifest:
            try:
                self.embed_tokens(*self.tokenizer.pad([[self.tokenizer.highest_id]]))
            except Exception as error:  # as above
                raise MiniClipError(
                    f"{self.bundle.folder}: the text model cannot take what tokenizer.json gives ({error}); "
                    "they are of different bundles, so copy or export the bundle again"
                ) from error

    def _fall_back(self, what: str) -> None:
        """Change permanently from the GPU to the CPU; the page and the commands show it from now on."""
        if self._strict:
            raise MiniClipError(f"the GPU was requested, but {what}; check the driver, or omit --strict")
        self.choice, self.precision = self._on_cpu, self._on_cpu.precision
        self._open_towers(f": the GPU was requested, but {what}")

    def _try(self, choice: ProviderChoice) -> None:
        """Use `choice` if it starts and embeds one batch of images and one text faster than the CPU."""
        on_cpu, on_cpu_s = self.choice, self.measure_seconds()
        self.choice, self.precision = choice, choice.precision
        self._open_towers("")
        if not self.on_gpu or self.measure_seconds() >= on_cpu_s:
            self.choice, self.precision = on_cpu, on_cpu.precision
            self._open_towers(f"; {NAMES[choice.providers[0]]} was slower" if self.on_gpu else "")

    def measure_seconds(self, towers: Collection[str] = TOWERS) -> float:
        """The time of these towers for a batch of images and a text, after a warm-up."""
        self.warm_up()
        size = (IMAGE_BATCH, 3, self.transform.height_px, self.transform.width_px)
        passes = []
        for _ in range(2):  # the first run of a size allocates or compiles
            started = time.perf_counter()
            if "vision" in towers:
                self.embed_pixels(np.zeros(size, dtype=np.float32))
            if "text" in towers:
                self.embed_tokens(*self.tokenizer(["a text of a few words"]))
            passes.append(time.perf_counter() - started)
        return min(passes)

    def _run(self, tower: str, *inputs: np.ndarray) -> np.ndarray:
        """Run one tower. If a GPU fails (no memory, a lost driver), the CPU takes over."""
        session, io = self._sessions[tower], self._io[tower]
        try:
            with self._running:
                (embeds,) = session.run([io.output], io.feeds(*inputs))
        except Exception as error:
            if not is_accelerated(session.get_providers()):
                raise
            with self._falling_back:
                if self._sessions[tower] is session:  # if several threads fail together, one opens new sessions for all
                    print(f"the GPU failed, continuing on the CPU: {one_line(error)}", file=sys.stderr)
                    self._fall_back(f"{NAMES[self.choice.providers[0]]} failed")
            (embeds,) = self._sessions[tower].run([self._io[tower].output], self._io[tower].feeds(*inputs))
        return np.asarray(embeds)

    def _dimension(self) -> int:
        return self._io["text"].dim or self.embed_tokens(*self.tokenizer(["a"])).shape[-1]

    def embed_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        """On a CPU, one core computes each image of a batch, and all cores compute a single image.

        Then the data of an image stays in one core's cache, and no core waits for another. Dynamic 8-bit scales belong
        to one image, so that its embedding does not depend on the rest of the batch.
        """
        if len(pixel_values) <= 1 or self.on_gpu:
            batch = padded_batch(pixel_values) if self.on_gpu else pixel_values
            image_embeds = self._run("vision", batch)
            return self._unit(image_embeds[: len(pixel_values)])
        rows = [pixel_values[row : row + 1] for row in range(len(pixel_values))]
        return np.concatenate(list(self._pool.map(self.embed_on_one_core, rows)))

    @property
    def wants_batches(self) -> bool:
        """Whether batches are faster than one image per core, as on a GPU."""
        return self.on_gpu

    def embed_on_one_core(self, pixel_values: np.ndarray) -> np.ndarray:
        """(1, 3, H, W) -> (1, D) on the calling thread alone, for threads that each process one image."""
        session = self._session_on_one_core("vision")
        io = self._io["vision"]
        (image_embeds,) = session.run([io.output], io.feeds(pixel_values))
        return self._unit(np.asarray(image_embeds))

    def _session_on_one_core(self, tower: str) -> ort.InferenceSession:
        """A second session, which the first thread that needs it opens."""
        if self._threads == 1:
            return self._sessions[tower]
        graphs = self.bundle.layout.files(self.precision)
        key = "vision" if graphs["vision"] == graphs["text"] else tower
        with self._opening:
            if key not in self._on_one_core:
                self._on_one_core[key] = self._open(key, 1)
            return self._on_one_core[key]

    def embed_tokens(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        return self._unit(self._run("text", input_ids, attention_mask))

    @property
    def takes_mask(self) -> bool:
        """Whether the text model takes a mask of the padding."""
        return "attention_mask" in self._io["text"].types

    @property
    def text_batch(self) -> int:
        return TEXT_BATCH if self.on_gpu else TEXTS_A_CORE

    def embed_batches(self, batches: Sequence[Tokens]) -> Iterable[np.ndarray]:
        """On a CPU, one core computes each batch if there are several."""
        if len(batches) <= 1 or self.on_gpu:
            return super().embed_batches(batches)

        def embed(batch: Tokens) -> np.ndarray:
            session, io = self._session_on_one_core("text"), self._io["text"]
            (text_embeds,) = session.run([io.output], io.feeds(*batch))
            return self._unit(np.asarray(text_embeds))

        return self._pool.map(embed, batches)

    def _unit(self, embeds: np.ndarray) -> np.ndarray:
        """Normalise the rows of a bundle made by others; our own graphs already give unit rows."""
        if self.bundle.manifest:
            return embeds
        embeds = np.asarray(embeds, dtype=np.float32)
        with np.errstate(all="ignore"):  # the self-test refuses embeddings of zero length
            return np.asarray(embeds / np.linalg.norm(embeds, axis=-1, keepdims=True), dtype=np.float32)

    def warm_up(self) -> None:
        """Run each tower once, so that no user waits for the allocations of the first run."""
        self.embed_tokens(*self.tokenizer(["warm up"]))
        self.embed_pixels(np.zeros((1, 3, self.transform.height_px, self.transform.width_px), dtype=np.float32))


def padded_batch(pixel_values: np.ndarray) -> np.ndarray:
    """(B, ...) -> (P, ...), padded to the next power of two P with copies of the last image.

    cuDNN plans every convolution again for each new batch size. Padding limits the number of sizes.
    """
    size = 1 << max(0, len(pixel_values) - 1).bit_length()
    return np.concatenate([pixel_values, np.repeat(pixel_values[-1:], size - len(pixel_values), axis=0)])
