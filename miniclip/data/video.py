"""Frames of a video at its scene changes, and the frame at one second (the extra `video`, which is PyAV).

In: a video file. Out: upright RGB frames with their times, or an `UnreadableImage` with the reason. A frame is
kept if it differs from the last one that was kept. Usually only key frames are decoded, about twice as many as can be
kept. Time, pixels and the number of frames are bounded, whatever a file claims.

    pip install "miniclip[video]"; miniclip index ~/Videos
"""

import contextlib
import errno
import importlib.util
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain, dropwhile
from typing import Any

import numpy as np
from PIL import Image

from miniclip.data.file_errors import file_errors
from miniclip.data.metadata import Metadata
from miniclip.data.moments import clock
from miniclip.data.video_metadata import read_video_metadata
from miniclip.errors import UnreadableImage
from miniclip.installation import install

# FFmpeg also reads playlists, which name other files and addresses: only containers that hold their own frames are read
FORMATS = "mov,matroska,avi,asf,mpeg,mpegts,mpegvideo,flv,ogg"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
BUFFER_BYTES = 256 << 10
MAX_FRAMES, MIN_GAP_S = 600, 1.0  # kept of one video, and between two of them
MAX_PIXELS = 40_000_000  # of a frame: 8K has 33 million
MAX_DECODE_S, MAX_SEEK_S = 300.0, 10.0  # for one video, whose first frames are kept then, and for one frame of it
MAX_FAULTS = 20  # damaged key frames of one video
# Most cameras and encoders write a key frame every second or at each new scene. Some write one every ten seconds: then
# the frames between them are decoded, too, up to 3,000 in a Full HD video
RARE_S, MAX_BETWEEN_PIXELS, MAX_GROUP_BYTES = 3.0, 6_000_000_000, 64 << 20
THUMBNAIL_PX = 16
# mean difference of two thumbnails, from 0 to 255. Measured on 400 photographs of Flickr8k: 99 % of pairs differ by
# more than 40; a pan by a tenth of the width changes a photograph by 28 in the median, a pan by a hundredth by 4
MIN_CHANGE = 24.0
BLACK = 10.0  # mean up to which a frame shows nothing, as at the start of many films
TOLERANCE_S = 0.002  # of a frame that is looked for
MAX_STRETCH = 4  # of pixels that are not square


def can_read_video() -> bool:
    """Whether the extra is installed. Imports nothing."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True)
class Frame:
    """One frame of a video, upright in RGB."""

    second: float  # from the start, in milliseconds, rounded up: a player that seeks there shows this frame
    image: Image.Image


@dataclass
class Video:
    """An opened video."""

    container: Any
    stream: Any
    decoding_error: type[Exception]
    fault: str = ""  # why frames are missing, once `scenes` has ended
    max_s: float = MAX_DECODE_S
    _started: float = field(default_factory=time.monotonic)
    _faults: int = 0  # decoding
    _between_pixels: int = 0  # decoded between key frames

    @cached_property
    def metadata(self) -> Metadata:
        return read_video_metadata({**self.stream.metadata, **self.container.metadata})

    @cached_property
    def duration_s(self) -> float | None:
        """As the file claims; None if it claims nothing."""
        ends = [self.stream.duration and self.stream.duration * self.stream.time_base]
        ends.append(self.container.duration and Fraction(self.container.duration, 1_000_000))
        return next((float(end) for end in ends if end and end > 0), None)

    def scenes(self) -> Iterator[Frame]:
        """At most `MAX_FRAMES` frames, at least one. Errors: `UnreadableImage` if no frame can be decoded."""
        with _reasons():
            yield from self._scenes()

    def _scenes(self) -> Iterator[Frame]:
        gap = max(MIN_GAP_S, (self.duration_s or 0) / MAX_FRAMES)
        count, last_s, last, black = 0, -math.inf, None, None
        for second, frame in self._candidates(gap / 2):
            _check_size(frame.width, frame.height)
            thumbnail = _thumbnail(frame)
            if thumbnail.mean() <= BLACK:
                black = black or Frame(second, self._shown(frame))
            elif last is None or (second - last_s >= gap and np.abs(thumbnail - last).mean() >= MIN_CHANGE):
                if count == MAX_FRAMES:  # of a video that does not say how long it is
                    self.fault = f"only its first {clock(second)} were read"
                    break
                count, last_s, last = count + 1, second, thumbnail
                yield Frame(second, self._shown(frame))
        if count == 0 and black is None:
            raise UnreadableImage("no frame of this video can be decoded")
        if count == 0 and black is not None:
            yield black

    def frame_at(self, second: float, seeks: bool, only_key_frames: bool) -> Image.Image | None:
        """The frame at that second; None if there is none, or if this method cannot reach it."""
        if seeks:
            wanted = self._start + Fraction(round(1000 * second), 1000)
            self.container.seek(int(wanted / self.stream.time_base), stream=self.stream)
        if only_key_frames:
            near = (packet for found_s, packet in self._packets() if found_s >= second - TOLERANCE_S)
            packets = (packet for packet in near if packet.is_keyframe)
        else:
            packets = (packet for _, packet in self._packets())
        for found_s, frame in self._decoded(dropwhile(lambda packet: not packet.is_keyframe, packets)):
            if found_s >= second - TOLERANCE_S:
                _check_size(frame.width, frame.height)
                return self._shown(frame) if found_s <= second + TOLERANCE_S else None
        return None

    @cached_property
    def _start(self) -> Fraction:
        """The time of the start, which broadcasts do not set to 0; players show it as 0."""
        return Fraction(self.container.start_time or 0, 1_000_000)

    def _second(self, pts: int) -> float:
        time_base: Fraction = self.stream.time_base
        return max(0, math.ceil(1000 * (pts * time_base - self._start))) / 1000

    def _packets(self) -> Iterator[tuple[float, Any]]:
        """Packets with their seconds. If they end early, `fault` says why."""
        packets, end_s = self.container.demux(self.stream), 0.0
        while True:
            if time.monotonic() - self._started > self.max_s:
                self.fault = f"only its first {clock(end_s)} were read"
                return
            try:
                packet = next(packets)
            except StopIteration:
                break
            except self.decoding_error:
                self.fault = f"damaged after {clock(end_s)}"
                return
            pts = packet.dts if packet.pts is None else packet.pts
            if packet.size and pts is not None:
                end_s = max(end_s, second := self._second(pts))
                yield second, packet
        missing_s = (self.duration_s or 0) - end_s
        if missing_s > 2 and missing_s > 0.1 * (self.duration_s or 0):
            self.fault = self.fault or f"cut off after {clock(end_s)}"

    def _candidates(self, step_s: float) -> Iterator[tuple[float, Any]]:
        """Key frames, and where these are rare the frames between them, each at least `step_s` after the last."""
        next_s = 0.0
        for start_s, end_s, group in self._groups():
            are_rare = len(group) > 1 and end_s - start_s > RARE_S
            if are_rare:
                self._between_pixels += len(group) * self.stream.codec_context.width * self.stream.codec_context.height
            elif start_s < next_s:
                continue
            until_s = end_s - step_s if are_rare else math.inf  # or the next key frame would be too near
            for second, frame in self._decoded(group if are_rare else group[:1]):
                if next_s <= second <= until_s:
                    next_s = second + step_s
                    yield second, frame
            if self._faults >= MAX_FAULTS:
                return

    def _groups(self) -> Iterator[tuple[float, float, list[Any]]]:
        """Each key frame's packet with those after it, and when the key frame and the next one are shown."""
        group: list[Any] = []
        start_s = end_s = 0.0
        size = 0
        for second, packet in self._packets():
            if packet.is_keyframe:
                if group:
                    yield start_s, second, group
                group, start_s, size = [], second, 0
            if packet.is_keyframe or (group and size < MAX_GROUP_BYTES and self._between_pixels < MAX_BETWEEN_PIXELS):
                group.append(packet)
                size += packet.size
            end_s = second
        if group:
            yield start_s, end_s, group

    def _decoded(self, packets: Iterable[Any]) -> Iterator[tuple[float, Any]]:
        """Frames with their seconds, of packets that begin with a key frame. A fault ends decoding and is recorded."""
        decoder, second = self.stream.codec_context, 0.0
        try:
            for packet in chain(packets, [None]):  # None: a decoder holds the last frames back
                for frame in decoder.decode(packet):
                    pts = frame.dts if frame.pts is None else frame.pts
                    if pts is not None:
                        yield (second := self._second(pts)), frame
        except self.decoding_error:
            self.fault = self.fault or f"damaged after {clock(second)}"
            self._faults += 1
        finally:
            decoder.flush_buffers()

    def _shown(self, frame: Any) -> Image.Image:
        """A decoded frame as players show it."""
        ratio = self.stream.sample_aspect_ratio
        is_stretched = ratio and ratio != 1 and 1 / MAX_STRETCH <= ratio <= MAX_STRETCH
        width = max(1, round(frame.width * ratio)) if is_stretched else frame.width
        image: Image.Image = frame.to_image(width=width, height=frame.height)
        return image.rotate(frame.rotation, expand=True) if frame.rotation else image


@contextlib.contextmanager
def open_video(path: str) -> Iterator[Video]:
    """Open a video file. Errors: `UnreadableImage` with the reason."""
    with contextlib.ExitStack() as stack:
        with _reasons():
            import av

            file = stack.enter_context(open(path, "rb"))
            container: Any = stack.enter_context(
                av.open(file, container_options=OPTIONS, metadata_errors="replace", buffer_size=BUFFER_BYTES)
            )
            stream = container.streams.best("video")
            if stream is None:
                raise UnreadableImage("a video file without video")
            _check_size(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            stream.codec_context.thread_count = 1  # other cores read other files
        yield Video(container, stream, av.FFmpegError)


def frame_at(path: str, second: float) -> Image.Image:
    """The frame of a video at that second, upright in RGB. Errors: `UnreadableImage` with the reason."""
    # the file's own index may be missing or wrong: then search from the start, first the key frames
    for seeks, only_key_frames in ((True, False), (False, True), (False, False)):
        with contextlib.suppress(UnreadableImage) if seeks else contextlib.nullcontext():
            with open_video(path) as video, _reasons():
                video.max_s = MAX_SEEK_S
                image = video.frame_at(second, seeks, only_key_frames)
            if image is not None:
                return image
    raise UnreadableImage(f"the video has no frame at {clock(second)} any more")


def _thumbnail(frame: Any) -> np.ndarray:
    """(16, 16, 3) float32."""
    small = frame.reformat(width=THUMBNAIL_PX, height=THUMBNAIL_PX, format="rgb24", interpolation="AREA")
    return np.asarray(small.to_ndarray(), dtype=np.float32)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"a video of more than {MAX_PIXELS // 1_000_000} million pixels per frame")


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Convert every error of reading a video into `UnreadableImage`."""
    try:
        import av
    except ImportError as error:
        raise UnreadableImage(f"videos need one more package: {install('video')}", retryable=True) from error
    try:
        with file_errors():
            yield
    except UnreadableImage:
        raise
    except Exception as error:  # FFmpeg's errors have many types; each means the same to a user
        is_from_disk = isinstance(error, OSError) and error.errno != errno.EINVAL  # that is a seek outside the file
        if is_from_disk and not isinstance(error, av.FFmpegError):
            raise UnreadableImage(f"cannot be read ({getattr(error, 'strerror', error)})", retryable=True) from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(f"a damaged video, or none in a known format ({reason})") from error
