"""Files of this package: written whole or not at all, opened without following links, JSON with a checksum.

Every file that is saved goes through ``replacing``. Files that lie in a folder which somebody else may have made (a run
folder, a study's folder) are opened by ``read_text``, ``read_bytes`` and ``appending``, at paths from ``inside``.
"""

import dataclasses
import json
import os
import re
import secrets
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args, get_origin

from budget_wrappers.errors import CheckpointError

PARTIAL = ".partial"
"""Suffix of files that are being written; what a killed process left under such a name is not a file of anything."""

CHECKSUM = "crc32"
"""Key of a JSON object's checksum."""

# Windows has neither; a link is then noticed by lstat alone. A pipe that is opened without O_NONBLOCK waits for ever.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


# ---- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a new file's path in the same folder; on success it takes ``path``'s place, durably, else it is removed.

    The file's mode is what the umask gives new files. A link at ``path`` is replaced, not written through.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer. 200 characters of the file's name, as most systems take 255 in all.
    partial = path.with_name(f"{path.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_LINKS, 0o666)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield partial
        # safetensors replaces the file by one that its owner alone may read.
        os.chmod(partial, mode)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the operating system write ``path`` (a file or a folder) to the disk."""
    # Windows cannot open folders, and keeps renames without it.
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all, UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partials(folder: Path, former: Iterable[str] = ()) -> None:
    """Remove the files that killed processes were writing in ``folder``; only for a folder's one writer.

    Files of other names, which end alike, are somebody's own and stay; so do folders and links.

    Args:
        folder: of files that ``replacing`` writes.
        former: files of the folder. Earlier versions wrote them under ``<name>.partial`` and ``<name>.<pid>.partial``.
    """
    kinds = [r".+\.\d+\.[0-9a-f]{8}", *(rf"{re.escape(name)}(\.\d+)?" for name in former)]
    ours = re.compile(f"({'|'.join(kinds)}){re.escape(PARTIAL)}", re.DOTALL)
    for left_over in folder.glob(f"*{PARTIAL}"):
        if ours.fullmatch(left_over.name) and stat.S_ISREG(left_over.lstat().st_mode):
            left_over.unlink(missing_ok=True)


# ---- folders that somebody else may have made -----------------------------------------------------------------------


def inside(folder: str | Path, *names: str) -> Path:
    """Return the path of ``names`` below ``folder``, none of which is a symbolic link; the last need not exist.

    The folder itself may be a link: the user has named it.

    Raises:
        CheckpointError: one of the names is a link, or leads out of the folder.
    """
    path = Path(folder)
    for name in names:
        for part in Path(name).parts:
            path = path / part
            if part == os.pardir or Path(part).is_absolute():
                raise CheckpointError(f"{name!r} leads out of {folder}: expected a name below it; take another copy")
            if path.is_symlink():
                raise linked(path)
    return path


def linked(path: Path) -> CheckpointError:
    """Return the error for a link where a file or folder belongs."""
    return CheckpointError(
        f"{path} is a link: expected the file or folder itself, as a run's folder is neither read nor written through "
        "links; put a copy of the file there if you trust the link"
    )


def opened(path: Path, flags: int) -> int:
    """Return the descriptor of a regular file that is not a symbolic link.

    Raises:
        CheckpointError: a link, a folder, a pipe or a device.
        OSError: it cannot be opened.
    """
    if path.is_symlink():
        raise linked(path)
    try:
        descriptor = os.open(path, flags | _NO_LINKS, 0o666)
    except IsADirectoryError as error:
        raise not_a_file(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise not_a_file(path)
    return descriptor


def not_a_file(path: Path) -> CheckpointError:
    """Return the error for a folder, a pipe or a device where a file belongs."""
    return CheckpointError(f"{path} is a folder, a pipe or a device: expected a regular file; take another copy")


def opened_to_read(path: Path) -> BinaryIO:
    """Return a regular file, opened to read; raises as ``opened`` does."""
    return os.fdopen(opened(path, os.O_RDONLY), "rb")


def read_bytes(path: Path) -> bytes:
    """Return what a regular file holds; raises as ``opened`` does."""
    with opened_to_read(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return what a regular file holds as UTF-8; raises as ``opened`` does, and ``UnicodeDecodeError``."""
    return read_bytes(path).decode("utf-8")


def appending(path: Path) -> BinaryIO:
    """Return a regular file opened to append to and to cut; it is made where it is not there.

    Raises:
        CheckpointError: a symbolic link, or a file that has another name elsewhere (a hard link), which would be
            written through; a folder, a pipe or a device.
        OSError: it cannot be opened.
    """
    descriptor = opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise linked(path)
    return os.fdopen(descriptor, "ab")


# ---- JSON -----------------------------------------------------------------------------------------------------------


def json_of(text: str) -> Any:
    """Return what JSON text holds.

    Raises:
        ValueError: it is not JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def checksum_of(data: Mapping[str, Any]) -> int:
    """Return the CRC-32 of plain data, which is the same however its JSON is laid out."""
    plain = json.loads(json.dumps({key: value for key, value in data.items() if key != CHECKSUM}))
    return zlib.crc32(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def sealed(data: Mapping[str, Any]) -> str:
    """Return ``data`` as JSON text with its checksum under ``"crc32"``; ``unsealed`` takes it back.

    Raises:
        ValueError: NaN or infinity.
    """
    return json.dumps({**data, CHECKSUM: checksum_of(data)}, indent=1, allow_nan=False) + "\n"


def unsealed(text: str) -> dict[str, Any]:
    """Return the object that ``sealed`` wrote, without its checksum.

    An object without a checksum is returned as it is: versions before this one wrote none. A caller who refuses
    unknown keys notices a checksum whose key was damaged.

    Raises:
        ValueError: text that is not JSON, not an object, or that has another checksum than it says.
    """
    data = json_of(text)
    if not isinstance(data, dict):
        raise ValueError(f"a {type(data).__name__} where an object belongs")
    if CHECKSUM in data:
        stored, found = data.pop(CHECKSUM), checksum_of(data)
        if type(stored) is not int or stored != found:
            raise ValueError(f"it has the checksum {found}, and says {stored!r}: it was changed or damaged")
    return data


def is_number(value: Any, largest: float = sys.float_info.max) -> bool:
    """Tell whether a value of JSON is a number whose size is at most ``largest``: neither a truth, NaN nor infinity.

    JSON has whole numbers of any size; one above the range of floats is none that can be computed with.
    """
    # A comparison of a whole number and a float is exact. math.isfinite would convert it, which raises OverflowError.
    return type(value) in (int, float) and -largest <= value <= largest


def is_text(value: Any) -> bool:
    """Tell whether ``value`` is a text that UTF-8 can hold.

    JSON's escapes, and words of a command line that are no UTF-8, become texts with lone surrogates, which no page, no
    picture and no other file can be written with.
    """
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False


def require_types(cls: type, data: Any) -> None:
    """Raise unless plain data hold each field of a dataclass, in the type that it is annotated with, and nothing else.

    Args:
        cls: a dataclass of numbers, texts, truths, ``None``, literals, texts by name and other such dataclasses.
        data: of JSON.

    Raises:
        ValueError: a field that is missing, unknown, of another type, or not finite.
    """
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    if not isinstance(data, dict) or data.keys() != fields.keys():
        names = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{cls.__name__} has the fields {', '.join(fields)}, found {names}")
    for name, kind in fields.items():
        if dataclasses.is_dataclass(kind):
            require_types(kind, data[name])
        elif not _is_a(data[name], kind):
            raise ValueError(f"{name} is {str(data[name])[:100]!r}, expected {getattr(kind, '__name__', kind)}")


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if get_args(kind):
        return any(_is_a(value, one) for one in get_args(kind))
    if kind is float:
        return is_number(value)
    return value is None if kind is type(None) else type(value) is kind


__all__ = [
    "appending",
    "checksum_of",
    "inside",
    "is_number",
    "is_text",
    "json_of",
    "linked",
    "opened_to_read",
    "read_bytes",
    "read_text",
    "remove_partials",
    "replacing",
    "require_types",
    "sealed",
    "unsealed",
    "write_text",
]
