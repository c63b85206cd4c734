"""Opening the files that Stable-Baselines3 and sb3-contrib saved: on request only, as they can run code."""

import importlib
import inspect
import zipfile
import zlib
from pathlib import Path
from typing import Any

from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError, MissingExtraError, UntrustedFileError
from budget_wrappers.files import json_of
from budget_wrappers.modules.weights import listed, non_finite

DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged zip raises."""


def load(
    path: str | Path, algorithm: str | None = None, *, env: Any = None, trust: bool = False, **options: Any
) -> Any:
    """Return the model that Stable-Baselines3 or sb3-contrib saved.

    Such a zip holds Python objects that are code when they are loaded. It is opened only if you say that you trust who
    made it. To let a specification name such files as sub-policies, say so once::

        register_loader("sb3", lambda path: as_sub_policy(load(path, trust=True)))

    Args:
        path: of the zip.
        algorithm: the class that saved it, such as ``"SAC"`` or ``"TQC"``; found from the zip where it can be.
        env: to train in further; needed for that where the replay is a ``HerReplayBuffer``.
        trust: whether code in the file may run.
        options: for the class's ``load``, such as ``device``.

    Raises:
        UntrustedFileError: without ``trust``.
        CheckpointError: no such file, or not a model's.
        ConfigError: the algorithm cannot be told, or neither library has one of that name.
        MissingExtraError: the library that saved it is not installed.
    """
    path = _existing(Path(path))
    if not trust:
        raise UntrustedFileError(
            f"{path} is a Stable-Baselines3 zip: expected trust=True to open it. It holds Python objects that can run "
            "any code when they are loaded; pass trust=True only if you trust who made the file"
        )
    name = algorithm or _algorithm_in(path)
    found = _class_called(name, path)
    if env is None and _relabels(path):
        # Its replay asks the environment for rewards; a model without one acts and does not learn.
        acting = {"replay_buffer_class": None, "replay_buffer_kwargs": {}, "buffer_size": 1}
        options["custom_objects"] = acting | (options.get("custom_objects") or {})
    try:
        model = found.load(path, env=env, **options)
    except Exception as error:  # what a pickle holds can fail in any way
        raise CheckpointError(
            f"{path} cannot be loaded as {name} ({error!r}): expected a file that {name}.save wrote; check the "
            "file and the algorithm"
        ) from error
    if names := non_finite(model.policy.state_dict()):
        raise CheckpointError(
            f"{path} holds NaN or infinity in {listed(names)}: expected numbers; the model had diverged when it was "
            "saved: take an earlier one"
        )
    return model


def load_normaliser(path: str | Path, model: Any, env: Any, *, trust: bool = False) -> Any:
    """Return the ``VecNormalize`` that a model was trained in, and give it to the model; its statistics stand still.

    Args:
        path: of what ``VecNormalize.save`` wrote, a pickle.
        model: that ``load`` returned.
        env: an environment like the one it was trained in.
        trust: whether code in the file may run.

    Raises:
        UntrustedFileError: without ``trust``.
        CheckpointError: no such file, or one of something else.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    path = Path(path)
    if not trust:
        raise UntrustedFileError(
            f"{path} is a pickle: expected trust=True to open it. It can run any code when it is loaded; pass it "
            "only if you trust who made the file"
        )
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected what VecNormalize.save wrote; check the path")
    _library(path)
    vector = importlib.import_module("stable_baselines3.common.vec_env")
    try:
        normaliser = vector.VecNormalize.load(str(path), vector.DummyVecEnv([lambda: env]))
        model.n_envs = 1  # however many it was trained in
        model.set_env(normaliser)
    except Exception as error:  # a pickle can fail in any way
        raise CheckpointError(
            f"{path} cannot be loaded ({error!r}): expected what VecNormalize.save wrote, for this environment's spaces"
        ) from error
    normaliser.training = False
    return normaliser


CONTRIB = ("ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TQC", "TRPO")
"""Classes that only sb3-contrib has."""


def _class_called(name: str, path: Path) -> Any:
    """Return the class of either library.

    Raises:
        ConfigError: neither has it.
        MissingExtraError: the library that has it is not installed.
    """
    places = ["sb3_contrib"] if name in CONTRIB else ["stable_baselines3"]
    found = getattr(_library(path, places[0]), name, None)
    if not (inspect.isclass(found) and hasattr(found, "load")):
        raise ConfigError(
            f"algorithm={name!r}: expected a class of stable_baselines3 (A2C, DDPG, DQN, PPO, SAC, TD3) or sb3_contrib "
            f"({', '.join(CONTRIB)}); pass its name"
        )
    return found


def _library(path: Path, name: str = "stable_baselines3") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = "sb3" if name == "stable_baselines3" else "sb3-contrib"
        raise MissingExtraError(
            f"{path} needs {name}, which cannot be imported ({error}): expected `import {name}` to work; "
            f"pip install 'budget-wrappers[{extra}]'"
        ) from error


def _existing(path: Path) -> Path:
    path = path if path.suffix else path.with_suffix(".zip")
    if not zipfile.is_zipfile(path):
        what = "is no zip archive" if path.is_file() else "does not exist"
        raise CheckpointError(
            f"{path} {what}: expected a file that a Stable-Baselines3 model's save wrote; check the path"
        )
    return path


def _data_in(path: Path) -> dict[str, Any]:
    """Return what the zip's JSON says of the model, without running anything in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "data" not in archive.namelist():
                raise CheckpointError(
                    f"{path} holds {archive.namelist()[:5]}: expected an entry 'data', as a model's save writes"
                )
            data = json_of(archive.read("data").decode("utf-8"))
        if not isinstance(data, dict):
            raise TypeError(f"a {type(data).__name__}")
    except DAMAGES as error:
        if isinstance(error, BudgetError):
            raise
        raise CheckpointError(
            f"{path}: its entry 'data' is damaged ({error!r}); expected JSON, as a model's save writes it"
        ) from error
    return data


def _module_of(entry: Any) -> str:
    """Return the module of a class that the zip's JSON names."""
    return str(entry.get("__module__", "")) if isinstance(entry, dict) else ""


def _relabels(path: Path) -> bool:
    """Tell whether the model learned in hindsight."""
    return _module_of(_data_in(path).get("replay_buffer_class")).startswith("stable_baselines3.her.")


_BY_ENTRIES: tuple[tuple[str, frozenset[str]], ...] = (
    ("TQC", frozenset({"top_quantiles_to_drop_per_net", "ent_coef"})),
    ("CrossQ", frozenset({"policy_delay", "ent_coef"})),
    ("SAC", frozenset({"target_entropy", "ent_coef"})),
    ("TD3", frozenset({"policy_delay", "target_policy_noise"})),
    ("QRDQN", frozenset({"n_quantiles", "exploration_fraction"})),
    ("DQN", frozenset({"max_grad_norm", "exploration_fraction"})),
    ("ARS", frozenset({"n_delta", "n_top"})),
    ("TRPO", frozenset({"cg_max_steps", "line_search_max_iter"})),
    ("PPO", frozenset({"n_epochs", "clip_range"})),
    ("A2C", frozenset({"gae_lambda", "vf_coef"})),
)
"""Entries of a zip that only one algorithm writes, or the first of those listed."""

_PPO_BY_POLICY = {
    "stable_baselines3.": "PPO",
    "sb3_contrib.common.recurrent.": "RecurrentPPO",
    "sb3_contrib.common.maskable.": "MaskablePPO",
}


def _algorithm_in(path: Path) -> str:
    """Return the class that saved the model, by the settings that the zip holds; a TD3 may be a DDPG, which acts alike.

    Raises:
        ConfigError: the policy is of neither library, or no algorithm of theirs writes such settings.
    """
    data = _data_in(path)
    keys = data.keys()
    found = next((name for name, entries in _BY_ENTRIES if entries <= keys), None)
    module = _module_of(data.get("policy_class"))
    if found == "PPO":  # three classes write the same settings
        found = next((name for start, name in _PPO_BY_POLICY.items() if module.startswith(start)), found)
    if found is None or not module.startswith(("stable_baselines3.", "sb3_contrib.")):
        likely = found or "SAC"
        raise ConfigError(
            f"{path} was saved with a policy of {module or 'an unknown module'}, which does not tell the algorithm "
            f"(its settings are {f'those of {found}' if found else 'of none that is known'}): expected its name; pass "
            f"algorithm={likely!r}, say, or --agent {likely} to a command"
        )
    return found


__all__ = ["load", "load_normaliser"]
