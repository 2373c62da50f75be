"""What is wrong with a configuration, as records that a person and a program can both read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigProblem:
    """One mistake.

    `file` is a path, or "environment NAME" for a variable; `line` counts from 1 and is None where a whole
    file or a variable is meant; `key` is dotted ("training.group_size"), empty where the file itself is at
    fault; `value` is the text as it was written, on one line, or None where there is none or it must not be
    shown.
    """

    file: str
    line: int | None
    key: str
    value: str | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f"{self.key}: " if self.key else ""
        value = "" if self.value is None else f" (got {self.value})"
        return f"{place}: {key}{self.message}{value}"


class ConfigErrors(Exception):
    """All mistakes of all files and variables together; as text, one line each.

    The exit code for it is EXIT_CONFIG (78).
    """

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
