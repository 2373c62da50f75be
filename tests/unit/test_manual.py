"""The manual tells of the program as it is: commands, options, settings, defaults, events, limits of the unit."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import make
from swarmd import cli
from swarmd.config import Config
from swarmd.config.messages import is_section
from swarmd.config.values import Section
from swarmd.system import exits
from swarmd.system.events import EVENTS
from swarmd.system.ledger import CAUSES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMANDS_PAGE = DOCS / "swarmd.8"
CONFIG_PAGE = DOCS / "swarmd.yaml.5"
COMPLETION = DOCS / "swarmd.bash-completion"
PAGES = (COMMANDS_PAGE, CONFIG_PAGE)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command by its words: "run", "model pull"; a command that only holds others is left out."""

    def leaves(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in below:
            for name, inner in action.choices.items():
                yield from leaves(inner, f"{words} {name}".strip())
        if not below:
            yield words, parser

    return dict(leaves(cli._parser(), ""))


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a parser."""
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")}


COMMON = frozenset.intersection(*(frozenset(options(parser)) for parser in commands().values()))


# mdoc(7): a macro, its arguments, and lines of text.


def roff(text: str) -> str:
    return text.replace(r"\-", "-").replace(r"\&", "").replace(r"\e", "\\")


def section(page: Path, title: str) -> list[str]:
    """The source lines of a section or subsection."""
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line in (f".Sh {title}", f".Ss {title}")]
    assert len(starts) == 1, f"{page.name}: section {title} stands {len(starts)} times"
    ends = r"\.Sh " if lines[starts[0]].startswith(".Sh") else r"\.S[hs] "
    rest = lines[starts[0] + 1 :]
    return rest[: next((number for number, line in enumerate(rest) if re.match(ends, line)), len(rest))]


def items(lines: list[str]) -> dict[str, list[str]]:
    """The outermost list of a section: its tags, and what stands under each, lists in it included."""
    found: dict[str, list[str]] = {}
    depth, tag = 0, None
    for line in lines:
        if line.startswith(".Bl"):
            depth += 1
        elif line.startswith(".El"):
            depth -= 1
        if depth == 1 and line.startswith(".It "):
            tag = roff(line.removeprefix(".It "))
            found[tag] = []
        elif tag is not None and depth:
            found[tag].append(roff(line))
    return found


def described_commands() -> dict[str, tuple[str, list[str]]]:
    """By command: the line that names it with its arguments, and its description."""
    found = {}
    for tag, lines in items(section(COMMANDS_PAGE, "COMMANDS")).items():
        words = re.match(r"Cm ([a-z -]+?)(?= (?:Op|Oo|Ar)\b|$)", tag)
        assert words, tag
        found[words[1]] = tag, lines
    return found


def flags(text: str) -> set[str]:
    return {f"-{name}" if name.startswith("-") else f"-{name}" for name in re.findall(r"Fl (-[a-z-]+)", text)}


def test_the_manual_has_every_command_and_no_other() -> None:
    assert set(described_commands()) == set(commands())


def test_the_manual_has_every_option_and_no_other() -> None:
    for words, parser in commands().items():
        tag, _ = described_commands()[words]
        assert flags(tag) == options(parser) - COMMON, words


def test_the_manual_describes_every_option_that_takes_a_value() -> None:
    for words, parser in commands().items():
        _, lines = described_commands()[words]
        described = flags("\n".join(line for line in lines if line.startswith(".It ")))
        valued = {action.option_strings[-1] for action in parser._actions if action.option_strings and action.metavar}
        assert valued - COMMON <= described, words


def test_the_manual_has_every_argument() -> None:
    for words, parser in commands().items():
        tag, _ = described_commands()[words]
        for action in parser._actions:
            if action.metavar and action.nargs != 0:
                common = bool(COMMON & set(action.option_strings))
                assert common or f"Ar {action.metavar}" in tag, f"{words}: {action.metavar}"


def test_the_manual_has_the_common_options() -> None:
    assert flags("\n".join(items(section(COMMANDS_PAGE, "Common options")))) == COMMON


def test_the_synopsis_is_that_of_the_commands() -> None:
    synopsis = roff(" ".join(section(COMMANDS_PAGE, "SYNOPSIS")))
    forms = {}
    for form in re.split(r"\.Nm swarmd ?", synopsis)[1:]:
        if words := re.match(r"\.Cm ([a-z -]+?)(?= \.|$)", form):
            forms[words[1].strip()] = flags(form)
    assert forms == {words: options(parser) - COMMON for words, parser in commands().items()}


def test_the_manual_has_every_exit_code() -> None:
    listed = set(items(section(COMMANDS_PAGE, "EXIT STATUS")))
    assert listed == {str(code) for code in (exits.EXIT_OK, exits.EXIT_RESTART, exits.EXIT_CONFIG, 1, cli._USAGE, 130)}


def test_the_manual_has_every_kind_of_event_and_no_other() -> None:
    listed = items(section(COMMANDS_PAGE, "JOURNAL"))
    assert {tag.removeprefix("Sy ") for tag in listed if tag.startswith("Sy ")} == EVENTS


def test_the_manual_has_every_cause_of_a_stop_and_no_other() -> None:
    listed = items(section(COMMANDS_PAGE, "RESTARTS"))
    assert {tag.removeprefix("Sy ") for tag in listed} == set(CAUSES)


@pytest.mark.parametrize("unit", ["swarmd.service", "swarmd@.service"])
def test_the_manual_tells_the_limits_of_the_unit(unit: str) -> None:
    text = (ROOT / "systemd" / unit).read_text(encoding="utf-8")
    settings = dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE))
    page = roff(COMMANDS_PAGE.read_text(encoding="utf-8"))
    told = dict(re.findall(r"^\.(?:Pq )?Li ([A-Za-z]+)=(.+?)(?: [.,])?$", page, re.MULTILINE))
    for name in ("MemoryMax", "WatchdogSec", "RestartSec", "TimeoutStopSec", "RestartPreventExitStatus"):
        assert told[name] == settings[name], name


# swarmd.yaml(5)


def defaults(values: Section, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(values).model_fields.items():
        value = getattr(values, name)
        if is_section(field.annotation):
            found |= defaults(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def test_the_page_of_the_settings_is_up_to_date() -> None:
    if CONFIG_PAGE.read_text(encoding="utf-8") != make.page():
        pytest.fail("docs/swarmd.yaml.5 is not what etc/config.yaml and swarmd/config say: run docs/make.py")


def test_the_manual_has_every_setting_with_its_default() -> None:
    told = {}
    text = CONFIG_PAGE.read_text(encoding="utf-8")
    for entry in re.split(r"^\.It Cm ", text[text.index(".Sh SETTINGS") :], flags=re.MULTILINE)[1:]:
        name, default = entry.splitlines()[0], re.search(r"^Default: \\fB(.*)\\fP\.$", entry, re.MULTILINE)
        if default is not None and "[]" not in name:
            told[roff(name)] = yaml.safe_load(roff(default[1]))
    assert told == defaults(Config())


# Both, and the handbook.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.skipif(shutil.which("man") is None, reason="man-db is not installed")
def test_the_page_renders_without_warnings(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "" and len(done.stdout) > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing_to_warn_of(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "" and done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_a_name_for_apropos(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(".Sh NAME")
    assert lines[start + 1] == f".Nm {page.stem}" and lines[start + 2].startswith(".Nd ")


def called(text: str) -> Iterator[str]:
    """The calls of swarmd with arguments in examples: indented or fenced lines, and `quoted` words."""
    examples = re.findall(r"^\.Bd -literal.*?^\.Ed$|^```\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    for line in roff("\n".join(examples)).splitlines():
        for part in re.split(r"&&|\|\|?|;", line.split("  ")[0].split(" #")[0]):
            if match := re.fullmatch(r"\s*(?:sudo (?:--preserve-env )?)?(?:/usr/bin/)?swarmd( .+)", part):
                yield match[1]
    yield from re.findall(r"`(?:sudo (?:--preserve-env )?)?swarmd ([^`]+)`", text)
    yield from re.findall(r"^\.Ql swarmd (.*?)(?: [,.])?$", roff(text), re.MULTILINE)


@pytest.mark.parametrize("path", [*PAGES, DOCS / "operators.md"], ids=lambda path: path.name)
def test_every_call_in_the_examples_is_one_that_the_program_takes(path: Path) -> None:
    calls = list(called(path.read_text(encoding="utf-8")))
    assert calls
    for call in calls:
        if shlex.split(call) != ["--version"]:
            cli._parser().parse_args(shlex.split(call))


def test_every_setting_named_in_the_handbook_exists() -> None:
    known = set(defaults(Config()))
    text = (DOCS / "operators.md").read_text(encoding="utf-8")
    sections = "|".join(Config.model_fields)
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?=[:`])", text))
    assert named and named <= known


# Completion.


def completed(*words: str, directory: Path = ROOT) -> set[str]:
    """What bash offers for the last of these words."""
    script = (
        f"source {shlex.quote(str(COMPLETION))}\n"
        f"COMP_WORDS=({' '.join(map(shlex.quote, ('swarmd', *words)))}) COMP_CWORD={len(words)}\n"
        "_swarmd\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-u", "-c", script],
        capture_output=True, text=True, check=True, cwd=directory,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize("words", commands())
def test_bash_completes_the_options_of(words: str) -> None:
    parser = commands()[words]
    assert completed(*words.split(), "--") == options(parser)


@pytest.mark.parametrize("words", commands())
def test_bash_completes_no_option_where_a_value_belongs_in(words: str) -> None:
    for action in commands()[words]._actions:
        if action.option_strings and action.nargs != 0:
            name = action.option_strings[-1]
            assert not {reply for reply in completed(*words.split(), name, "") if reply.startswith("-")}, name
            # The value is no command, whatever it looks like.
            assert completed(name, "check", *words.split(), "--") == options(commands()[words]), name
            assert completed(name, "=", "check", *words.split(), "--") == options(commands()[words]), name


def test_bash_completes_commands() -> None:
    first = {words.split()[0] for words in commands()}
    assert completed("") - {"--help", "--version"} - COMMON == first
    assert completed("--") == {"--version"} | COMMON
    for group in {words.split()[0] for words in commands() if " " in words}:
        actions = {words.split()[1] for words in commands() if words.startswith(f"{group} ")}
        assert completed(group, "") - {"--help"} == actions
    assert completed("re") == {command for command in first if command.startswith("re")}


def test_a_common_option_before_the_command_is_as_good_as_behind_it() -> None:
    for words in commands():
        name, *more = words.split()
        given = [*more, *("x" for action in commands()[words]._actions if not action.option_strings)]
        told = [vars(cli._parser().parse_args(line)) for line in (
            ["--instance", "second", "--config", "c", name, *given],
            [name, *given, "--instance", "second", "--config", "c"],
            ["--instance", "first", "--config", "c", name, *given, "--instance", "second"],
        )]  # fmt: skip
        assert told[0] == told[1] == told[2], words
        assert (told[0]["instance"], told[0]["config"], told[0]["state"]) == ("second", Path("c"), None), words


def test_bash_completes_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "state").mkdir()
    assert completed("check", "--config", "m", directory=tmp_path) == {"mine.yaml"}
    assert completed("check", "--config", "=", "m", directory=tmp_path) == {"mine.yaml"}
    assert completed("run", "--state", "", directory=tmp_path) == {"state"}
    assert completed("model", "export", "", directory=tmp_path) == {"state"}
    assert completed("model", "export", "state", "", directory=tmp_path) == options(commands()["model export"])
