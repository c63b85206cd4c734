"""Damaged and crafted checkpoints: what loads is what was saved, all else is a ``CheckpointError``."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents import SAC
from agents.loop.checkpoint import checksum, read, read_header, save_agent
from agents.loop.header import CHECKSUM, FORMAT, MAPPINGS, PLAIN, TEXT
from budget_wrappers.errors import CheckpointError
from tests.agents.small import make_agent

Change = Callable[[dict[str, Any], dict[str, Tensor]], Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a SAC agent that has learnt a little."""
    return save_agent(make_agent("sac").learn(60), tmp_path_factory.mktemp("saved") / "agent")


def crafted(saved: Path, path: Path, change: Change) -> Path:
    """Return a copy that was changed by someone who knows how to make checksums."""
    header, tensors = read_header(saved), load_file(saved)
    change(header, tensors)
    if "crc32" in header:
        header["crc32"] = {name: checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(header)
    save_file(tensors, path, metadata={TEXT: text, CHECKSUM: str(zlib.crc32(text.encode()))})
    return path


# ---- damaged --------------------------------------------------------------------------------------------------------


def test_flipped_bit_of_the_header_changes_nothing_or_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, tensors = read(saved)
    path, rng, refused = tmp_path / "flipped.safetensors", np.random.default_rng(0), 0
    for _ in range(200):
        place, bit = int(rng.integers(end)), int(rng.integers(8))
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            other_header, other_tensors = read(path)
        except CheckpointError:
            refused += 1
            continue
        assert other_header == header, (place, bit)
        assert other_tensors.keys() == tensors.keys(), (place, bit)
        assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors), (place, bit)
    assert refused > 150


@pytest.mark.parametrize(("before", "after"), [(b"0.99", b"0.91"), (b"counters", b"countess")])
def test_changed_byte_of_the_header_is_refused(before: bytes, after: bytes, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    assert before in content
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content.replace(before, after, 1))
    for load in (read_header, lambda path: SAC.load(path, None)):
        with pytest.raises(CheckpointError, match=r"the header has the checksum \d+: expected \d+.*another copy"):
            load(path)


def test_older_format_is_named(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file(load_file(saved), path, metadata={TEXT: json.dumps({**read_header(saved), "format": 1})})
    with pytest.raises(
        CheckpointError, match=rf"format 1 had none: expected format {FORMAT}; load it with the version"
    ):
        SAC.load(path, None)


# ---- crafted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*PLAIN, *MAPPINGS])
def test_header_without_a_key_is_refused_by_its_name(key: str, saved: Path, tmp_path: Path) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", lambda header, _: header.pop(key))
    with pytest.raises(CheckpointError, match=f"the header lacks {key}: expected every key"):
        SAC.load(path, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, _: (header.pop("rng"), header.pop("meter")), "lacks rng, meter"),
        (lambda header, _: header["counters"].pop("num_updates"), r"lacks counters\.num_updates"),
        (lambda header, _: header["spaces"].pop("action"), r"lacks spaces\.action"),
        (lambda header, _: header.update(config=[1]), r"config=\[1\]: expected a mapping"),
        (lambda header, _: header["optimizers"]["critic"].pop("groups"), "optimizer critic is stored as .*groups"),
        (lambda header, _: header["optimizers"]["critic"]["groups"][0]["params"].pop(), "optimizer critic has the"),
        (lambda _, tensors: tensors.pop("optimizer/critic/0/exp_avg"), "optimizer critic .* lacks 0/exp_avg: exp"),
        (lambda _, tensors: tensors.pop("optimizer/critic/1/step"), "optimizer critic .* lacks 1/step: expected"),
        (lambda _, tensors: tensors.update({"optimizer/critic/0/exp_avg": torch.zeros(1)}), "in their shapes"),
        (lambda _, tensors: tensors.pop("generator"), "lacks generator"),
        (lambda _, tensors: tensors.pop("module/critic/members.0.net.0.weight", None) or tensors.popitem(), "lacks"),
    ],
)
def test_crafted_file_that_lacks_something_is_refused(
    change: Change, message: str, saved: Path, tmp_path: Path
) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        SAC.load(path, None)


def test_tensors_that_the_header_does_not_list_are_refused(saved: Path, tmp_path: Path) -> None:
    header, tensors = read_header(saved), load_file(saved)
    text = json.dumps(header)
    metadata = {TEXT: text, CHECKSUM: str(zlib.crc32(text.encode()))}
    path = tmp_path / "other.safetensors"
    save_file({**tensors, "more": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="has the unlisted more: expected the tensors that its header lists"):
        read_header(path)
    tensors.pop("optimizer/critic/0/exp_avg")
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="lacks optimizer/critic/0/exp_avg: expected the tensors"):
        read_header(path)
