"""Read frames of a video with PyAV (the extra `video`): one for each scene, or the frame at a given second.

In: a video file. Out: upright RGB frames with their times, or an `UnreadableImage` with the reason.

    pip install "miniclip[video]"; miniclip index ~/Videos

A packet is an encoded frame. A key frame can be decoded alone. Every other frame needs all frames since
the last key frame, so decoding all frames is slow. `Video.scenes` therefore reads all packets, but usually decodes only
key frames. It keeps a frame if it differs from the last frame that it kept. Time, pixels and the number of frames have
limits that do not depend on what the file claims.
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

from miniclip.data.metadata import Metadata
from miniclip.data.moments import clock
from miniclip.data.video_metadata import read_video_metadata
from miniclip.errors import UnreadableImage, file_errors
from miniclip.installation import install

# FFmpeg also reads playlists, which name other files and addresses. These containers hold their own frames
FORMATS = "mov,matroska,avi,asf,mpeg,mpegts,mpegvideo,flv,ogg"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
BUFFER_BYTES = 256 << 10
MAX_PIXELS = 40_000_000  # of one frame; 8K has 33 million

# limits for the scenes of one video; when one is reached, the scenes found so far are kept
MAX_FRAMES = 600
MIN_GAP_S = 1.0  # between two kept frames
MAX_DECODE_S = 300.0
MAX_FAULTS = 20  # key frames that cannot be decoded
# mean difference of the thumbnails of two scenes, from 0 to 255. Measured on 400 photographs of Flickr8k: 99 % of pairs
# differ by more than 40. Panning by 10 % of the width changes a photograph by 28 (median), panning by 1 % by 4
MIN_CHANGE = 24.0
THUMBNAIL_PX = 16
BLACK = 10.0  # a thumbnail with this mean or less shows nothing, as at the start of many films

# Most cameras and encoders write a key frame every second or at each new scene, but some only every ten seconds. If key
# frames are more than RARE_S apart, the frames between them are decoded too: up to 3,000 frames of a Full HD video
RARE_S = 3.0
MAX_BETWEEN_PIXELS = 6_000_000_000
MAX_GROUP_BYTES = 64 << 20  # of the packets between two key frames

# for the frame at one second
MAX_SEEK_S = 10.0
TOLERANCE_S = 0.002

MAX_STRETCH = 4  # largest aspect ratio of a pixel, or its inverse, that is believed


def can_read_video() -> bool:
    """Whether the extra `video` is installed. Imports nothing."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True)
class Frame:
    """One frame of a video, upright in RGB."""

    second: float  # from the start, rounded up to milliseconds: a player that seeks there shows this frame
    image: Image.Image


@dataclass
class Video:
    """An opened video."""

    container: Any
    stream: Any
    decoding_error: type[Exception]
    fault: str = ""  # why frames are missing; complete when `scenes` has ended
    max_s: float = MAX_DECODE_S  # reading stops after this time
    _started: float = field(default_factory=time.monotonic)
    _faults: int = 0
    _between_pixels: int = 0  # of the decoded frames between key frames

    @cached_property
    def metadata(self) -> Metadata:
        """The date, place and camera in the tags of the file."""
        return read_video_metadata({**self.stream.metadata, **self.container.metadata})

    @cached_property
    def duration_s(self) -> float | None:
        """The duration that the file claims; None if it claims none."""
        ends = [self.stream.duration and self.stream.duration * self.stream.time_base]
        ends.append(self.container.duration and Fraction(self.container.duration, 1_000_000))
        return next((float(end) for end in ends if end and end > 0), None)

    def scenes(self) -> Iterator[Frame]:
        """The first frame of each scene: at least one and at most `MAX_FRAMES`.

        Errors: `UnreadableImage` if no frame can be decoded.
        """
        with _reasons():
            yield from self._scenes()

    def _scenes(self) -> Iterator[Frame]:
        gap_s = max(MIN_GAP_S, (self.duration_s or 0) / MAX_FRAMES)
        count, kept_s, kept, black = 0, -math.inf, None, None
        for second, frame in self._candidates(gap_s / 2):
            _check_size(frame.width, frame.height)
            thumbnail = _thumbnail(frame)
            if thumbnail.mean() <= BLACK:
                black = black or Frame(second, self._upright(frame))
            elif kept is None or (second - kept_s >= gap_s and np.abs(thumbnail - kept).mean() >= MIN_CHANGE):
                if count == MAX_FRAMES:  # only if the file claims no duration, or one that is too short
                    self.fault = f"only its first {clock(second)} were read"
                    break
                count, kept_s, kept = count + 1, second, thumbnail
                yield Frame(second, self._upright(frame))
        if count == 0:
            if black is None:
                raise UnreadableImage("no frame of this video can be decoded")
            yield black

    def frame_at(self, second: float, seeks: bool, only_key_frames: bool) -> Image.Image | None:
        """The frame at this second; None if these settings do not find it.

        `seeks` starts at the position that the index of the file gives, otherwise at the start of the file.
        `only_key_frames` finds the frame only if it is a key frame, and decodes no frame before it.
        """
        if seeks:
            position = self._start + Fraction(round(1000 * second), 1000)
            self.container.seek(int(position / self.stream.time_base), stream=self.stream)
        packets = (
            packet
            for packet_s, packet in self._packets()
            if not only_key_frames or (packet.is_keyframe and packet_s >= second - TOLERANCE_S)
        )
        for frame_s, frame in self._decoded(dropwhile(lambda packet: not packet.is_keyframe, packets)):
            if frame_s >= second - TOLERANCE_S:
                _check_size(frame.width, frame.height)
                return self._upright(frame) if frame_s <= second + TOLERANCE_S else None
        return None

    @cached_property
    def _start(self) -> Fraction:
        """The time stamp of the start in seconds. Broadcasts do not start at 0, but players show their start as 0."""
        return Fraction(self.container.start_time or 0, 1_000_000)

    def _second(self, timed: Any) -> float | None:
        """The second at which a packet or a frame is shown; None if it has no time stamp."""
        stamp = timed.dts if timed.pts is None else timed.pts
        if stamp is None:
            return None
        from_start: Fraction = stamp * self.stream.time_base - self._start
        return max(0, math.ceil(1000 * from_start)) / 1000

    def _packets(self) -> Iterator[tuple[float, Any]]:
        """All packets with their seconds. If they end early, `fault` gets the reason."""
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
            if packet.size and (second := self._second(packet)) is not None:
                end_s = max(end_s, second)
                yield second, packet
        missing_s = (self.duration_s or 0) - end_s
        if missing_s > 2 and missing_s > 0.1 * (self.duration_s or 0):
            self.fault = self.fault or f"cut off after {clock(end_s)}"

    def _candidates(self, step_s: float) -> Iterator[tuple[float, Any]]:
        """Decoded frames with their seconds, at least `step_s` apart.

        They are key frames. Where key frames are rare, the frames between them are candidates too.
        """
        next_s = 0.0
        for start_s, end_s, group in self._groups():
            are_rare = len(group) > 1 and end_s - start_s > RARE_S
            if are_rare:
                self._between_pixels += len(group) * self.stream.codec_context.width * self.stream.codec_context.height
            elif start_s < next_s:
                continue
            last_s = end_s - step_s if are_rare else math.inf  # a later frame would be too near to the next key frame
            for second, frame in self._decoded(group if are_rare else group[:1]):
                if next_s <= second <= last_s:
                    next_s = second + step_s
                    yield second, frame
            if self._faults >= MAX_FAULTS:
                return

    def _groups(self) -> Iterator[tuple[float, float, list[Any]]]:
        """The packets from each key frame to the next one, with the seconds of both key frames.

        The last group ends with the last packet. Packets above the limits are left out.
        """
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
        """The frames of packets, with their seconds; the first packet must be a key frame.

        Decoding stops at damage, which `fault` and `_faults` record.
        """
        decoder, last_s = self.stream.codec_context, 0.0
        try:
            for packet in chain(packets, [None]):  # None makes the decoder return the frames that it still holds
                for frame in decoder.decode(packet):
                    if (second := self._second(frame)) is not None:
                        last_s = second
                        yield second, frame
        except self.decoding_error:
            self.fault = self.fault or f"damaged after {clock(last_s)}"
            self._faults += 1
        finally:
            decoder.flush_buffers()

    def _upright(self, frame: Any) -> Image.Image:
        """A decoded frame in RGB, rotated and with square pixels, as players show it."""
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
            stream.codec_context.thread_count = 1  # the other cores decode other files
        yield Video(container, stream, av.FFmpegError)


def frame_at(path: str, second: float) -> Image.Image:
    """The frame of a video at this second, upright in RGB. Errors: `UnreadableImage` with the reason."""
    # the index of a file may be missing or wrong: then read the file from its start, first for a key frame
    for seeks, only_key_frames in ((True, False), (False, True), (False, False)):
        with contextlib.suppress(UnreadableImage) if seeks else contextlib.nullcontext():
            with open_video(path) as video, _reasons():
                video.max_s = MAX_SEEK_S
                image = video.frame_at(second, seeks, only_key_frames)
            if image is not None:
                return image
    raise UnreadableImage(f"the video has no frame at {clock(second)} any more")


def _thumbnail(frame: Any) -> np.ndarray:
    """A small copy of a decoded frame, to compare scenes: (16, 16, 3) float32 from 0 to 255."""
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
    except Exception as error:  # FFmpeg raises many types, which all mean the same to a user
        # EINVAL comes from a seek outside the file, so the file is damaged and not the disk
        is_from_disk = isinstance(error, OSError) and error.errno != errno.EINVAL
        if is_from_disk and not isinstance(error, av.FFmpegError):
            raise UnreadableImage(f"cannot be read ({getattr(error, 'strerror', error)})", retryable=True) from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(f"a damaged video, or not in a known format ({reason})") from error
