"""Configuration files: which there are, read so that no file can block or fill the node."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from swarmd.config.problems import ConfigProblem

MAX_BYTES = 1024 * 1024


def drop_ins(config_file: Path) -> tuple[list[Path], list[ConfigProblem]]:
    """The drop-ins of a config file in name order, and what is wrong with their folders.

    They lie in `config.d` beside it and, for NAME.yaml, in `NAME.d`; there a file takes the place of one with the
    same name in `config.d`. Hidden files are left alone, they are editors' copies; a `.yml` would be overlooked
    silently, so it is refused.
    """
    found: dict[str, Path] = {}
    problems: list[ConfigProblem] = []
    for folder in dict.fromkeys((config_file.parent / "config.d", own_folder(config_file))):
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(_problem(folder, _why(error)))
            continue
        message = "is not read; the name of a drop-in ends in .yaml"
        problems += [_problem(folder / name, message) for name in names if name.endswith(".yml")]
        found |= {name: folder / name for name in names if name.endswith(".yaml")}
    return [found[name] for name in sorted(found)], problems


def own_folder(config_file: Path) -> Path:
    """The folder of the drop-ins that are this config file's alone: `config.d` for config.yaml, `NAME.d` for NAME.yaml.

    It need not exist.
    """
    return config_file.parent / f"{config_file.stem}.d"


def read_text(path: Path) -> str | ConfigProblem:
    """The text of a file, or why there is none. Only regular files are read: a pipe could block for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _problem(path, "there is no such file")
    except OSError as error:
        return _problem(path, _why(error))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _problem(path, "is not a regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return _problem(path, _why(error))
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        return _problem(path, "is larger than 1 MiB, which no configuration is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _problem(path, "not a text file in UTF-8", content.count(b"\n", 0, error.start) + 1)


def _why(error: OSError) -> str:
    """Why a file cannot be read, with the way out for a user who may not: the service's are for root and itself."""
    denied = isinstance(error, PermissionError) and os.geteuid() != 0
    return f"cannot be read: {error.strerror}{'; run this with sudo, or let this user read it' if denied else ''}"


def _problem(path: Path, message: str, line: int | None = None) -> ConfigProblem:
    return ConfigProblem(str(path), line, "", None, message)
