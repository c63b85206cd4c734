"""Checksums of a data set's files, which Minari's format lacks: beside the data sets that this package stores."""

import zlib
from pathlib import Path

from budget_wrappers.errors import BudgetError, DatasetError
from budget_wrappers.files import read_text, sealed, unsealed, write_text

FILE_NAME = "checksums.json"
"""Beside the folder ``data``, which is Minari's own."""
CHUNK = 1 << 20


def checksums_in(data: Path) -> dict[str, int]:
    """Return the CRC-32 of each file in a folder, by name."""
    found = {}
    for path in sorted(path for path in data.iterdir() if path.is_file()):
        found[path.name] = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                found[path.name] = zlib.crc32(chunk, found[path.name])
    return found


def write_checksums(data: Path) -> None:
    """Write the checksums of the files in a data set's folder ``data`` beside it."""
    write_text(data.parent / FILE_NAME, sealed({"files": checksums_in(data)}))


def require_checksums(data: Path) -> None:
    """Raise unless the files in a data set's folder ``data`` are those that were written, where that was noted.

    Raises:
        DatasetError: a file that was changed or damaged; data sets of other programs have no checksums.
    """
    path = data.parent / FILE_NAME
    if not path.exists() and not path.is_symlink():
        return
    try:
        stored, found = unsealed(read_text(path)), {"files": checksums_in(data)}
    except (OSError, ValueError, BudgetError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): expected checksums; take another copy") from error
    if stored != found:
        raise DatasetError(
            f"the data set in {data} cannot be read (its files have the checksums {found['files']}): expected "
            f"{stored.get('files')}, as when it was stored; it was truncated or damaged, take another copy. If you "
            f"have changed it on purpose, delete {path}"
        )
