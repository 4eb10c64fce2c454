"""Frames of videos: one for each scene, upright, found again at its second. Damaged and hostile files have a reason."""

import errno
import io
import os
import random
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniclip.data import video
from miniclip.data.images import open_image, read_header
from miniclip.data.moments import moment
from miniclip.data.video import frame_at, open_video
from miniclip.data.video_metadata import read_video_metadata
from miniclip.errors import MiniClipError, is_retryable
from tests.support.videos import (
    BLACK,
    BLUE,
    CODECS,
    GREEN,
    RED,
    SIZE,
    claim_hours,
    cut_off,
    turn_right,
    without_frames,
    write_sound,
    write_video,
)

pytest.importorskip("av", reason="the extra video is not installed")
NEAR = 12  # of 255: compression changes colours


def is_near(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    middle = image.getpixel((image.width // 2, image.height // 2))
    return bool(np.abs(np.array(middle) - colour).max() <= NEAR)


def scenes(path: Path) -> tuple[list[float], list[Image.Image], str]:
    with open_video(str(path)) as opened:
        frames = list(opened.scenes())
        return [frame.second for frame in frames], [frame.image for frame in frames], opened.fault


@pytest.mark.parametrize("suffix", CODECS)
def test_each_scene_gives_one_frame_that_is_found_again(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a{suffix}")
    seconds, images, fault = scenes(path)
    assert seconds == pytest.approx([0, 3, 6], abs=0.1) and fault == ""
    for second, image, colour in zip(seconds, images, (RED, GREEN, BLUE), strict=True):
        assert image.size == SIZE and is_near(image, colour)
        assert np.array_equal(np.asarray(open_image(Path(moment(str(path), second)))), np.asarray(image))


NO_SCENE_CUTS = {"x264-params": "scenecut=0:bframes=2"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_scenes_between_rare_key_frames_are_found(name: str, tmp_path: Path) -> None:
    colours = [RED, GREEN, BLUE, RED, GREEN]
    path = write_video(
        tmp_path / name, [(colour, 2) for colour in colours], key_frame_s=100, codec_options=NO_SCENE_CUTS
    )
    seconds, images, fault = scenes(path)
    assert seconds == pytest.approx([0, 2, 4, 6, 8], abs=0.7) and fault == ""
    for second, image, colour in zip(seconds, images, colours, strict=True):
        assert is_near(image, colour)
        assert np.array_equal(np.asarray(frame_at(str(path), second)), np.asarray(image))


def test_only_so_many_frames_between_key_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_BETWEEN_PIXELS", 1)
    path = write_video(
        tmp_path / "a.mp4", [(RED, 5), (GREEN, 3), (BLUE, 7)], key_frame_s=5, codec_options=NO_SCENE_CUTS
    )
    seconds, _, _ = scenes(path)
    assert seconds == [0, 5, 10]  # key frames only, after the first group


def test_a_frame_stands_as_the_phone_was_held(tmp_path: Path) -> None:
    _, (first, *_), _ = scenes(turn_right(write_video(tmp_path / "a.mp4")))
    assert first.size == (SIZE[1], SIZE[0])
    assert min(first.getpixel((first.width - 3, 3))) > 240  # the white corner went from left to right


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    _, (first, *_), _ = scenes(write_video(tmp_path / "a.mp4", pixel_ratio=Fraction(4, 3)))
    assert first.size == (128, 64)


def test_black_frames_count_only_if_there_is_nothing_else(tmp_path: Path) -> None:
    seconds, _, _ = scenes(write_video(tmp_path / "a.mp4", [(BLACK, 2), (RED, 2), (BLACK, 2)]))
    assert seconds == [2]
    seconds, _, _ = scenes(write_video(tmp_path / "b.mp4", [(BLACK, 2)]))
    assert seconds == [0]


def test_frames_are_few_and_spread_over_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_FRAMES", 2)
    path = write_video(tmp_path / "a.mp4", [(RED, 3), (BLUE, 3), (GREEN, 3), (RED, 3)])
    seconds, images, fault = scenes(path)
    assert seconds == [0, 6] and is_near(images[1], GREEN) and fault == ""


def test_a_video_that_does_not_say_how_long_it_is_ends_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_FRAMES", 3)
    monkeypatch.setattr(video.Video, "duration_s", None)
    seconds, _, fault = scenes(write_video(tmp_path / "a.webm", [(RED, 1), (BLUE, 1)] * 6))
    assert seconds == [0, 1, 2] and fault == "only its first 0:03 were read"


def test_reading_ends_when_its_time_is_up(tmp_path: Path) -> None:
    with open_video(str(write_video(tmp_path / "a.mp4"))) as opened:
        frames = opened.scenes()
        assert next(frames).second == 0
        opened.max_s = -1.0
        assert list(frames) == [] and opened.fault == "only its first 0:01 were read"


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 0.7), ("a.webm", 0.7), ("a.mkv", 0.4)])
def test_a_video_that_is_cut_off_keeps_what_comes_before(name: str, share: float, tmp_path: Path) -> None:
    path = cut_off(write_video(tmp_path / name, options={"movflags": "faststart"} if name == "a.mp4" else None), share)
    seconds, images, fault = scenes(path)
    assert seconds[0] == 0 and len(seconds) < 3 and is_near(images[0], RED)
    assert fault.startswith(("cut off after 0:0", "damaged after 0:0"))


def test_damage_in_the_middle_keeps_the_frames_around_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 60 : middle + 60] = bytes(120)
    path.write_bytes(content)
    seconds, images, _ = scenes(path)
    assert seconds[0] == 0 and is_near(images[0], RED)


def test_a_header_that_claims_ten_hours_costs_nothing(tmp_path: Path) -> None:
    seconds, _, fault = scenes(claim_hours(write_video(tmp_path / "a.webm"), 10))
    assert seconds == [0] and fault == "cut off after 0:08"


def playlist(path: Path) -> Path:
    """FFmpeg would read the file that it names."""
    other = write_video(path.parent / "other.mp4")
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n")
    return path


def list_of_files(path: Path) -> Path:
    other = write_video(path.parent / "other.mp4")
    path.write_text(f"ffconcat version 1.0\nfile {other}\n")
    return path


def text(path: Path) -> Path:
    path.write_text("no video\n" * 500)
    return path


def image(path: Path) -> Path:
    Image.new("RGB", (64, 64), RED).save(path, "PNG")
    return path


def nothing(path: Path) -> Path:
    path.touch()
    return path


def half(path: Path) -> Path:
    return cut_off(write_video(path), 0.5)


@pytest.mark.parametrize(
    ("write", "name", "reason"),
    [
        (playlist, "a.mp4", "a damaged video, or not in a known format"),
        (list_of_files, "a.mp4", "a damaged video, or not in a known format"),
        (text, "a.mp4", "a damaged video, or not in a known format"),
        (image, "a.mp4", "a damaged video, or not in a known format"),
        (nothing, "a.mp4", "a damaged video, or not in a known format"),
        (half, "a.mp4", "a damaged video, or not in a known format"),  # its index is at its end
        (write_sound, "a.mp4", "a video file without video"),
        (without_frames, "a.webm", "a damaged video, or not in a known format"),
        (without_frames, "a.avi", "no frame of this video can be decoded"),
    ],
)
def test_other_files_have_a_reason_and_are_not_tried_again(
    write: object, name: str, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(MiniClipError, match=reason) as refused:
        scenes(path)
    assert not is_retryable(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", CODECS)
def test_damaged_files_give_frames_or_a_reason(suffix: str, tmp_path: Path) -> None:
    whole, chance = write_video(tmp_path / f"whole{suffix}").read_bytes(), random.Random(7)
    for _ in range(25):
        content = bytearray(whole)
        for place in chance.sample(range(len(content)), chance.choice((1, 5, 50))):
            content[place] = chance.randrange(256)
        (tmp_path / f"a{suffix}").write_bytes(content)
        try:
            seconds, images, _ = scenes(tmp_path / f"a{suffix}")
        except MiniClipError:
            continue
        assert seconds == sorted(seconds) and {image.mode for image in images} == {"RGB"}


def test_frames_that_are_too_large_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(MiniClipError, match="pixels per frame"):
        scenes(write_video(tmp_path / "a.mp4"))


def test_a_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file is read again by the next update."""
    path = write_video(tmp_path / "a.webm", [(RED, 3), (BLUE, 3)] * 10)

    class FailingFile(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 4096:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size) or b""

    monkeypatch.setattr(video, "open", lambda path, mode: FailingFile(path), raising=False)
    monkeypatch.setattr(video, "BUFFER_BYTES", 1024)
    with pytest.raises(MiniClipError, match="cannot be read") as refused:
        scenes(path)
    assert is_retryable(refused.value)


def test_a_moment_that_is_gone_has_a_reason(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [(RED, 2)])
    with pytest.raises(MiniClipError, match="no frame at 0:05 any more"):
        frame_at(str(path), 5)
    path.unlink()
    with pytest.raises(MiniClipError, match="no such file"):
        open_image(Path(moment(str(path), 0)))


def test_a_video_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match="a video, not an image"):
        open_image(write_video(tmp_path / "a.mp4", [(RED, 1)]))


def test_metadata_is_that_of_phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    tags = {
        "creation_time": "2024-05-01T10:00:00.000000Z",
        "com.apple.quicktime.creationdate": "2024-05-01T12:00:00+0200",
        "com.apple.quicktime.location.ISO6709": "+48.2082-016.3738+120.5/",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 15",
    }
    found = read_video_metadata(tags)
    assert (found.taken, found.camera, found.file_type) == (datetime(2024, 5, 1, 12), "Apple iPhone 15", "video")
    assert (found.latitude, found.longitude) == (48.2082, -16.3738)
    for wrong in ("1904-01-01T00:00:00Z", "yesterday", "", "2024-13-01T00:00:00Z"):
        assert read_video_metadata({"creation_time": wrong, "location": wrong}).taken is None
    path = write_video(tmp_path / "a.mp4", [(RED, 1)], metadata={"creation_time": "2024-05-01T10:00:00Z"})
    read = read_header(Path(moment(str(path), 0)))
    assert read.taken is not None and abs(read.taken - datetime(2024, 5, 1, 10)).total_seconds() < 15 * 3600
