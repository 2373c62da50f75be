"""Scorers of our own for the datasets of reasoning-gym whose scorers evaluate text as Python.

Each gives what the original (reasoning-gym 0.1.25) gives to honest answers, right, wrong or oddly formatted; none
runs any code that stands in an answer. Three kinds of answers are scored lower on purpose: NaN in place of numbers,
which the original of number_sorting takes for a sorted list of the right values; sympy's `Integral(...)`, with which
a question about an integral answers itself; and functions, factorials or names in countdown and puzzle24, which
their tasks do not allow. Imports sympy: for the scorer process only.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy

from swarmd.tasks.expressions import ExpressionError, parse_formula, parse_number, parse_polynomial
from swarmd.tasks.literals import NotALiteral, parse_literal

Entry = Mapping[str, Any]
SafeScorer = Callable[[str, Entry], float]
"""From an answer and the task's entry ("answer", "metadata") to the reward, 0 to 1."""

_INTEGER = re.compile(r"\b\d+\b")


def score_binary_matrix(answer: str, entry: Entry) -> float:
    """1 for the matrix as asked for, 0.1 for it as a Python list of lists."""
    if answer == entry["answer"]:
        return 1.0
    return 0.1 if _rows_as_text(answer) == entry["answer"] else 0.0


def score_n_queens(answer: str, entry: Entry) -> float:
    """1 for a valid board as asked for, 0.5 for one as a Python list of lists."""
    valid = entry["metadata"]["valid_answers"]
    if answer in valid:
        return 1.0
    try:
        board = "\n".join(" ".join(row) for row in parse_literal(answer))
    except (NotALiteral, TypeError):
        return 0.0
    return 0.5 if board in valid else 0.0


def score_spiral_matrix(answer: str, entry: Entry) -> float:
    """1 for the elements as asked for, 0.1 for them as a Python list."""
    expected, answer = entry["answer"].strip(), answer.strip()
    if answer and answer == expected:
        return 1.0
    try:
        elements = " ".join(str(item) for item in parse_literal(answer))
    except (NotALiteral, TypeError):
        return 0.0
    return 0.1 if elements == expected else 0.0


def score_string_insertion(answer: str, entry: Entry) -> float:
    """1 for the string as asked for, 0.1 for it as a Python list of characters."""
    if answer == entry["answer"]:
        return 1.0
    try:
        joined = "".join(parse_literal(answer))
    except (NotALiteral, TypeError):
        return 0.0
    return 0.1 if joined == entry["answer"] else 0.0


def score_number_sorting(answer: str, entry: Entry) -> float:
    """1 for a list in the asked order whose numbers are within 1 of the expected ones."""
    try:
        given = json.loads(answer.replace("'", '"'))
    except (ValueError, RecursionError):
        return 0.0
    expected = [float(number) for number in parse_literal(entry["answer"])]
    if not isinstance(given, list) or len(given) != len(expected):
        return 0.0
    try:
        numbers = [float(number) for number in given]
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if not all(math.isfinite(number) for number in numbers):
        return 0.0
    if numbers != sorted(numbers, reverse=entry["metadata"]["direction"] != "ascending"):
        return 0.0
    return 1.0 if all(abs(a - b) <= 1 for a, b in zip(numbers, expected, strict=True)) else 0.0


def score_bitwise_arithmetic(answer: str, entry: Entry) -> float:
    """1 for the value of the problem, in any base that Python's int() knows by its prefix."""
    try:
        given = int(answer, 0)
    except ValueError:
        return 0.0
    return 1.0 if given == _integer(ast.parse(entry["metadata"]["problem"], mode="eval").body) else 0.0


def score_countdown(answer: str, entry: Entry) -> float:
    """1 for an expression that uses each number once and gives the target, 0.05 for any other, 0.01 for none."""
    try:
        value = float(parse_number(answer))
    # float() of an expression that is no real number: sqrt(-1), 1/0.
    except (ExpressionError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return 0.01
    if sorted(int(number) for number in _INTEGER.findall(answer)) != sorted(entry["metadata"]["numbers"]):
        return 0.05
    target = entry["metadata"]["target"]
    return 1.0 if abs(value - target) <= 1e-6 + 1e-5 * abs(target) else 0.05


def score_puzzle24(answer: str, entry: Entry) -> float:
    """1 for an expression with four numbers of the allowed size whose value, cut to an integer, is 24; else 0.01."""
    try:
        solved = int(parse_number(answer)) == 24
    except (ExpressionError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return 0.01
    least, greatest = entry["metadata"]["difficulty"]["value"]
    numbers = [int(number) for number in _INTEGER.findall(answer)]
    return 1.0 if solved and len(numbers) == 4 and all(least <= n <= greatest for n in numbers) else 0.01


def score_polynomial_multiplication(answer: str, entry: Entry) -> float:
    """1 for the expanded product: equal to the expected one in the form sympy gives to it on its own."""
    try:
        given = parse_polynomial(answer)
    except (ExpressionError, ZeroDivisionError):
        return 0.0
    return 1.0 if given == parse_polynomial(entry["answer"]) else 0.0


def score_integration(answer: str, entry: Entry) -> float:
    """1 for an antiderivative: a formula whose derivative is equal to the integrand."""
    if answer == entry["answer"]:
        # Where sympy found no antiderivative, the expected answer is an unevaluated Integral.
        return 1.0
    variable = sympy.Symbol(entry["metadata"]["variable"])
    own = {variable.name: variable}
    try:
        formula = parse_formula(_unquoted(answer), {**own, "C": sympy.Symbol("C")})
    except (ExpressionError, ZeroDivisionError):
        return 0.0
    difference = sympy.diff(formula, variable) - parse_formula(entry["metadata"]["integrand"], own)
    if _differs_from_zero(difference):
        return 0.0
    return 1.0 if sympy.simplify(difference) == 0 else 0.0


SAFE_SCORERS: Mapping[str, SafeScorer] = {
    "binary_matrix": score_binary_matrix,
    "bitwise_arithmetic": score_bitwise_arithmetic,
    "countdown": score_countdown,
    "intermediate_integration": score_integration,
    "n_queens": score_n_queens,
    "number_sorting": score_number_sorting,
    "polynomial_multiplication": score_polynomial_multiplication,
    "puzzle24": score_puzzle24,
    "simple_integration": score_integration,
    "spiral_matrix": score_spiral_matrix,
    "string_insertion": score_string_insertion,
}


def _unquoted(answer: str) -> str:
    answer = answer.strip()
    return answer[1:-1] if len(answer) > 1 and answer[0] == answer[-1] and answer[0] in "'\"" else answer


def _rows_as_text(answer: str) -> str | None:
    try:
        return "\n".join(" ".join(str(item) for item in row) for row in parse_literal(answer))
    except (NotALiteral, TypeError):
        return None


def _integer(node: ast.expr) -> int:
    """The value of an expression of integers, + - * << and >>: the problems of bitwise_arithmetic."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_integer(operand)
        case ast.BinOp(left=left, op=kind, right=right):
            a, b = _integer(left), _integer(right)
            match kind:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.LShift() if b <= 64:
                    return a << b
                case ast.RShift():
                    return a >> b
    raise ValueError(f"{type(node).__name__} in a problem of bitwise_arithmetic")


# Away from zero, one and the axes, where wrong answers happen to be right; inside the domain of asin.
_SAMPLES = (sympy.Rational(17, 41), sympy.Rational(3, 13) + sympy.Rational(5, 17) * sympy.I)


def _differs_from_zero(expression: sympy.Expr) -> bool:
    """Whether the numbers show that the expression is not zero. It spares most wrong answers the costly proof."""
    terms = expression.as_ordered_terms()
    for sample in _SAMPLES:
        values = []
        for term in terms:
            number = term.subs({symbol: sample for symbol in term.free_symbols}).evalf(30)
            if not number.is_number or not number.is_finite:
                break
            values.append(number)
        else:
            scale = 1 + sum(abs(value) for value in values)
            if abs(sum(values)) > 1e-12 * scale:
                return True
    return False
