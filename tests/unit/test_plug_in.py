"""Looking for an environment's factory survives whatever its module does when it is imported."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmd.system.exits import SettingsRefused
from swarmd.tasks.plug_in import check_factory


def lives(pid: int) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def module(folder: Path, text: str) -> Path:
    file = folder / "their_tasks.py"
    file.write_text(text)
    return file


def refusal(folder: Path, name: str = "their_tasks:make", seconds: float = 60.0) -> str:
    with pytest.raises(SettingsRefused) as refused:
        check_factory(name, folder, [str(folder)], seconds)
    (problem,) = refused.value.problems
    assert problem.key == "tasks.environment"
    return problem.message


def test_a_factory_that_is_there_is_found_and_not_called(tmp_path: Path) -> None:
    module(tmp_path, "print('hello')\ndef make(settings, context): raise AssertionError\n")
    check_factory("their_tasks:make", tmp_path, [str(tmp_path)])
    assert not (tmp_path / "__pycache__").exists(), "who checks leaves nothing behind"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make", "there is no module 'no_such_module' on Python's path"),
        ("their_tasks:made", "the module their_tasks has no 'made'"),
        ("their_tasks:NUMBER", "their_tasks:NUMBER is a int, not a function"),
        ("no-such-name", "there is no environment 'no-such-name'"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, name: str, message: str) -> None:
    module(tmp_path, "NUMBER = 3\ndef make(settings, context): pass\n")
    assert message in refusal(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0\n", "its module cannot be imported: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit()\n", "importing its module ended the process (0)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "importing its module ended the process (-11)"),
    ],
)
def test_a_module_that_fails_in_its_import_is_told_of(tmp_path: Path, text: str, message: str) -> None:
    module(tmp_path, text)
    assert message in refusal(tmp_path)


def test_a_module_that_hangs_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n"
    file = module(tmp_path, f"{child}open(__file__ + '.pid', 'w').write(str(child.pid))\nwhile True: pass\n")
    assert "takes longer than 10 s" in refusal(tmp_path, seconds=10.0)
    pid = int(Path(f"{file}.pid").read_text())
    end = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < end, "its child lives on"
        time.sleep(0.05)


def test_what_a_module_prints_is_kept_out_of_the_answer(tmp_path: Path) -> None:
    module(tmp_path, "import os\nprint('chatter', flush=True)\nos.write(1, b'noise')\ndef make(s, c): pass\n")
    call = "import pathlib, sys; from swarmd.tasks import plug_in\n" \
           "plug_in.check_factory('their_tasks:make', pathlib.Path(sys.argv[1]), sys.argv[1:])\n"
    done = subprocess.run(
        [sys.executable, "-c", call, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "" and "chatter" in done.stderr
