"""Python literals in answers, read without evaluating anything."""

from __future__ import annotations

import ast
from typing import Any


class NotALiteral(ValueError):
    """The text is no Python literal, or one that is nested too deeply."""


def parse_literal(text: str) -> Any:
    """The value of a number, string, list, tuple, set or dict written in Python; NotALiteral for all else."""
    try:
        return ast.literal_eval(text)
    # All that the parser and the conversion raise on text as it comes (documentation of ast.literal_eval).
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise NotALiteral(str(error)) from None
