"""Files from strangers: nothing outside the given folder, nothing that is no plain file, nothing beyond a size."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..json_text import MAX_TEXT
from ..track import MAX_FRAMES, show

#: Largest text file that is read, in bytes; a text of MAX_TEXT characters has at most four bytes each.
MAX_TEXT_BYTES = 4 * MAX_TEXT


def frame_files(folder: Path, suffix: str) -> list[Path]:
    """The files NUMBER.suffix of a folder in the order of their numbers, which ascend one by one.

    Raises ValueError, a sentence, for no such file, another name with this suffix, a gap, and more than MAX_FRAMES.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder.name} is no folder; give the folder with one {suffix} file per frame.")
    numbered: dict[int, Path] = {}
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise ValueError(f"The folder {folder.name} cannot be read ({error.strerror}); check its rights.") from None
    for name in names:
        if not name.lower().endswith(suffix):
            continue
        number = re.fullmatch(r"([0-9]{1,9})\.[a-z]+", name.lower())
        if number is None or int(number[1]) in numbered:
            raise ValueError(
                f"{folder.name} has the file {show(name)}; name each after its frame, such as 00012{suffix}, and give "
                "each frame one."
            )
        numbered[int(number[1])] = folder / name
    if len(numbered) > MAX_FRAMES:
        raise ValueError(f"{folder.name} has {len(numbered)} {suffix} files; at most {MAX_FRAMES} are read.")
    if not numbered:
        raise ValueError(
            f"{folder.name} has no {suffix} files; give a folder with one per frame, such as 00000{suffix}."
        )
    first = min(numbered)
    for n in range(first, first + len(numbered)):
        if n not in numbered:
            raise ValueError(
                f"{folder.name} has {len(numbered)} {suffix} files from frame {first} on, but none of frame {n}; give "
                "one per frame, without gaps."
            )
    return [numbered[n] for n in range(first, first + len(numbered))]


def inside(folder: Path, name: object) -> Path:
    """The file of that relative path in a folder. Raises ValueError for a path that leads anywhere else."""
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable() or re.search(r"[\\:]", name):
        raise ValueError(f"The file name {show(name)} is no path inside {folder.name}; write it as folder/file.")
    file = folder / name
    if Path(name).is_absolute() or not _resolve(file).is_relative_to(_resolve(folder)):
        raise ValueError(f"The file {show(Path(name).name)} lies outside {folder.name}; only files inside it are read.")
    return file


def check_file(file: Path, limit: int) -> Path:
    """`file` itself. Raises ValueError unless it is a plain file, no link, of at most `limit` bytes."""
    where = f"{file.parent.name}/{file.name}"
    try:
        found = file.lstat()
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{where} cannot be read ({what}); check the name.") from None
    if not stat.S_ISREG(found.st_mode):  # a link may lead anywhere, a pipe would be waited for
        raise ValueError(f"{where} is no plain file; put the file itself there, no link and no folder.")
    if found.st_size > limit:
        raise ValueError(f"{where} has {found.st_size} bytes; at most {limit} are read.")
    return file


def _resolve(path: Path) -> Path:
    """The path without links. Raises ValueError for links in a circle and names that no file can have."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise ValueError(f"The path {show(path.name)} leads nowhere; name a file or folder that exists.") from None


def read_text(file: Path) -> str:
    """The text of a UTF-8 file of at most MAX_TEXT_BYTES. Raises ValueError, a sentence."""
    try:
        return check_file(file, MAX_TEXT_BYTES).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else error.reason
        raise ValueError(f"{file.parent.name}/{file.name} is no readable UTF-8 text ({what}); save it again.") from None


def new_folder(folder: Path | None) -> Path:
    """Makes the folder. Raises ValueError where there is one already: what is in it may be somebody's work."""
    if not isinstance(folder, Path):
        raise ValueError(f"The folder is {show(folder)}; name a new folder to write to.")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"{folder.name} exists already; name a new folder, so that nothing is overwritten.") from None
    except OSError as error:
        raise ValueError(f"The folder {folder.name} cannot be made ({error.strerror}); name another one.") from None
    return folder
