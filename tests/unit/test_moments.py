"""Paths of moments: only a file with a video's suffix has them, and both parts come back."""

import pytest

from miniclip.data.moments import clock, file_of, moment, readable, second_of


@pytest.mark.parametrize(
    ("second", "fragment"),
    [(0, "#t=0"), (12.5, "#t=12.5"), (3.04, "#t=3.04"), (100, "#t=100"), (35999.999, "#t=35999.999")],
)
def test_a_moment_has_its_file_and_its_second(second: float, fragment: str) -> None:
    path = moment("clips/a #t=9 party.MP4", second)
    assert path == f"clips/a #t=9 party.MP4{fragment}"
    assert (file_of(path), second_of(path)) == ("clips/a #t=9 party.MP4", second)


@pytest.mark.parametrize(
    "path",
    [
        "photo.jpg",
        "photo.jpg#t=1",  # only videos have moments
        "party.mp4",
        "party.mp4#t=",
        "party.mp4#t=1.jpg",
        "party.mp4#t=1/cat.jpg",
        "party.mp4#t=-1",
        "party.mp4#t=1e3",
        "party.mp4#t=1.2345",
        "party.mp4#t=1234567890",
        "party.mp4#t=\u0663",  # a digit, but not of ASCII
        "party.mp4#t=1\n",
        "#t=1",
        "",
    ],
)
def test_other_paths_are_files(path: str) -> None:
    assert (file_of(path), second_of(path)) == (path, None)


def test_times_are_written_as_players_show_them() -> None:
    assert [clock(second) for second in (0, 12.5, 59.999, 61, 3725)] == ["0:00", "0:12", "0:59", "1:01", "1:02:05"]
    assert readable("clips/party.mp4#t=12.5") == "clips/party.mp4 at 0:12"
    assert readable("clips/cat.jpg") == "clips/cat.jpg"
