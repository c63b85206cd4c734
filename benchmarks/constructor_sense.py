"""What the constructor fuzz may find accepted, by target and argument, each with the reason why it is sensible."""

import fnmatch

WHOLE = {"5", "0", "np.uint64(2**63)", "2**63", "2**70", "10**18"}
TEXTS = {"'x'", "'7'"}
FLAGS = {"True", "False"}
FUNCTIONS = {"int", "lambda", "nn.Linear(2, 2)", "nn.Identity()"}
NUMBERS = WHOLE | {"0.5", "-0.5", "-1", "1e300"}

# (targets, argument, values, reason); the first row that fits counts.
RULES: tuple[tuple[str, str, set[str], str], ...] = (
    ("*", "flatten|stable_info|shared|deterministic|batched|replay", FLAGS, "it is a flag"),
    ("*", "reads_budget|discrete|double", FLAGS, "it is a flag"),
    ("*.watch", "static", FLAGS | {"None"}, "a flag, or None for what the module is"),
    ("*", "prioritized", FLAGS, "it is a flag"),
    ("*", "name|key|dict_key|scheme|prefix", TEXTS, "any text is a name"),
    ("PolynomialSchedule", "prefix", {"''"}, "no prefix"),
    ("*Policy|profile|*.add|*.watch", "name", {"None"}, "None: a name of its own"),
    ("*", "meter", TEXTS | {"None"}, "the name of a meter; None: that of the wrappers, or a new one"),
    ("*.phase", "key", {"*"}, "any object that is hashable tells updates apart; it is looked at when the phase begins"),
    ("FunctionPolicy", "function", FUNCTIONS, "whatever can be called; what it returns is checked when it acts"),
    ("*.watch|ScheduledMasks", "module|network", {"nn.Linear(2, 2)", "nn.Identity()"}, "a module"),
    ("solve_*_lp", "budget", {"inf"}, "above all costs: it buys the dearest"),
    ("solve_exit_lp", "budget", {"torch.zeros(2)"}, "a budget of each of the two states"),
    ("ModulePolicy", "act", {"lambda"}, "it is called with the example, and may return anything there"),
    ("ModulePolicy", "flops", {"None", *WHOLE}, "None: the example's cost"),
    ("ModulePolicy", "example", {"*"}, "whatever the module takes is an observation"),
    ("ExitPolicy", "act", FUNCTIONS, "whatever can be called"),
    ("ExitPolicy", "at|to_array", FUNCTIONS | {"None"}, "whatever can be called, or None for the network's own way"),
    ("TrainedActor", "worth", FUNCTIONS | {"None"}, "whatever can be called, or None for no critic"),
    ("TrainedActor", "to_array", FUNCTIONS, "whatever can be called"),
    ("HindsightReplay", "reward_of", FUNCTIONS, "whatever can be called; what it returns is checked when it is asked"),
    ("register_*", "factory|loader|formula", FUNCTIONS, "whatever can be called; asked when the name is loaded"),
    ("measure_*", "call", FUNCTIONS, "whatever can be called without arguments"),
    ("profile", "policy", FUNCTIONS, "a module that takes the observation"),
    ("profile", "obs", {"*"}, "the policy of the fuzz takes anything for an observation"),
    ("count_flops", "module_or_fn", FUNCTIONS, "whatever can be called with the example"),
    ("count_flops", "example_kwargs", {"None", "{}"}, "no arguments"),
    ("*", "convention", {"None"}, "get_meter: the convention that the meter has"),
    ("*", "by_row|charged|exit_after|normalisation|concatenation|threads|watts|hz", {"None"}, "not given"),
    ("*", "floor|horizon|scale|draw|period|initial_action|best|log|dataset", {"None"}, "not given"),
    ("*", "methods", {"()", "[]"}, "no method"),
    ("*Limit", "max_flops", WHOLE, "a whole number up to 2**62 − 1"),
    ("*Limit", "horizon", {"5"}, "steps"),
    ("*", "flops|rows|selector_flops", WHOLE, "a whole number up to 2**62 − 1; 2**63 is refused"),
    ("*Reward", "floor", NUMBERS, "any finite number"),
    ("*", "weight|scale", NUMBERS, "a price, any finite number of at least 0"),
    ("*", "period|hz|watts|seconds|bound|power|temperature|feedback|gate_temperature", NUMBERS, "a number above 0"),
    ("*", "energy_seconds", {"5", "0.5"}, "a window in seconds"),
    ("*", "seed", WHOLE, "a seed below 2**63"),
    ("*", "threshold", NUMBERS, "a return, any finite number"),
    ("*", "budget", NUMBERS, "a budget above all costs buys the dearest; shares above 1 mean 1"),
    ("*", "gamma|fraction|level|final|start|end|sparsity", {"0.5", "0"}, "a share in [0, 1]"),
    ("*", "alpha|beta", {"0", "0.5"}, "an exponent in [0, 1]"),
    ("PrioritizedReplay", "floor", NUMBERS, "a number of at least 0"),
    ("*", "reward_scale|ent_coef|exploration_noise", NUMBERS, "a number above 0"),
    ("*", "inputs|outputs|k|count|duration|hold|every|episodes|samples|warmup|threads|resamples|relabelled", WHOLE,
     "a whole number within bounds"),
    ("*", "capacity|buffer_size|batch_size|train_freq|n_step|policy_delay|learning_starts", WHOLE, "a whole number"),
    ("ActionMap", "start", {"-1", *WHOLE}, "a Discrete space may begin anywhere"),
    ("Checkpoint", "path", {"*"}, "a path"),
    ("*Replay|ReplayBuffer", "observation_shape|action_shape", {"()", "(0, 0)", "[]"}, "sizes; 0 is an empty array"),
    ("*", "initial_action", {"0", "True", "False"}, "an action of the space"),
    ("*DelayAction", "profile", {"np.zeros((2, 2))"}, "pairs of FLOPs and microseconds, both 0"),
    ("keep_units", "following", {"[]", "()"}, "no layer reads it: an output layer"),
    ("bootstrap_interval", "scores", {"*"}, "numbers of shape (runs,) or (runs, tasks)"),
    ("*Action", "selector", FUNCTIONS | {"None"}, "whatever can be called, or None; choices are checked when made"),
    ("mixture_of_cost", "mean_flops", NUMBERS, "above all costs: the dearest"),
    ("validate_flops|relative_costs|exit_costs|greedy_by_cost|mixture_of_cost|GateTeacher", "flops",
     {"torch.zeros(2)", "(0, 0)", "np.zeros((2, 2))"}, "two whole numbers"),
    ("solve_*", "costs", {"torch.zeros(2)", "(0, 0)", "np.zeros((2, 2))"}, "costs of 0"),
    ("solve_*", "values", {"np.zeros((2, 2))"}, "values of 0"),
    ("*", "net_arch|hidden", {"()", "[]"}, "no hidden layer"),
    ("layer_sparsities", "shapes", {"[]", "()", "{}", "''"}, "no layer"),
)  # fmt: skip


def why_sensible(target: str, argument: str, value: str) -> str | None:
    """Return why ``target(argument=value)`` is right to be accepted, ``None`` where it is not."""
    for targets, arguments, values, reason in RULES:
        fits = any(fnmatch.fnmatch(target, pattern) for pattern in targets.split("|"))
        if fits and argument in arguments.split("|") and (value in values or "*" in values):
            return reason
    return None
