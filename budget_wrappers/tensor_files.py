"""Safetensors files with a checksum of every tensor and of the header: what is read is what was written, or refused.

The header is JSON in the file's metadata, under a key that names the kind of file. It runs no code when it is read.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from budget_wrappers.errors import CheckpointError
from budget_wrappers.files import CHECKSUM, not_a_file, replacing

REMEDY = "the file was damaged, take another copy"


def write_tensors(path: Path, key: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` and ``header`` to ``path``, whole or not at all, with their checksums.

    Args:
        path: of the file.
        key: of the header in the file's metadata.
        header: JSON-able; ``"crc32"`` is added to it.
        tensors: contiguous, on the CPU, none of which share memory.

    Raises:
        TypeError: a header that is not plain data.
        OSError, SafetensorError: the file cannot be written.
    """
    checksums = {name: checksum(tensor) for name, tensor in tensors.items()}
    metadata = metadata_of(key, {**header, CHECKSUM: checksums})
    with replacing(path) as partial:
        save_file(dict(tensors), partial, metadata=metadata)


def metadata_of(key: str, header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that hold ``header``; raises ``TypeError`` for what is not plain data."""
    text = json.dumps(header)
    return {"format": "pt", key: text, f"{key}_{CHECKSUM}": str(zlib.crc32(text.encode()))}


def checksum(tensor: Tensor) -> int:
    """Return the CRC-32 of a contiguous CPU tensor's type, shape and bytes."""
    start = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), start) if tensor.numel() else start


def require_regular(path: str | Path) -> None:
    """Raise ``CheckpointError`` for a pipe, a device or a folder, which would be waited for without end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise not_a_file(Path(path))


def read_metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's metadata, as they are.

    Raises:
        CheckpointError: a file that cannot be read, or is not a whole safetensors file.
    """
    require_regular(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise not_whole(path, error) from error


def read_tensors(path: Path, checksums: Mapping[str, Any], wanted: Any = lambda name: True) -> dict[str, Tensor]:
    """Return the tensors of a file, those whose name is ``wanted``.

    Args:
        path: of the file.
        checksums: of each tensor, as the file's header has them.
        wanted: called with each name; the others are not read.

    Raises:
        CheckpointError: a file that is not whole, other tensors than those with a checksum, or one with another.
    """
    require_regular(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            _require_entries(path, set(names), set(checksums))
            content = {name: file.get_tensor(name) for name in names if wanted(name)}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise not_whole(path, error) from error
    for name, tensor in content.items():
        if checksum(tensor) != checksums[name]:
            raise CheckpointError(
                f"{path}: the entry {name!r} has the checksum {checksum(tensor)}: expected {checksums[name]}; {REMEDY}"
            )
    return content


def header_text(path: Path, key: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the header under ``key``, as it was written.

    Raises:
        CheckpointError: its checksum is missing or another one, or it is not a JSON object.
    """
    text, stored = metadata[key], metadata.get(f"{key}_{CHECKSUM}")
    if stored != str(zlib.crc32(text.encode())):
        raise CheckpointError(
            f"{path}: the header has the checksum {zlib.crc32(text.encode())}: expected {stored}; {REMEDY}"
        )
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError(f"a {type(header).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the header is not a JSON object ({error!r}): expected a file that `save` wrote; it was damaged, "
            "take another copy"
        ) from error
    return header


def _require_entries(path: Path, found: set[str], listed: set[str]) -> None:
    """Raise unless the tensors of a file are those that its header lists."""
    for what, names in (("lacks", listed - found), ("has the unlisted", found - listed)):
        if names:
            raise CheckpointError(
                f"{path} {what} {', '.join(sorted(map(str, names))[:3])}: expected the tensors that its header lists; "
                f"{REMEDY}"
            )


def not_whole(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a file that safetensors cannot read."""
    size = f"{path.stat().st_size} bytes" if path.is_file() else "not a file"
    return CheckpointError(
        f"{path} ({size}) is no whole safetensors file ({error}): expected a file as `save` writes it; it was "
        "truncated or damaged on its way, take another copy"
    )


__all__ = [
    "checksum",
    "header_text",
    "metadata_of",
    "not_whole",
    "read_metadata",
    "read_tensors",
    "write_tensors",
]
