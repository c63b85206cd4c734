"""Damage of every text that is read back ends in a named error, and names in it are shown as they are."""

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agents import SAC
from agents.cli import main
from agents.report.report import summarise, terminal_table, write_report
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import RunFolder, read_rows
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.studies.space import read_space
from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError
from budget_wrappers.integrations import sb3_files
from budget_wrappers.metering import Profile

DEEP = "[" * 100_000 + "]" * 100_000
CONFIG = RunConfig("Pendulum-v1", steps=60, max_episode_steps=25, eval_every=30, eval_episodes=1, tensorboard=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    settings = {"net_arch": (4, 4), "learning_starts": 1_000, "buffer_size": 100}
    with Run.start(SAC, settings, CONFIG, folder) as run:
        assert run.train()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# ---- run folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe{}", b"[1]", b"{}", b'{"step": 1}', DEEP.encode(), b'"text"'])
def test_a_damaged_row_is_named_before_anything_is_trained(damage: bytes, run: Path) -> None:
    content = (run / "metrics.jsonl").read_bytes()
    first, rest = content.split(b"\n", 1)
    padded = damage if len(damage) > len(first) else damage + b" " * (len(first) - len(damage))
    (run / "metrics.jsonl").write_bytes(padded + b"\n" + rest)
    with pytest.raises(CheckpointError, match=r"row 1 of .*metrics\.jsonl"):
        list(read_rows(run))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl"), Run.resume(SAC, run, steps=80):
        pass


def test_a_changed_number_of_a_row_is_noticed(run: Path) -> None:
    content = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(content.replace('"step": 3', '"step": 2', 1))
    with pytest.raises(CheckpointError, match="checksum"):
        list(read_rows(run))


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"command": 3, "versions": {}, "commit": null}', '{"command": "x"}', DEEP]
)
def test_a_damaged_record_is_named(text: str, run: Path) -> None:
    (run / "run.json").write_text(text)
    with Run.resume(SAC, run) as resumed, pytest.raises(ConfigError, match=r"run\.json"):
        resumed.report()


@pytest.mark.parametrize(
    "text", [DEEP, "{}", "\x00", '{"agent": "SAC", "settings": {}, "run": {}}', '{"agent": "SAC", "settings": []}']
)
def test_a_damaged_configuration_is_named(text: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.json").write_text(text)
    assert main(["eval", str(run), "--episodes", "1"]) == 2
    assert main(["train", "--resume", str(run)]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "many"},
        {"steps": 400.5},
        {"penalty": "x"},
        {"eval_every": None},
        {"checkpoint_every": [1]},
        {"log_every": True},
        {"tensorboard": "no"},
        {"sub_policy_hold": "x"},
        {"sub_policy_hold": [5, "x"]},
        {"sub_policies": "ab"},
        {"sub_policies": [1, 2]},
        {"threads": 1_000_000},
        {"threads": 2.0},
        {"n_envs": 10**12},
        {"env": 5},
        {"max_episode_steps": "9"},
        {"penalty": float("nan")},
        {"dataset": 3},
    ],
    ids=str,
)
def test_a_runs_configuration_is_typed_and_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        RunConfig.of({"env": "Pendulum-v1", **change})


def test_a_runs_lists_become_what_they_were() -> None:
    made = RunConfig.of({"env": "A", "sub_policies": ["a", "b"], "sub_policy_hold": [5], "penalty": 1})
    assert (made.sub_policies, made.sub_policy_hold, made.penalty) == (("a", "b"), 5, 1)


@pytest.mark.parametrize("key", ["seeds", "steps", "workers", "episodes"])
@pytest.mark.parametrize("name", ["TradeoffConfig", "SweepConfig", "SizesConfig"])
@pytest.mark.parametrize("value", ["cuda", 1.5, None, True, [0.5]], ids=repr)
def test_a_studys_configuration_is_typed(name: str, key: str, value: Any) -> None:
    from agents.studies import sizes, sweep, tradeoff

    made = next(getattr(module, name) for module in (tradeoff, sweep, sizes) if hasattr(module, name))
    env_id = "Pendulum-v1" if name != "TradeoffConfig" else ("Pendulum-v1",)
    with pytest.raises(ConfigError, match=key):
        made(**{"env": env_id, key: value})


def test_a_studys_workers_and_seeds_are_bounded() -> None:
    from agents.studies.tradeoff import TradeoffConfig

    for key, value in (("workers", 10**6), ("seeds", (-1,)), ("weights", "a"), ("weights", ("x",)), ("net_arch", "ab")):
        with pytest.raises(ConfigError, match=key):
            TradeoffConfig(**{"env": ("Pendulum-v1",), key: value})


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000 + "]" * 20_000, "a = \x00", "= 3"], ids=["deep", "nul", "key"])
def test_a_damaged_toml_file_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert main(["train", "sac", "--env", "A", "--config", str(tmp_path / "a.toml")]) == 2
    assert "a.toml" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"a\.toml"):
        read_space(tmp_path / "a.toml")


def test_deep_json_of_the_command_line_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "RecordComputeStatistics", "--kwargs", DEEP]) == 2
    assert "is not JSON" in capsys.readouterr().err


# ---- comparisons and profiles ---------------------------------------------------------------------------------------

EPISODE = {"return": -143.25, "flops": 190_400.0, "length": 200.0}
POINT = {"method": "m", "label": "l", "seed": 1, "mean_return": -1.5, "flops_per_step": 952.0, "episodes": [EPISODE]}
WHOLE = {"format": 1, "env_id": "A", "points": [POINT], "settings": {"random_return": -1200.0}}


def with_point(**changes: Any) -> dict[str, Any]:
    return {**WHOLE, "points": [{**POINT, **changes}]}


@pytest.mark.parametrize(
    "record",
    [
        with_point(seed="1"),
        with_point(seed=1.5),
        with_point(seed=True),
        with_point(mean_return=1e308),
        with_point(mean_return="3"),
        with_point(flops_per_step=1e308),
        with_point(flops_per_step=True),
        with_point(label=3),
        with_point(method=None),
        with_point(episodes=[{}]),
        with_point(episodes=[{**EPISODE, "length": 0}]),
        with_point(episodes=[{**EPISODE, "return": 1e308}]),
        with_point(episodes=7),
        with_point(curve=[[1]]),
        with_point(curve=[[1, "2"]]),
        with_point(extras=[]),
        with_point(extras={"weight": "dear"}),
        with_point(extras={"share_large": "all"}),
        with_point(extras={"baseline": "no"}),
        {**WHOLE, "env_id": 5},
        {**WHOLE, "command": 5},
        {**WHOLE, "versions": ["torch"]},
        {**WHOLE, "settings": []},
        {**WHOLE, "settings": {"random_return": "none"}},
        {**WHOLE, "convention": "some"},
        {**WHOLE, "points": {}},
    ],
    ids=lambda record: json.dumps({**record, **(record["points"] or [{}])[0]} if record["points"] else record)[:60],
)
def test_a_comparison_of_another_form_is_named(record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tradeoff.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"tradeoff\.json"):
        write_report([tmp_path])


def test_a_comparison_of_the_versions_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "tradeoff.json").write_text(json.dumps(WHOLE))
    (point,) = Comparison.read(tmp_path).points
    assert (point.seed, point.mean_return, point.episodes) == (1, -1.5, (EPISODE,))


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    from rich.console import Console

    names = ["[/x]", "[red]", "$\\frac$", "[bold]$_{"]
    points = [
        TradeoffPoint(name, name, 0, -1.0, 900.0 + len(name), [EPISODE], [(5, -2.0), (9, -1.0)]) for name in names
    ]
    Comparison("[/x] $\\frac$", points, settings={"random_return": -9.0}).write(tmp_path)
    report = write_report([tmp_path])
    with (tmp_path / "shown").open("w") as file:
        console = Console(width=200, record=True, file=file)
        console.print(terminal_table(summarise(points), "[/x] $\\frac$"))
    shown = console.export_text()
    assert [shown.count(name) for name in names] == [2, 1, 2, 1]
    assert report.picture.stat().st_size > 0


CARD = {
    "policy": "p",
    "flops": 8,
    "convention": "matmul",
    "parameters": 4,
    "latency": {"p50_us": 1.0, "p95_us": 1.0, "p99_us": 1.0, "mean_us": 1.0, "samples": 1, "warmup": 0, "threads": 1}
    | {"synchronised": None},
    "energy": {"joules": None, "source": "unavailable", "calls": 0, "seconds": 0.0},
    "hz": None,
    "fits": None,
    "device": "cpu",
    "machine": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"flops": "8"},
        {"flops": 8.5},
        {"fits": "yes"},
        {"latency": []},
        {"machine": []},
        {"convention": "some"},
        {"x": 1},
        {"energy": {**CARD["energy"], "joules": "many"}},
        {"latency": {**CARD["latency"], "p99_us": None}},
    ],
    ids=str,
)
def test_a_profile_of_another_form_is_named(change: dict[str, Any]) -> None:
    assert Profile.from_json(json.dumps(CARD)).flops == 8
    with pytest.raises(CheckpointError, match="not a profile"):
        Profile.from_json(json.dumps({**CARD, **change}))


def test_deep_json_is_not_a_profile() -> None:
    with pytest.raises(CheckpointError, match="not a profile"):
        Profile.from_json(DEEP)


# ---- zips of Stable-Baselines3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "compression", "crc", "deep", "binary"])
def test_a_damaged_zip_is_named_before_anything_in_it_is_loaded(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.zip"
    text = {"deep": DEEP, "binary": b"\xff\x00"}.get(damage, json.dumps({"policy_class": {"__module__": "x" * 200}}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", text)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content[30:60] = b"\x00" * 30
    elif damage == "compression":
        directory = content.rfind(b"PK\x01\x02")
        content[directory + 10] = 99
    elif damage == "crc":
        content[40] ^= 16
    path.write_bytes(content)
    monkeypatch.setitem(sys.modules, "stable_baselines3", object())
    with pytest.raises(BudgetError, match=r"model\.zip"):
        sb3_files.load(path, trust=True)


def test_metrics_that_were_cut_by_a_kill_are_read_up_to_there(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.write({"step": 1, "loss": float("nan")}, seconds=0.5)
        folder.write({"step": 2})
    content = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(content[:-5])
    assert [(row["step"], row["clock"]) for row in read_rows(tmp_path)] == [(1, {"seconds": 0.5})]
