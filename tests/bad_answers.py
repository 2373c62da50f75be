"""Reading tests/data/bad_answers.jsonl: answers made to run code, to hang, to eat memory or to crash a scorer.

A line is {"id", "title", "dataset", "answer", "entry": {"answer", "metadata"}, "most": the highest score that the
answer may get}. Long values are described, not written out; `built` makes them:
  {"parts": [...]}                                   a text joined from its parts, which are
      {"text": T, "times": N, "separator": S}        T repeated (T may itself be such a description)
      {"numbers": [A, B], "separator": S}            the numbers A to B-1
      {"letters": N, "separator": S}                 the first N small letters
  {"list_of": V, "times": N}                         a list
  {"first": D, "keys": "p{}", "times": N, "value": V}  a dict: D, and N keys more
"""

import json
import string
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "data" / "bad_answers.jsonl"


def bad_answers() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()]


def built(value: Any) -> Any:
    match value:
        case {"parts": list(parts)}:
            return "".join(map(_part, parts))
        case {"list_of": item, "times": int(times)}:
            return [item] * times
        case {"first": dict(first), "keys": str(keys), "times": int(times), "value": item}:
            return first | {keys.format(n): item for n in range(times)}
        case dict():
            return {key: built(item) for key, item in value.items()}
    return value


def _part(part: dict[str, Any]) -> str:
    separator = part.get("separator", "")
    match part:
        case {"text": text, "times": int(times)}:
            return separator.join([built(text)] * times)
        case {"numbers": [first, end]}:
            return separator.join(map(str, range(first, end)))
        case {"letters": int(count)}:
            return separator.join(string.ascii_lowercase[:count])
    raise ValueError(f"unknown part {part}")
