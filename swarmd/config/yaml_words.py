"""YAML's words: what an unquoted scalar means, and what the parser's errors say to an operator."""

from __future__ import annotations

import re

import yaml

from swarmd.config.secret_values import shown

_LONGEST_NUMBER = 40
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def plain_scalar(text: str) -> None | bool | int | float | str:
    """An unquoted word as YAML 1.2's core schema reads it: `1e-5` is a number, `on`, `no` and dates are text.

    A number of absurd length stays text.
    """
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def explain(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    """The message and the line (from 0) for PyYAML's scanner and parser errors, in an operator's words."""
    problem = error.problem or ""
    here = error.problem_mark
    opened = error.context_mark or here
    line = None if here is None else here.line
    opened_line = None if opened is None else opened.line
    if here is not None and here.buffer is not None:
        before = here.buffer[: here.pointer + 1].rpartition("\n")[2]
        if before.endswith("\t") or "\t" in before[: len(before) - len(before.lstrip())]:
            return "a tab stands here; YAML is indented with spaces", line
    if problem.startswith("mapping values are not allowed"):
        return 'not "key: value": a colon is missing above, or a value with a colon needs quotes', line
    if problem.startswith("expected <block end>"):
        return "the indentation does not match the lines above", line
    if problem.startswith("could not find expected ':'"):
        return 'a word without ": " after it; a line is "key: value"', opened_line
    if problem.startswith(("expected ',' or ']'", "expected ',' or '}'")):
        return "a [ or { that opens here is not closed", opened_line
    if problem.startswith("expected the node content"):
        return "a value is missing, or a [ or { is not closed", line
    if "quoted scalar" in (error.context or "") and "unexpected end" in problem:
        return "a quote that opens here is not closed", opened_line
    if problem.endswith("that cannot start any token"):
        character = problem.removesuffix(" that cannot start any token").removeprefix("found character ")
        return f"a value cannot start with {character}; put it in quotes", line
    return f"not valid YAML: {shown(problem)}", line
