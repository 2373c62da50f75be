"""Our scorers give what the originals, which evaluate text, give to honest answers; and never run what stands there.

The originals run here on text made by this file alone.
"""

import json
import random
import signal
from collections.abc import Iterator

import pytest
import sympy
from reasoning_gym.factory import DATASETS
from sympy.integrals.manualintegrate import manualintegrate

from swarmd.tasks.safe_scorers import SAFE_SCORERS
from swarmd.tasks.scorable import REPLACED

# The items of each dataset, and how many of them are tried in every format; generating the last three, and proving
# integrals of nonsense, takes the original its time.
ITEMS = {"intermediate_integration": 40, "simple_integration": 150, "puzzle24": 120}
IN_EVERY_FORMAT = {"intermediate_integration": 1, "simple_integration": 5}


def formatted(answer: str) -> Iterator[str]:
    yield answer
    yield f" {answer}\n"
    yield answer + "."
    yield f"({answer})"
    yield f"[{answer}]"
    yield f"'{answer}'"
    yield f"```\n{answer}\n```"
    yield f"The answer is {answer}"
    yield answer.replace(" ", "")
    yield answer.replace(" ", "  ")
    yield answer.replace("\n", " ")
    yield answer[: len(answer) // 2]
    yield answer + answer
    yield answer.upper()
    yield from ("", "0", "1", "-3", "[]", "[[]]", "None", "I don't know", "x", "24", "[1, 2", "1e5", "{}")


def grid_answers(entry, rng) -> Iterator[str]:
    rows = [line.split() for line in entry["answer"].split("\n")]
    cells = [[int(c) if c.lstrip("-").isdigit() else c for c in row] for row in rows]
    for grid in (rows, cells):
        yield repr(grid)
        yield json.dumps(grid)
        yield repr(tuple(map(tuple, grid)))
        yield repr([cell for row in grid for cell in row])
        yield ", ".join(str(row) for row in grid)
    yield "\n".join(",".join(row) for row in rows)
    yield repr(["".join(row) for row in rows])
    yield repr([" ".join(row) for row in rows])
    rng.choice(rows)[0] = "7"
    yield "\n".join(" ".join(row) for row in rows)
    yield repr(rows)


def string_answers(entry, rng) -> Iterator[str]:
    answer = entry["answer"]
    yield repr(list(answer))
    yield json.dumps(list(answer))
    yield repr(tuple(answer))
    yield json.dumps(answer)
    yield ",".join(answer)
    yield repr([answer[:3], answer[3:]])
    yield f"'{answer[:3]}' '{answer[3:]}'"
    yield entry["metadata"]["string"]
    yield repr(list(entry["metadata"]["string"]))


def sorting_answers(entry, rng) -> Iterator[str]:
    numbers = [float(n) for n in entry["metadata"]["sorted_numbers"]]
    yield json.dumps(numbers)
    yield json.dumps([str(n) for n in numbers])
    yield repr([round(n) for n in numbers])
    yield repr([n + 0.5 for n in numbers])
    yield repr([n + 1.5 for n in numbers])
    yield repr(numbers[::-1])
    yield repr(rng.sample(numbers, len(numbers)))
    yield repr(numbers[:-1])
    yield repr([*numbers, 1.0])
    yield repr([numbers])
    yield repr({"a": numbers})
    yield " ".join(map(str, numbers))
    yield repr(["a"] * len(numbers))
    yield repr([10**400] * len(numbers))
    yield repr([None] * len(numbers))


def bitwise_answers(entry, rng) -> Iterator[str]:
    value = int(entry["answer"], 16)
    yield str(value)
    yield hex(value).upper()
    yield bin(value)
    yield oct(value)
    yield f" {value:#x} "
    yield f"{value:,}"
    yield f"{value:_}"
    yield f"{value:x}"
    yield hex(value + 1)
    yield hex(-value)
    yield f"0x{value & 0xFFFFFFFF:08x}"
    yield entry["metadata"]["problem"]


def arithmetic_answers(entry, rng) -> Iterator[str]:
    yield entry["answer"].replace("*", "×")
    yield entry["answer"] + " = 24"
    yield f"{entry['answer']} + 0"
    yield f"-({entry['answer']})"
    yield f"2*({entry['answer']})/2"
    yield f"({entry['answer']})/0"
    yield f"{entry['answer']}.0"
    for _ in range(12):
        numbers = [str(n) for n in entry["metadata"]["numbers"]]
        rng.shuffle(numbers)
        if rng.random() < 0.2:
            numbers[0] = rng.choice(("7", "0", "2.5", "1000", "007", "1_0", "-4"))
        while len(numbers) > 1:
            a, b = numbers.pop(), numbers.pop()
            operator = rng.choice(("+", "-", "*", "/", "+", "-", "*", "/", " + ", " * ", "//", "%", "^"))
            numbers.append(rng.choice(("{}{}{}", "({}{}{})")).format(a, operator, b))
        yield numbers[0]
    yield "8*3*1*1"
    yield "(5 + 1)*(6 - 2)"
    yield "2**3*3*1"
    yield "9.6*2.5"
    yield "199/8"


def polynomial_answers(entry, rng) -> Iterator[str]:
    product = sympy.sympify(entry["answer"])
    terms = [str(term) for term in product.as_ordered_terms()]
    rng.shuffle(terms)
    yield " + ".join(terms)
    yield "+".join(terms)
    yield str(sympy.factor(product))
    yield str(sympy.horner(product))
    yield entry["metadata"]["polynomial_expr"]
    yield f"1*({entry['answer']})"
    yield f"({entry['answer']})*2/2"
    yield f"2*({entry['answer']})"
    yield f"({entry['answer']})**1"
    yield f"x*({entry['answer']})/x"
    yield f"{entry['answer']} + 0*x"
    yield f"{entry['answer']} + 1"
    yield f"{entry['answer']} + x - x"
    yield entry["answer"].replace("**", "^")
    yield entry["answer"].replace("*", "")
    yield entry["answer"].replace("x", "y")
    yield entry["answer"].replace("2", "2.0")
    yield f"{entry['answer']} + pi - pi"
    yield f"{entry['answer']} = 0"


def integration_answers(entry, rng) -> Iterator[str]:
    formula = sympy.sympify(entry["answer"].removesuffix(" + C"))
    if formula.has(sympy.Integral):
        # Where the dataset itself has no antiderivative, look for one: its expected answer is no honest one.
        formula = manualintegrate(sympy.sympify(entry["metadata"]["integrand"]), sympy.Symbol("x"))
    body = str(formula)
    yield body
    for constant in ("c", "K", "k", "5", "C_1", "constant", "pi", "E", "C**2", "sqrt(2)", "C + D"):
        yield f"{body} + {constant}"
    yield f"{body} + x"
    yield f"{body} + C*x"
    yield f"2*({body}) + C"
    yield f"-({body}) + C"
    yield f"({body})/3 + 2*({body})/3"
    yield body.replace("**", "^")
    yield body.replace("x", "X")
    yield body.replace("X", "x")
    yield body.replace("*", "")
    yield body.replace("exp(", "E**(")
    yield entry["metadata"]["integrand"]
    yield f"F(x) = {body}"
    yield str(sympy.expand(formula))
    yield str(sympy.factor(formula))
    yield str(formula.evalf(5))
    yield str(sympy.diff(formula))


VARIANTS = {
    "binary_matrix": grid_answers,
    "n_queens": grid_answers,
    "spiral_matrix": grid_answers,
    "string_insertion": string_answers,
    "number_sorting": sorting_answers,
    "bitwise_arithmetic": bitwise_answers,
    "countdown": arithmetic_answers,
    "puzzle24": arithmetic_answers,
    "polynomial_multiplication": polynomial_answers,
    "simple_integration": integration_answers,
    "intermediate_integration": integration_answers,
}


class TooSlow(BaseException):
    """More CPU time than a worker would get."""


def original_reward(dataset, answer: str, entry: dict) -> float | None:
    """What the original gives; None where it needs more than a CPU second (it simplifies some formulas for ever)."""
    fired = []
    running = True

    def interrupt(number, frame) -> None:
        fired.append(number)
        if running:
            raise TooSlow

    before = signal.signal(signal.SIGVTALRM, interrupt)
    # Again and again: a `__del__`, or a bare `except:` in the middle of sympy, may swallow the exception.
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.0, 0.1)
    try:
        reward = dataset.score_answer(answer, entry)
    except TooSlow:
        return None
    finally:
        running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    # Its bare `except:` turns the interruption into a score of 0.
    return None if fired else reward


def test_every_dataset_whose_original_evaluates_text_has_a_scorer_of_ours():
    assert set(SAFE_SCORERS) == REPLACED == set(VARIANTS)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_honest_answers_get_what_the_original_gives(name):
    dataset_class, config_class = DATASETS[name]
    dataset = dataset_class(config_class(seed=5, size=10_000))
    rng = random.Random(name)
    before = ""
    rewards = set()
    slow = 0
    for index in range(ITEMS.get(name, 250)):
        entry = dataset[index]
        answers = [entry["answer"], before, *VARIANTS[name](entry, rng)]
        if "Integral" not in entry["answer"]:
            answers += formatted(entry["answer"])
        if index >= IN_EVERY_FORMAT.get(name, 30):
            answers = [entry["answer"], before, *rng.sample(answers, 2)]
        for answer in answers:
            expected = original_reward(dataset, answer, entry)
            if expected is None:
                slow += 1
                continue
            rewards.add(expected)
            assert SAFE_SCORERS[name](answer, entry) == expected, (index, answer, entry["answer"])
        before = entry["answer"]
    assert len(rewards) > 1 and slow < 20
