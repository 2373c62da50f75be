"""Each broken mix is refused before the first round, with what is wrong, where, and what would be right."""

from collections.abc import Callable

import pytest

from swarmd.system.exits import ConfigurationError
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.mix_files import mix_of

AT = "tasks.datasets[0]"
NOT_AGAIN = "cannot be made again by a peer"
CHAIN_SUM_HAS = "it has allow_negation, max_digits, max_terms, min_digits, min_terms"


def one(name: str, weight: float = 1.0, **config: object) -> Callable[[], TaskMix]:
    return lambda: TaskMix([DatasetSpec(name, weight, config)])


BROKEN: list[tuple[Callable[[], TaskMix], str]] = [
    (lambda: TaskMix([]), "tasks.datasets: is empty; name at least one dataset"),
    (one("chain_sums"), f"{AT}.name: reasoning-gym has no dataset 'chain_sums'; did you mean chain_sum?"),
    (one("zzzz"), f"{AT}.name: reasoning-gym has no dataset 'zzzz'"),
    (
        one("composite"),
        f"{AT}.name: dataset 'composite' cannot be trained on: it only combines others; name those, with their weights",
    ),
    (
        one("codeio"),
        f"{AT}.name: the tasks of codeio {NOT_AGAIN}: it makes them by running programs that read the clock, files "
        "and random numbers of their own",
    ),
    (
        one("intermediate_integration"),
        f"{AT}.name: the tasks of intermediate_integration {NOT_AGAIN}: sympy writes some of their answers in a "
        "form that follows Python's hash seed",
    ),
    (
        one("knight_swap"),
        f"{AT}.name: the tasks of knight_swap {NOT_AGAIN}: their answers follow Python's hash seed, and one takes "
        "seconds to make",
    ),
    (one("gcd", 0), f"{AT}.weight: 0 is not a number above 0"),
    (one("gcd", -1.5), f"{AT}.weight: -1.5 is not a number above 0"),
    (one("gcd", float("nan")), f"{AT}.weight: nan is not a number above 0"),
    (one("gcd", float("inf")), f"{AT}.weight: inf is not a number above 0"),
    (
        one("chain_sum", min_term=2),
        f"{AT}.config.min_term: chain_sum has no such setting; did you mean min_terms?; {CHAIN_SUM_HAS}",
    ),
    (one("chain_sum", depth=2), f"{AT}.config.depth: chain_sum has no such setting; {CHAIN_SUM_HAS}"),
    (
        one("chain_sum", seed=2),
        f"{AT}.config.seed: cannot be set: each task's seed is derived from the swarm, the round and the node",
    ),
    (one("chain_sum", size=500), f"{AT}.config.size: cannot be set: a dataset here has no end"),
    (
        one("chain_sum", min_terms="two"),
        f"{AT}.config.min_terms: 'two' does not fit: input should be a valid integer",
    ),
    (
        one("chain_sum", min_terms="2"),
        f"{AT}.config.min_terms: '2' does not fit: input should be a valid integer",
    ),
    (
        one("chain_sum", min_terms=2.5),
        f"{AT}.config.min_terms: 2.5 does not fit: input should be a valid integer",
    ),
    (
        one("chain_sum", min_terms=True),
        f"{AT}.config.min_terms: True does not fit: input should be a valid integer",
    ),
    (
        one("chain_sum", min_terms=None),
        f"{AT}.config.min_terms: None does not fit: input should be a valid integer",
    ),
    (
        one("chain_sum", allow_negation=1),
        f"{AT}.config.allow_negation: 1 does not fit: input should be a valid boolean",
    ),
    (one("chain_sum", min_terms=0), f"{AT}.config: chain_sum refuses it: min_terms must be positive"),
    (
        one("chain_sum", min_terms=5, max_terms=4),
        f"{AT}.config: chain_sum refuses it: max_terms must be >= min_terms",
    ),
    (
        one("basic_arithmetic", format_style="fancy"),
        f"{AT}.config.format_style: 'fancy' does not fit: input should be 'simple' or 'natural'",
    ),
    (
        one("basic_arithmetic", operators=["+", "%"]),
        f"{AT}.config: basic_arithmetic refuses it: unsupported operator: %",
    ),
    (
        one("basic_arithmetic", operators=["+", 3]),
        f"{AT}.config.operators: ['+', 3] does not fit: [1] input should be a valid string",
    ),
    (
        one("basic_arithmetic", operators="+"),
        f"{AT}.config.operators: '+' does not fit: input should be a valid list",
    ),
    (
        one("binary_matrix", p_zero=2),
        f"{AT}.config: binary_matrix refuses it: p_zero must be between 0 and 1",
    ),
    (
        one("word_sorting", transformation="sideways"),
        f"{AT}.config.transformation: 'sideways' does not fit: input should be 'lowercase', 'uppercase', "
        "'original' or 'randomcase'",
    ),
    (
        one("calendar_arithmetic", tasks=["count_dayz"]),
        f"{AT}.config: calendar_arithmetic refuses it: Invalid tasks: count_dayz. Valid tasks are: "
        "count_business_days, count_days, is_leap_year, recurring_event_day, weekday_of_date, "
        "weekday_of_date_from_first_date, weekday_offset",
    ),
    (
        one("rearc", board_format_opts={"alphabets": ["a"]}),
        f"{AT}.config.board_format_opts: {{'alphabets': ['a']}} does not fit: there is no 'alphabets' in it; did "
        "you mean alphabet?; it has alphabet, col_delimiter, row_delimiter, array_brackets",
    ),
    # An assertion without a message: the line itself says it.
    (
        one("gsm_symbolic", difficulty=2.0),
        f"{AT}.config: gsm_symbolic refuses it: 1.0 <= self.difficulty <= 1.0",
    ),
    (
        one("power_function", min_base=float("nan")),
        f"{AT}.config.min_base: nan does not fit: input should be a finite number",
    ),
    # Nothing checks these before a task is made.
    (one("caesar_cipher", delimiter=""), f"{AT}.config: caesar_cipher refuses it: empty separator"),
    (
        one("count_bits", min_n=5, max_n=5),
        f"{AT}.config: count_bits has too few different questions with it: among 992 of them none is kept for "
        "evaluation; widen it",
    ),
    (
        one("power_function", min_exponent=3, max_exponent=2),
        f"{AT}.config: power_function makes no task with it: ValueError: empty range for randrange() (3, 3, 0)",
    ),
    (
        lambda: TaskMix([DatasetSpec("chain_sum"), DatasetSpec("chain_sum", 2.0, {"min_terms": 2})]),
        "tasks.datasets[1]: is the same as tasks.datasets[0]; give it one weight",
    ),
    (
        lambda: mix_of("embeded"),
        "tasks.datasets: there is no preset 'embeded'; did you mean embedded?; the presets are embedded, rl-swarm",
    ),
    (lambda: mix_of("x"), "tasks.datasets: there is no preset 'x'; the presets are embedded, rl-swarm"),
    (
        lambda: mix_of("chain_sum"),
        "tasks.datasets: 'chain_sum' is a dataset; write the mix as a list, [{name: chain_sum}]",
    ),
]


@pytest.mark.parametrize(("make", "message"), BROKEN, ids=[message[:70] for _, message in BROKEN])
def test_a_broken_mix_is_refused_with_its_exact_message(make: Callable[[], TaskMix], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        make()
    assert str(refusal.value) == message


def test_everything_that_is_wrong_is_named_at_once() -> None:
    datasets = [
        DatasetSpec("chain_sum", 1.0, {"min_terms": "two", "max_term": 3}),
        DatasetSpec("lcm"),
        DatasetSpec("gcd", -1.0),
        DatasetSpec("nope"),
    ]
    with pytest.raises(MixError) as refusal:
        TaskMix(datasets)
    assert [problem.key for problem in refusal.value.problems] == [
        "tasks.datasets[0].config.min_terms",
        "tasks.datasets[0].config.max_term",
        "tasks.datasets[2].weight",
        "tasks.datasets[3].name",
    ]
    assert str(refusal.value).splitlines() == [str(problem) for problem in refusal.value.problems]


def test_a_long_refusal_of_a_dataset_is_cut() -> None:
    with pytest.raises(MixError) as refusal:
        TaskMix([DatasetSpec("figlet_font", 1.0, {"static_font": "none"})])
    assert str(refusal.value).startswith(f"{AT}.config: figlet_font refuses it: static_font must be one of ['")
    assert len(str(refusal.value)) < 400
