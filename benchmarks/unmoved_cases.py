"""The agents and settings that ``benchmarks.unmoved`` trains: small nets, few steps, every option at least once."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

SMALL = {"net_arch": (16, 16), "batch_size": 32, "learning_starts": 100, "buffer_size": 1_000}
"""Settings of every case, unless the case has its own."""

CONTINUOUS = ("SAC", "TD3", "CQL", "BexaSAC", "BexaTD3", "BexaCQL", "GAIL", "Asymmetric")
OFFLINE = ("CQL", "DiscreteCQL", "BexaCQL", "BexaDiscreteCQL")
PLAIN = ("SAC", "TD3", "DQN", "CQL", "DiscreteCQL")
BEXA = ("BexaSAC", "BexaTD3", "BexaDQN", "BexaCQL", "BexaDiscreteCQL")
PARTS: dict[str, dict[str, Any]] = {
    "GAIL": {"discriminator_net_arch": (16, 16)},
    "Asymmetric": {"small_net_arch": (4, 4), "master_learning_starts": 100, "master_buffer_size": 200, "hold": 3},
}


@dataclass(frozen=True)
class Case:
    """One agent with one setting.

    Attributes:
        agent: public name of its class in ``agents``.
        setting: name of the setting.
        settings: keys of the agent's configuration.
        env: ``"Pendulum-v1"`` and the same with three actions, ``"levers"``; ``"CartPole-v1"`` and the same with four
            choices, ``"lanes"``; or ``"line"`` and ``"discrete line"``, which have goals.
        copies: environments of a vector environment; 0 for a single environment.
        autoreset: of a vector environment, a value of Gymnasium's ``AutoresetMode``.
        budget_input: whether ``BudgetAwareObservation`` adds the budget to the observations.
        penalty: weight of a ``ComputePenaltyReward`` around the environment, 0 for none.
        data: the agent's argument that takes the data set, or none.
        offline: whether ``learn`` counts updates.
        twice: whether ``learn`` is called twice, the second time within an episode.
        set_budget: budget that ``set_budget`` sets between the two calls.
        cross: whether the OLD code saves a checkpoint after half of the training and both codes go on from it.
        refused: whether the agent is expected to raise.
        recorded: whether ``tests/agents/unmoved.json`` holds the hash of this case.
    """

    agent: str
    setting: str
    settings: dict[str, Any] = field(default_factory=dict)
    env: str = "Pendulum-v1"
    copies: int = 0
    autoreset: str = "NextStep"
    budget_input: bool = False
    penalty: float = 0.0
    data: str | None = None
    offline: bool = False
    twice: bool = False
    set_budget: float | None = None
    cross: bool = False
    refused: bool = False
    recorded: bool = False

    @property
    def name(self) -> str:
        """Agent and setting in one word."""
        return f"{self.agent}/{self.setting}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {"name": self.name, **asdict(self)}


def case_of(agent: str, setting: str, settings: dict[str, Any] | None = None, **rest: Any) -> Case:
    """Return the case of ``agent`` with small nets and with what the agent needs.

    Defaults are trained in the plain environments. Other settings have several actions and an odd batch size, so that
    the order of sums, means and products shows in the last bits; and agents with a target network of values move it,
    which their defaults do after 10,000 steps.
    """
    default, continuous = setting.startswith("default"), agent in CONTINUOUS
    own = {**SMALL, **PARTS.get(agent, {})} | ({} if default else {"batch_size": 31})
    own |= {} if default or continuous else {"target_update_interval": 40}
    own |= {"action_samples": 3} if "CQL" in agent and continuous and not default else {}
    defaults: dict[str, Any] = {"offline": agent in OFFLINE}
    defaults["env"] = ("levers", "Pendulum-v1")[default] if continuous else ("lanes", "CartPole-v1")[default]
    defaults["data"] = "dataset" if agent in OFFLINE else "demonstrations" if agent == "GAIL" else None
    return Case(agent, setting, {**own, **(settings or {})}, **{**defaults, **rest})


# ---- the five agents without exits ----------------------------------------------------------------------------------

PLAIN_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "SAC": {
        "n_step=3": {"n_step": 3},
        "ent_coef=0.2": {"ent_coef": 0.2},
        "target_update_interval=3": {"target_update_interval": 3, "tau": 0.05},
        "train_freq=3": {"train_freq": 3, "gradient_steps": 2, "activation": "tanh"},
        "a replay that overflows": {"buffer_size": 150, "reward_scale": 0.1},
    },
    "TD3": {
        "policy_delay=1": {"policy_delay": 1},
        "n_step=3": {"n_step": 3, "exploration_noise": 0.3},
        "target_noise_clip=0.1": {"target_policy_noise": 0.4, "target_noise_clip": 0.1, "policy_delay": 3},
    },
    "DQN": {
        "train_freq=1": {"train_freq": 1, "max_grad_norm": 0.5},
        "double": {"double": True},
        "dueling": {"dueling": True},
        "prioritized": {"prioritized": True},
        "all switches": {"double": True, "dueling": True, "prioritized": True, "n_step": 3, "train_freq": 2},
        "tau=0.1": {"tau": 0.1, "target_update_interval": 1, "exploration_fraction": 1.0},
    },
    "CQL": {
        "cql_alpha=auto": {"cql_alpha": "auto"},
        "imitation_steps=80": {"imitation_steps": 80},
        "backup_entropy": {"backup_entropy": True},
        "n_step=3": {"n_step": 3, "ent_coef": 0.1},
    },
    "DiscreteCQL": {
        "cql_alpha=0.1": {"cql_alpha": 0.1},
        "double, dueling": {"double": True, "dueling": True},
    },
}


def plain_cases() -> Iterator[Case]:
    """Yield the cases of the agents without exits."""
    for agent, options in PLAIN_OPTIONS.items():
        yield case_of(agent, "defaults", recorded=True)
        for setting, settings in options.items():
            yield case_of(agent, setting, settings)
        yield case_of(agent, "unknown key", {"learning_rat": 1e-3}, refused=True)
        yield case_of(agent, "gamma=2", {"gamma": 2.0}, refused=True)
        other = "CartPole-v1" if agent in CONTINUOUS else "Pendulum-v1"
        yield case_of(agent, "other actions", env=other, data=None, refused=True)
        yield case_of(agent, "cross-load", cross=True)
    yield case_of("DQN", "cross-load, all switches", PLAIN_OPTIONS["DQN"]["all switches"], cross=True)
    yield case_of("SAC", "correlated_noise", {"correlated_noise": 0.3}, twice=True)
    yield case_of("SAC", "correlated_noise, vector", {"correlated_noise": 0.3, "train_freq": 2}, copies=3)
    yield case_of("SAC", "penalty", {"train_freq": 2}, penalty=1e-4)
    for agent in ("SAC", "TD3", "DQN"):
        yield case_of(agent, "vector", copies=3, penalty=1e-4)
        yield case_of(agent, "vector, gradient_steps=-1", {"gradient_steps": -1, "train_freq": 2}, copies=3)
    for mode in ("SameStep", "Disabled"):
        yield case_of("DQN", f"vector, {mode}", copies=3, autoreset=mode)
    for agent, env in (("SAC", "line"), ("DQN", "discrete line")):
        yield case_of(agent, "hindsight=4", {"hindsight": 4}, env=env)
    yield case_of("DQN", "hindsight, prioritized", {"hindsight": 4, "prioritized": True}, refused=True)
    yield case_of("DiscreteCQL", "prioritized", {"prioritized": True}, refused=True)
    yield case_of("CQL", "no data", data=None, refused=True)


# ---- the five agents with exits -------------------------------------------------------------------------------------

ACCEPTANCE: dict[str, dict[str, Any]] = {
    "stepwise": {"scheme": "stepwise"},
    "imitate": {"exit_training": "imitate"},
    "batch_budget, mixture": {"gate_training": "batch_budget", "gate_loss": "mixture"},
    "ensemble": {"acting": "ensemble"},
    "backbone": {"acting": "backbone"},
    "fraction": {"gate_training": "fraction"},
}
"""What every agent with exits is trained with; agents that learn online also have ``budget_feedback`` in the third."""
EXIT_OPTIONS: dict[str, dict[str, Any]] = {
    "threshold": {"gate": "threshold", "budget": 0.2},
    "gate_interval=2": {"gate_interval": 2, "gate_loss_scale": 0.1, "exit_after": (1, 2), "activation": "tanh"},
    "advantage": {"gate_training": "advantage"},
    "softmax": {"gate_training": "softmax", "gate_temperature": 0.3},
    "greedy": {"gate_training": "greedy", "gate_loss": "mixture"},
    "exit_after=(0, 2)": {"exit_after": (0, 2), "budget": 0.9},
    "stepwise, imitate": {
        "scheme": "stepwise",
        "exit_training": "imitate",
        "imitation_scale": 1.0,
        "gate_training": "batch_budget",
        "gate_interval": 2,
    },
}
READ = {"budget_from_observation": True}
OWN_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "BexaSAC": {"critic_learning_rate": {"critic_learning_rate": 1e-3, "ent_coef": 0.2, "target_update_interval": 2}},
    "BexaTD3": {"policy_delay=1, stepwise": {"policy_delay": 1, "scheme": "stepwise", "critic_learning_rate": 1e-3}},
    "BexaDQN": {
        "double, prioritized": {"double": True, "prioritized": True, "n_step": 3},
        "train_freq=1, imitate": {"train_freq": 1, "exit_training": "imitate"},
    },
    "BexaCQL": {
        "imitation_steps=80": {"imitation_steps": 80, "scheme": "stepwise"},
        "cql_alpha=auto": {"cql_alpha": "auto", "backup_entropy": True, "critic_learning_rate": 1e-3},
    },
    "BexaDiscreteCQL": {"double": {"double": True, "cql_alpha": 0.1}},
}


def exit_cases() -> Iterator[Case]:
    """Yield the cases of the agents with exits."""
    for agent in BEXA:
        online = agent not in OFFLINE
        yield case_of(agent, "defaults", recorded=True)
        for setting, settings in ACCEPTANCE.items():
            fed = {"budget_feedback": 1e-3} if online and "mixture" in setting else {}
            yield case_of(agent, setting + (", feedback" if fed else ""), {**settings, **fed}, recorded=True)
        # Seeds with which the targets of "advantage" and "greedy" differ: with 0 they come to the same for all agents.
        seed = 3 if agent in CONTINUOUS else 5
        for setting, settings in {**EXIT_OPTIONS, **OWN_OPTIONS[agent]}.items():
            yield case_of(agent, setting, {"seed": seed, "train_freq": 2, **settings})
        yield case_of(agent, "set_budget", twice=True, set_budget=0.1)
        yield case_of(agent, "cross-load", cross=True)
        if online:
            yield from online_exit_cases(agent)
        yield from refused_exit_cases(agent, online)
    yield case_of("BexaSAC", "hindsight=4", {"hindsight": 4, "train_freq": 2}, env="line")


def online_exit_cases(agent: str) -> Iterator[Case]:
    """Yield the cases of an agent with exits that learns in an environment."""
    yield case_of(agent, "gate_loss_scale=0", {"gate_loss_scale": 0.0})
    yield case_of(agent, "penalty", {"train_freq": 2}, penalty=1e-4)
    yield case_of(agent, "budget_from_observation", READ, budget_input=True)
    yield case_of(agent, "budget_from_observation, vector", READ, budget_input=True, copies=3)
    yield case_of(agent, "vector", {"budget_feedback": 1e-2}, copies=3, penalty=1e-4)
    yield case_of(agent, "vector, ensemble", {"acting": "ensemble", "gradient_steps": -1, "train_freq": 2}, copies=2)
    settings = {"scheme": "stepwise", "gate_training": "fraction", "train_freq": 2}
    yield case_of(agent, "cross-load, stepwise", settings, cross=True)
    fed = {"gate_training": "batch_budget", "budget_feedback": 1e-2, "train_freq": 2}
    yield case_of(agent, "cross-load, feedback", fed, cross=True)
    yield case_of(
        agent, "cross-load, budget_from_observation", {**READ, "train_freq": 2}, budget_input=True, cross=True
    )


def refused_exit_cases(agent: str, online: bool) -> Iterator[Case]:
    """Yield settings that an agent with exits refuses."""
    refused: dict[str, dict[str, Any]] = {
        "unknown key": {"gate_los": "mixture"},
        "budget=-1": {"budget": -1.0},
        "exit_after=(5,)": {"exit_after": (5,)},
        "exit_after=(2,)": {"exit_after": (2,)},
        "gate=other": {"gate": "other"},
        "budget_from_observation, softmax": {**READ, "gate_training": "softmax"},
        "budget_from_observation, no wrapper": READ,
        "feedback, ensemble": {"acting": "ensemble", "budget_feedback": 1e-3},
    }
    if not online:
        refused["feedback"] = {"budget_feedback": 1e-3}
    if "D" in agent.removesuffix("CQL") and "TD3" not in agent:
        refused["dueling"] = {"dueling": True}
    for setting, settings in refused.items():
        yield case_of(agent, setting, settings, refused=True)
    if online:
        yield case_of(
            agent, "set_budget, greedy", {"gate_training": "greedy"}, twice=True, set_budget=0.1, refused=True
        )
        yield case_of(agent, "set_budget=-1", twice=True, set_budget=-1.0, refused=True)


# ---- agents that are made of them -----------------------------------------------------------------------------------


def composed_cases() -> Iterator[Case]:
    """Yield the cases of GAIL and of the asymmetric sub-policies."""
    yield case_of("GAIL", "defaults")
    yield case_of("GAIL", "log D - log(1-D)", {"reward_form": "log D - log(1-D)", "activation": "tanh"})
    yield case_of("GAIL", "no demonstrations", data=None, refused=True)
    yield case_of("Asymmetric", "defaults")
    yield case_of("Asymmetric", "own buffers", {"shared_buffer": False, "master_prioritized": True, "hold": (2, 5)})
    yield case_of("Asymmetric", "vector", copies=2, refused=True)
    for agent in ("GAIL", "Asymmetric"):
        yield case_of(agent, "cross-load", cross=True)


def all_cases() -> dict[str, Case]:
    """Return every case by its name."""
    cases = [*plain_cases(), *exit_cases(), *composed_cases()]
    named = {case.name: case for case in cases}
    if len(named) != len(cases):
        raise ValueError("two cases have the same name: expected each name once; rename one")
    return named
