"""Any two saved policies as the sub-policies of a master that ``budget train`` trains."""

import json
import shutil
from pathlib import Path

import pytest

from agents.cli import main
from agents.runs.log import read_rows
from agents.studies.sub_policies import open_sub_policies_with
from budget_wrappers.policies import load_sub_policy

SMALL = 2 * (3 * 4 + 4 * 4 + 4 * 2)  # two layers of 4 between 3 observations and twice 1 action
LARGE = 2 * (3 * 16 + 16 * 16 + 16 * 2)
MASTER = 2 * (3 * 8 + 8 * 8 + 8 * 2)
TRAIN = ["--env", "Pendulum-v1", "--max-episode-steps", "25", "--batch-size", "8", "--no-tensorboard"]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a run's folder, a checkpoint and a Stable-Baselines3 zip."""
    library = pytest.importorskip("stable_baselines3")
    folder = tmp_path_factory.mktemp("policies")
    for name, width in (("small", "4"), ("large", "16")):
        words = ["train", "sac", *TRAIN, "--steps", "50", "--net-arch", width, width, "--eval-every", "0"]
        assert main([*words, "--run", str(folder / name)]) == 0
    library.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [32, 32]}, buffer_size=10).save(folder / "sb3")
    return {
        "run": str(folder / "small"),
        "checkpoint": str(folder / "large" / "checkpoint.safetensors"),
        "zip": str(folder / "sb3.zip"),
    }


def master(policies: list[str], folder: Path, *more: str) -> list[str]:
    words = ["train", "dqn", *TRAIN, "--steps", "40", "--net-arch", "8", "8", "--train-freq", "1"]
    return [
        *words,
        "--eval-every",
        "20",
        "--eval-episodes",
        "1",
        "--run",
        str(folder),
        "--sub-policies",
        *policies,
        *more,
    ]


def test_master_of_saved_policies_is_trained_evaluated_and_resumed(
    policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "master"
    chosen = [policies["run"], policies["checkpoint"]]
    assert main(master(chosen, folder, "--sub-policy-hold", "5", "--sub-policy-weight", "0.5")) == 0
    capsys.readouterr()
    assert main(["eval", str(folder), "--episodes", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["lengths"] == [25, 25]
    for report, flops in zip(result["compute"], result["flops"], strict=True):
        # Five decisions, and 25 steps of whatever they chose.
        steps = {name: round(25 * share) for name, share in report["share_steps"].items()}
        assert sum(steps.values()) == 25
        assert flops == 5 * MASTER + steps["small"] * SMALL + steps["large"] * LARGE
        # Σ r − 0.5·n·c with c = 1 for the cheapest.
        penalty = 0.5 * (steps["small"] + steps["large"] * LARGE / SMALL)
        assert report["return_penalised"] == pytest.approx(report["return_raw"] - penalty)
    assert main(["play", str(folder), "--timeline", str(tmp_path / "timeline.png")]) == 0
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert main(["train", "--resume", str(folder), "--steps", "60"]) == 0
    assert list(read_rows(folder))[-1]["step"] == 60


def test_master_of_several_environments_at_once_is_trained_on_their_penalised_reward(
    policies: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "master"
    more = ["--n-envs", "2", "--sub-policy-hold", "1", "--sub-policy-weight", "0.5", "--log-every", "50"]
    assert main([*master([policies["run"], policies["checkpoint"]], folder, *more), "--steps", "150"]) == 0
    rows = [row for row in read_rows(folder, "training") if "compute/flops" in row]
    assert rows
    for row in rows:
        taken = (row["compute/return_raw"] - row["return"]) / 0.5 * SMALL  # Σ FLOPs of who acted, the mean of episodes
        assert 25 * SMALL - 1e-3 <= taken <= 25 * LARGE + 1e-3
        assert taken - 1e-3 <= row["compute/flops"] <= taken + 25 * MASTER + 1e-3  # random choices ask no master
    assert main(["train", "--resume", str(folder), "--steps", "200"]) == 0


def test_sub_policies_are_called_after_the_folder_of_their_run(
    policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run.1", "run.2"):
        shutil.copytree(policies["run"], tmp_path / name)
    (tmp_path / "run.2" / "copy.of.it.safetensors").write_bytes(Path(policies["checkpoint"]).read_bytes())
    open_sub_policies_with(trust=False)
    monkeypatch.chdir(tmp_path / "run.1")
    references = {
        f"{tmp_path}/run.1": "run.1",
        f"{tmp_path}/run.2/": "run.2",
        f"{tmp_path}/run.2/checkpoint.safetensors": "run.2",
        "checkpoint.safetensors": "run.1",
        ".": "run.1",
        "../run.2": "run.2",
        "../run.2/copy.of.it.safetensors": "copy.of.it",
    }
    assert {path: load_sub_policy(f"file:{path}").name for path in references} == references


def test_two_runs_of_one_name_are_refused_with_the_remedy(
    policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(policies["run"], tmp_path / "again" / "small")
    assert main(master([policies["run"], str(tmp_path / "again" / "small")], tmp_path / "master")) == 2
    assert "['small', 'small']" in (refusal := capsys.readouterr().err)
    assert "rename the folder or file" in refusal


def test_zip_is_a_sub_policy_when_it_is_trusted_and_only_then(
    policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = master([policies["run"], policies["zip"]], tmp_path / "master")
    assert main(words) != 0
    assert "can run any code" in capsys.readouterr().err
    assert not (tmp_path / "master").exists()
    assert main([*words, "--trust"]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "master"), "--episodes", "1"]) != 0
    assert "can run any code" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "master"), "--episodes", "1", "--trust"]) == 0


def test_file_cannot_say_that_it_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "strange.toml"
    file.write_text("trust = true\n")
    assert main(["train", "dqn", "--env", "Pendulum-v1", "--config", str(file)]) != 0
    assert "has no key 'trust'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sub-policies", "one"], "two at least"),
        (["--sub-policies", "one", "two", "--n-envs", "2"], "sub_policy_hold=5: expected 1 with several"),
        (["--sub-policies", "one", "two"], "there is no file one"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "dqn", "--env", "Pendulum-v1", *more]) != 0
    assert message in capsys.readouterr().err
