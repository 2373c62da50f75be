"""Files and YAML that cannot be read."""

from __future__ import annotations

from tests.unit.broken_config import BrokenConfig, broken

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = (
    BrokenConfig(
        "a named file that does not exist",
        ("config.yaml: there is no such file",),
        files={},
    ),
    BrokenConfig(
        "a folder in place of the file",
        ("config.yaml: is not a regular file",),
        files={},
        folders=("config.yaml",),
    ),
    BrokenConfig(
        "a named pipe",
        ("config.yaml: is not a regular file",),
        files={},
        pipes=("config.yaml",),
    ),
    BrokenConfig(
        "a link to itself",
        ("config.yaml: cannot be read: Too many levels of symbolic links",),
        files={},
        links={"config.yaml": "config.yaml"},
    ),
    BrokenConfig(
        "a file without permission",
        ("config.yaml: cannot be read: Permission denied; run this with sudo, or let this user read it",),
        files={"config.yaml": "log: {level: debug}\n"},
        unreadable=("config.yaml",),
    ),
    BrokenConfig(
        "a drop-in folder that is a file",
        ("config.d: cannot be read: Not a directory",),
        files={"config.yaml": "", "config.d": "x"},
    ),
    BrokenConfig(
        "a drop-in that points nowhere",
        ("config.d/10-gone.yaml: there is no such file",),
        folders=("config.d",),
        links={"config.d/10-gone.yaml": "gone"},
    ),
    BrokenConfig(
        "a drop-in with another ending",
        ("config.d/10-model.yml: is not read; the name of a drop-in ends in .yaml",),
        files={"config.yaml": "", "config.d/10-model.yml": "model: {name: auto}\n"},
    ),
    broken("a file of zeros", bytes(64), ":1: not a text file: character U+0000 is not allowed"),
    broken("a picture", b"log:\n  level: info\n\x89PNG\r\n\x1a\n", ":3: not a text file in UTF-8"),
    broken("text in UTF-16", "log: {level: info}\n".encode("utf-16"), ":1: not a text file in UTF-8"),
    broken(
        "more than a megabyte", "# filler\n" * 130_000, ": is larger than 1 MiB, which no configuration is"
    ),
    broken(
        "a tab for indentation",
        "training:\n\tgroup_size: 4\n",
        ":2: a tab stands here; YAML is indented with spaces",
    ),
    broken(
        "a tab behind spaces",
        "training:\n  group_size: 4\n  \tseed: 1\n",
        ":3: a tab stands here; YAML is indented with spaces",
    ),
    broken(
        "a list at the top",
        "- training\n- model\n",
        ":1: the file must be a map of sections, such as training: with group_size: 8 below it",
    ),
    broken(
        "a word at the top",
        "training\n",
        ":1: the file must be a map of sections, such as training: with group_size: 8 below it",
    ),
    broken(
        "two documents",
        "log: {level: info}\n---\nlog: {level: debug}\n",
        ":2: a second document starts here; a file holds one",
    ),
    broken(
        "a key without its colon",
        "training:\n  group_size 4\n  seed: 1\n",
        ':3: not "key: value": a colon is missing above, or a value with a colon needs quotes',
    ),
    broken(
        "a second colon",
        "model:\n  name: auto: yes\n",
        ':2: not "key: value": a colon is missing above, or a value with a colon needs quotes',
    ),
    broken(
        "a wrong indentation",
        "training:\n    group_size: 4\n  seed: 1\n",
        ":3: the indentation does not match the lines above",
    ),
    broken("an open quote", "model:\n  name: 'auto\n", ":2: a quote that opens here is not closed"),
    broken(
        "an open bracket",
        "swarm:\n  peers: [\nlog:\n  level: info\n",
        ":2: a [ or { that opens here is not closed",
    ),
    broken(
        "a value that starts with a percent sign",
        "model:\n  name: %home\n",
        ":2: a value cannot start with '%'; put it in quotes",
    ),
    broken(
        "an escape that is no character",
        'model:\n  name: "\\UFFFFFFFF"\n',
        ": not valid YAML: an escape or a directive with a number out of range",
    ),
    broken(
        "half a surrogate pair", 'model:\n  name: "\\ud800"\n', ":2: not valid text: half of a surrogate pair"
    ),
    broken(
        "a Python object",
        "model: !!python/object/apply:os.system ['id']\n",
        ":1: YAML tags such as !!python or !include are not allowed",
    ),
    broken(
        "an included file",
        "model:\n  name: !include /etc/passwd\n",
        ":2: YAML tags such as !!python or !include are not allowed",
    ),
    broken(
        "an alias that does not exist",
        "log:\n  level: *loud\n",
        ":2: an alias (*NAME) without an anchor (&NAME) finished before it",
    ),
    broken(
        "an alias inside itself",
        "swarm:\n  peers: &all [*all]\n",
        ":2: an alias (*NAME) without an anchor (&NAME) finished before it",
    ),
    broken(
        "aliases of aliases", ALIASES, ":5: more than 20000 values (aliases count for what they stand for)"
    ),
    broken(
        "a thousand brackets",
        "swarm:\n  peers: " + "[" * 1000 + "]" * 1000 + "\n",
        ":2: nested deeper than 16 levels",
    ),
    broken("a map as a key", "{a: b}: c\n", ":1: a key must be a plain word"),
)
