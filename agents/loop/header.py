"""The header of a checkpoint: JSON in the metadata of a safetensors file, with a checksum of its own beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budget_wrappers import tensor_files
from budget_wrappers.errors import CheckpointError

FORMAT = 2
"""Format 1 had no checksum of the header."""

TEXT, CHECKSUM = "budget_wrappers", "budget_wrappers_crc32"
COUNTERS = ("num_timesteps", "num_rounds", "num_updates", "num_episodes")
MAPPINGS: dict[str, tuple[str, ...]] = {
    "config": (),
    "spaces": ("observation", "action"),
    "counters": COUNTERS,
    "rng": (),
    "meter": (),
    "optimizers": (),
    "plain": (),
    "versions": (),
    "extra": (),
    "crc32": (),
}
"""Keys that hold mappings, with the keys that each of those has."""

OPTIONAL = ("methods", "structure")
"""Keys that hold mappings where an agent has methods or layers of other sizes than it was made with."""

PLAIN = ("agent", "replay")
"""Keys that hold a single value."""


def metadata_of(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that hold ``header``; raises ``TypeError`` for what is not plain data."""
    return tensor_files.metadata_of(TEXT, header)


def header_of(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the header that ``metadata_of`` wrote, complete and as it was.

    Raises:
        CheckpointError: the metadata of another kind of file or format, damaged ones, or some that lack a key.
    """
    metadata = dict(metadata or {})
    text, stored = metadata.get(TEXT), metadata.get(CHECKSUM)
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file with the metadata {metadata}: expected one that an agent's "
            "`save` wrote; to use its tensors, load them with safetensors.torch.load_file"
        )
    if stored is None:
        raise CheckpointError(
            f"{path} has no checksum of its header, as checkpoints of format 1 had none: expected format {FORMAT}; "
            "load it with the version of this package that wrote it, or take another copy"
        )
    header = tensor_files.header_text(path, TEXT, metadata)
    version = header.get("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has the checkpoint format {version!r}: expected {FORMAT}; load it with the version of this "
            "package that wrote it"
        )
    require_keys(path, header)
    return header


def require_keys(path: Path, header: Mapping[str, Any]) -> None:
    """Raise unless ``header`` has every key of a checkpoint, and mappings where they belong."""
    missing = [key for key in (*PLAIN, *MAPPINGS) if key not in header]
    for key, inner in (MAPPINGS | dict.fromkeys(OPTIONAL, ())).items():
        if key in header and not isinstance(header[key], dict):
            raise CheckpointError(
                f"{path}: the header has {key}={header[key]!r}: expected a mapping; take a file that `save` wrote"
            )
        missing += [f"{key}.{name}" for name in inner if key in header and name not in header[key]]
    if missing:
        raise CheckpointError(
            f"{path}: the header lacks {', '.join(missing)}: expected every key of a checkpoint; "
            "take a file that `save` wrote"
        )
