"""Compare the files of a folder with the rows of its index: what is new, changed, unchanged and gone.

In: what `miniclip.index.scan` found, and a writer. Out: a `Plan`. Files are compared, not rows: a video has a row for
each of its frames, and is unchanged only if all of them are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from miniclip.data.moments import file_of, second_of
from miniclip.index.embed_file import KnownContents, frame_sha256
from miniclip.index.scan_result import ImageFile, Problem, ScanResult
from miniclip.index.store import Writer

State = tuple[int, int, tuple[str, ...]]  # size, time and captions
MIXED: State = (-1, -1, ())  # an update of the video was interrupted between two commits


@dataclass
class Plan:
    """The work to do, from comparing files with the index."""

    fresh: list[ImageFile] = field(default_factory=list)
    kept: int = 0  # rows
    kept_paths: list[str] = field(default_factory=list)  # rows whose file exists
    gone: list[str] = field(default_factory=list)  # rows
    known_paths: set[str] = field(default_factory=set)  # files that have rows
    frames_of: dict[str, list[str]] = field(default_factory=dict)  # the rows of each video
    known: KnownContents = field(default_factory=KnownContents)
    problems: dict[str, Problem] = field(default_factory=dict)  # problems that still exist, by path
    settled: list[str] = field(default_factory=list)  # paths whose problem is solved, or is checked again

    def row_paths(self, files: Iterable[str]) -> list[str]:
        """The rows that the index has of these files."""
        return [path for file in files if file in self.known_paths for path in self.frames_of.get(file, [file])]


def compare(found: ScanResult, writer: Writer, problems: Sequence[Problem]) -> Plan:
    """Compare files with rows: new, changed and gone ones, and unchanged files that hold no image."""
    known = writer.known()
    plan = Plan()
    states: dict[str, State] = {}
    offset_of: dict[bytes, int] = {}
    frames: dict[str, list[tuple[float, int, bytes]]] = {}  # of each video: second, offset and hash
    columns = [known[name].to_pylist() for name in ("path", "sha256", "bytes", "mtime_ns", "captions")]
    for offset, (path, sha256, size, mtime_ns, captions) in enumerate(zip(*columns, strict=True)):
        name, state = file_of(path), (size, mtime_ns, tuple(captions))
        if states.setdefault(name, state) != state:
            states[name] = MIXED
        if (second := second_of(path)) is None:
            offset_of.setdefault(sha256, offset)
        else:
            plan.frames_of.setdefault(name, []).append(path)
            frames.setdefault(name, []).append((second, offset, sha256))
    plan.known_paths = set(states)
    plan.known = KnownContents(offset_of, _known_videos(frames.values()))
    known_problems = {problem.path: problem for problem in problems}
    gone = []
    for path, file in found.files.items():
        state = states.get(path, MIXED)
        if found.captions_unknown:
            file = replace(file, captions=state[2])
        problem = known_problems.get(path)
        if state == (*file.state, file.captions):
            rows = plan.row_paths([path])
            plan.kept += len(rows)
            plan.kept_paths += rows
        elif problem and (problem.bytes, problem.mtime_ns) == file.state and not problem.retryable:
            plan.problems[path] = known_problems.pop(path)
            if path in states:  # a kill between the commits of the problem and of the removed row
                gone.append(path)
        else:
            plan.fresh.append(file)
    for path in states.keys() - found.files.keys():
        if found.hides(path):
            plan.kept += len(plan.row_paths([path]))
        else:
            gone.append(path)
    plan.gone = plan.row_paths(gone)
    plan.settled = [path for path in known_problems if not found.hides(path)]
    return plan


def _known_videos(videos: Iterable[list[tuple[float, int, bytes]]]) -> dict[bytes, list[tuple[float, int]]]:
    """Seconds and offsets of each video's frames, by its hash; only of videos whose frames are all of one content."""
    known = {}
    for frames in map(sorted, videos):
        sha256 = frames[0][2]
        if all(own == frame_sha256(sha256, number, second) for number, (second, _, own) in enumerate(frames)):
            known[sha256] = [(second, offset) for second, offset, _ in frames]
    return known
