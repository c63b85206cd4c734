"""``budget profile --device-out`` measures this machine, and ``--max-latency-us`` reads what it wrote."""

from pathlib import Path

import pytest

from agents.cli import main
from budget_wrappers.metering.device_profile import DeviceProfile

UNTRAINED = ["profile", "--agent", "sac", "--env", "Pendulum-v1", "--net-arch", "8", "8", "--samples", "50"]
TRAIN = ["--env", "Pendulum-v1", "--max-episode-steps", "25", "--batch-size", "8", "--no-tensorboard"]
TRAIN += ["--steps", "50", "--eval-every", "0", "--learning-starts", "10", "--net-arch", "64", "64"]


def test_a_device_is_measured_and_a_policy_is_made_to_fit_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "device.json"
    assert main([*UNTRAINED, "--device-out", str(path)]) == 0
    assert f"networks that were held out, {100 * DeviceProfile.load(path).off_most:.0f} % at most" in (
        capsys.readouterr().out
    )
    device = DeviceProfile.load(path)
    # Of 64 units in both layers; a third of what lies between that and the smallest network is to go.
    dear, cheap = (device.microseconds([(3, w), (w, w), (w, 2)]) for w in (64, 1))
    most = dear - (dear - cheap) / 3
    words = ["train", "xinet-sac", *TRAIN, "--run", str(tmp_path / "run"), "--device-profile", str(path)]
    assert main([*words, "--max-latency-us", f"{most:.6f}"]) == 0
    assert main(["eval", str(tmp_path / "run"), "--episodes", "1"]) == 0


def test_a_profile_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "xinet-sac", *TRAIN, "--run", str(tmp_path / "run"), "--max-latency-us", "50"]
    assert main([*words, "--device-profile", str(tmp_path / "none.json")]) == 2
    assert "budget profile --device-out" in capsys.readouterr().err
    assert main(words) == 2
    assert "device_profile" in capsys.readouterr().err
