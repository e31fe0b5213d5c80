"""What the importers share."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

#: Endings of videos.
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v")

#: Longest file of captions or words that is read, in bytes.
MAX_TEXT = 100_000


def named(relative: str | PurePosixPath | Path) -> str:
    """The name below the manifest's root of a video with that path below the source's."""
    return f"videos/{PurePosixPath(*Path(relative).parts)}"


def relative(value: str, where: str) -> str:
    """A path out of a list. Raises ValueError for one that leaves the list's root."""
    windows = PureWindowsPath(value)
    if not value.strip() or PurePosixPath(value).is_absolute() or windows.drive or windows.root:
        raise ValueError(f"{where}: the path {value!r} is not below the root; write it relative to it, or set root.")
    if ".." in windows.parts or "\0" in value:
        raise ValueError(f"{where}: the path {value!r} leaves the root; write it without '..', or set root.")
    return value


def text_beside(video: Path, ending: str) -> str:
    """The text of NAME + ending beside NAME.mp4, in one line; "" where there is none."""
    file = video.with_suffix(ending)
    if not file.is_file():
        return ""
    try:
        return " ".join(file.read_text(encoding="utf-8")[:MAX_TEXT].split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is no UTF-8 text ({error.reason}); save it again.") from error
