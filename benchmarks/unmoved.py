"""Trains every agent with two versions of the code and compares all of their numbers, bit for bit.

``python -m benchmarks.unmoved OLD NEW`` takes two commits, or ``WORKTREE`` for the files as they are now. One worker,
``benchmarks/unmoved_worker.py``, trains the cases of ``benchmarks/unmoved_cases.py`` with each version, through public
names only. It compares all tensors of networks and optimizers, logged values, the meter, the generators, predictions,
and the checkpoint with its replay. A setting that an agent refuses must be refused with the same message. In the cases
``cross-load``, NEW continues from a checkpoint that OLD wrote, and so does OLD. The exit status is 1 if a case differs
or fails.

``python -m benchmarks.unmoved COMMIT --record`` writes the hashes that ``tests/agents/test_unmoved.py`` compares.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import unmoved_worker
from benchmarks.card import RESULTS, store
from benchmarks.unmoved_cases import Case, all_cases

ROOT = Path(__file__).resolve().parent.parent
WORKTREE = "WORKTREE"
PACKAGES = ("agents", "budget_wrappers")
RECORDED = ROOT / "tests" / "agents" / "unmoved.json"
THREADS = 1

Entries = Mapping[str, str]


# ---- versions of the code -------------------------------------------------------------------------------------------


def git(*arguments: str) -> bytes:
    """Return what a git command writes."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def describe(revision: str) -> dict[str, Any]:
    """Return the commit of a revision; of the working tree its base, and whether anything in it is changed."""
    if revision != WORKTREE:
        return {"revision": revision, "commit": git("rev-parse", f"{revision}^{{commit}}").decode().strip()}
    changed = bool(git("status", "--porcelain", "--", *PACKAGES))
    return {"revision": revision, "commit": git("rev-parse", "HEAD").decode().strip(), "changed": changed}


def short(version: Mapping[str, Any]) -> str:
    """Return a version in few letters, for names and tables."""
    return version["revision"].lower() if version["revision"] == WORKTREE else version["commit"][:7]


def export(version: Mapping[str, Any], folder: Path) -> Path:
    """Return a folder with both packages of a version; of the working tree, that one."""
    if version["revision"] == WORKTREE:
        return ROOT
    with tarfile.open(fileobj=io.BytesIO(git("archive", version["commit"], *PACKAGES))) as archive:
        archive.extractall(folder, filter="data")
    return folder


# ---- running cases --------------------------------------------------------------------------------------------------


def start(tree: Path, cases: list[Case], folder: Path, name: str) -> tuple[subprocess.Popen, Path]:
    """Return a running worker and the file that will hold its entries.

    Args:
        tree: folder of the code.
        cases: to run.
        folder: where data sets and checkpoints are; the same for both versions.
        name: of the worker's files.
    """
    listing, results = folder / f"{name}-cases.json", folder / f"{name}-results.json"
    listing.write_text(json.dumps([case.to_dict() for case in cases]))
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(THREADS)}
    # -P: the folder of the worker's file is no place to import from.
    command = [sys.executable, "-P", unmoved_worker.__file__, str(tree), str(listing), str(results)]
    return subprocess.Popen(command, cwd=tree, env=environment), results


def make_data(cases: list[Case], folder: Path) -> None:
    """Write the data sets of ``cases``, before several workers want to."""
    for name in {case.env for case in cases if case.data}:
        unmoved_worker.data_of(name, folder)


def run(tree: Path, cases: list[Case], folder: Path, name: str, jobs: int) -> dict[str, Entries]:
    """Return the entries of ``cases`` with the code in ``tree``, by ``jobs`` processes at once.

    Raises:
        RuntimeError: a worker ended early.
    """
    shares = [cases[number::jobs] for number in range(min(jobs, len(cases)))]
    workers = [start(tree, share, folder, f"{name}{number}") for number, share in enumerate(shares)]
    entries: dict[str, Entries] = {}
    for worker, results in workers:
        if worker.wait() != 0:
            raise RuntimeError(f"a worker of {name} ended with exit code {worker.returncode}: its error stands above")
        entries |= json.loads(results.read_text())
    return {case.name: entries[case.name] for case in cases}


def case_digests(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Return one SHA-256 of all numbers of each case, with the code that this process imports.

    Args:
        names: keys of ``all_cases``.
        folder: where data sets are kept between calls.
    """
    cases, digests = all_cases(), {}
    with unmoved_worker.one_thread():
        for name in names:
            # Through JSON, as a worker reads it.
            case = json.loads(json.dumps(cases[name].to_dict()))
            digests[name] = unmoved_worker.case_digest(unmoved_worker.entries_of(case, folder))
    return digests


def platform_key() -> str:
    """Return what decides the last bits besides the code: the CPU's kernels and the libraries that do arithmetic.

    torch's capability is the same on processors of both makers, and the matrix products of MKL and OpenBLAS are not.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    makers = [line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{capability} torch {torch.__version__} numpy {np.__version__} {makers[0] if makers else 'unknown'}"


# ---- comparing ------------------------------------------------------------------------------------------------------


def first_difference(old: Entries, new: Entries) -> str | None:
    """Return the first entry in which two versions differ, in the order of the worker, and how many do."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if not names:
        return None
    values = [entries.get(names[0], "nothing") for entries in (old, new)]
    return f"{names[0]}: {values[0][:80]} became {values[1][:80]} ({len(names)} of {len(old)} entries)"


def verdict(case: Case, old: Entries, new: Entries) -> str:
    """Return one word for a case, and where the versions differ."""
    failed = [entries["failed"] for entries in (old, new) if "failed" in entries]
    if failed:
        return f"FAILED: {failed[0]}"
    difference = first_difference(old, new)
    if difference:
        return f"DIFFERS: {difference}"
    if case.refused != ("refused" in new):
        return "FAILED: the case is refused, but the agent takes the setting"
    return "refused alike" if case.refused else "equal"


def compare(versions: list[dict[str, Any]], cases: list[Case], jobs: int) -> tuple[dict[str, Any], list[float]]:
    """Return a row for each case, and the seconds of either version."""
    entries, seconds = [], []
    with tempfile.TemporaryDirectory() as temporary:
        make_data(cases, Path(temporary))
        for number, version in enumerate(versions):
            started = time.perf_counter()
            tree = export(version, Path(temporary) / f"tree{number}")
            entries.append(run(tree, cases, Path(temporary), f"version{number}-", jobs))
            seconds.append(round(time.perf_counter() - started, 1))
            print(f"{short(version)}: {len(cases)} cases in {seconds[-1]} s", flush=True)
    rows = {}
    for case in cases:
        old, new = (part[case.name] for part in entries)
        digests = dict.fromkeys(unmoved_worker.case_digest(part) for part in (old, new))
        rows[case.name] = {"result": verdict(case, old, new), "entries": len(old), "sha256": " ".join(digests)}
    return rows, seconds


def record(version: dict[str, Any], jobs: int) -> None:
    """Write the hashes of the recorded cases with the code of ``version``, for this kind of machine."""
    cases = [case for case in all_cases().values() if case.recorded]
    with tempfile.TemporaryDirectory() as temporary:
        make_data(cases, Path(temporary))
        tree = export(version, Path(temporary) / "tree")
        entries = run(tree, cases, Path(temporary), "version", jobs)
    failed = {name: part["failed"] for name, part in entries.items() if "failed" in part}
    if failed:
        raise RuntimeError(f"these cases failed, so nothing was written: {failed}")
    stored = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    stored[platform_key()] = {name: unmoved_worker.case_digest(part) for name, part in entries.items()}
    RECORDED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(f"{RECORDED.relative_to(ROOT)}: {len(cases)} hashes for {platform_key()!r}")


def main() -> int:
    """Compare two versions, store what was found and return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="?", default=WORKTREE, metavar="OLD")
    parser.add_argument("new", nargs="?", default=WORKTREE, metavar="NEW")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose AGENT/SETTING matches somewhere")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--output", type=Path, help="by default results/unmoved/<old>-<new>.json; with --only, none")
    parser.add_argument("--record", action="store_true", help="write the hashes of OLD for the test, compare nothing")
    arguments = parser.parse_args()
    if arguments.record:
        record(describe(arguments.old), arguments.jobs)
        return 0
    versions = [describe(revision) for revision in (arguments.old, arguments.new)]
    cases = [case for case in all_cases().values() if re.search(arguments.only, case.name)]
    rows, seconds = compare(versions, cases, arguments.jobs)
    for case in cases:
        print(f"{case.agent:16s} {case.setting:36s} {rows[case.name]['result']}")
    moved = [name for name, row in rows.items() if row["result"] not in ("equal", "refused alike")]
    names = [short(version) for version in versions]
    print(f"{len(moved)} of {len(rows)} cases differ or fail between {names[0]} and {names[1]}")
    path = arguments.output or (None if arguments.only else RESULTS / "unmoved" / f"{'-'.join(names)}.json")
    if path:
        about = {"old": versions[0], "new": versions[1], "platform": platform_key(), "threads": THREADS}
        about["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        store(path, {**about, "jobs": arguments.jobs, "seconds": seconds, "different": moved, "cases": rows})
    return int(bool(moved))


if __name__ == "__main__":
    raise SystemExit(main())
