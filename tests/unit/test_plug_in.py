"""Looking for an environment's factory survives whatever its module does when it is imported."""

from __future__ import annotations

import functools
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmd.system.exits import SettingsRefused
from swarmd.tasks.plug_in import check_factory

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534  # whom every system has
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# What a stranger plants: it books who ran it, beside itself.
PLANTED = "import os\nopen(__file__ + '.ran', 'a').write(f'{os.geteuid()} {os.getegid()} {os.getgroups()}\\n')\n"
# The command, in whatever interpreter; the plug-in needs nothing but the standard library.
CHECK = """
import pwd, sys
sys.path.insert(0, sys.argv[1])
from swarmd.tasks.plug_in import check_factory
check_factory("their_tasks:make", pwd.getpwuid(int(sys.argv[2])) if sys.argv[2] else None, sys.argv[3:])
"""


def lives(pid: int) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def module(folder: Path, text: str) -> Path:
    file = folder / "their_tasks.py"
    file.write_text(text)
    return file


def checked(python: str, cwd: Path, user: int | str, first: Path) -> subprocess.CompletedProcess[str]:
    command = [python, "-P", "-s", "-c", CHECK, str(ROOT), str(user), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


@functools.cache
def anybodys_python() -> str:
    """An interpreter that nobody can start with this checkout; a venv in root's home is none."""
    for python in (sys.executable, "/usr/bin/python3.11"):
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import swarmd.tasks.plug_in"
        command = [python, "-P", "-s", "-c", program]
        try:
            if subprocess.run(command, user=NOBODY, group=NOBODY, cwd="/", capture_output=True).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip(f"user {NOBODY} can start neither {sys.executable} nor /usr/bin/python3.11 with {ROOT}")


def open_to_all(folder: Path) -> None:
    """Lets everybody read and write there, in a test's own folder; those that pytest makes above are closed as well."""
    for file in folder.iterdir():
        file.chmod(0o644)
    folder.chmod(0o777)
    for above in folder.parents[:3]:
        above.chmod(above.stat().st_mode | 0o011)


def refusal(folder: Path, name: str = "their_tasks:make", seconds: float = 60.0) -> str:
    with pytest.raises(SettingsRefused) as refused:
        check_factory(name, None, [str(folder)], seconds)
    (problem,) = refused.value.problems
    assert problem.key == "tasks.environment"
    return problem.message


def test_a_factory_that_is_there_is_found_and_not_called(tmp_path: Path) -> None:
    module(tmp_path, "print('hello')\ndef make(settings, context): raise AssertionError\n")
    check_factory("their_tasks:make", None, [str(tmp_path)])
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
    done = checked(sys.executable, ROOT, "", tmp_path)
    assert done.stdout == "" and "chatter" in done.stderr


def test_what_lies_in_the_working_directory_is_not_run(tmp_path: Path) -> None:
    hostile, tasks = tmp_path / "hostile", tmp_path / "tasks"
    hostile.mkdir()
    tasks.mkdir()
    for name in ("json", "swarmd", "difflib", "sitecustomize"):
        (hostile / f"{name}.py").write_text(PLANTED)
    module(tasks, "def make(settings, context): pass\n")
    checked(sys.executable, hostile, "", tasks)
    assert not list(hostile.glob("*.ran")), "the program's own imports came from there"


@pytest.mark.parametrize("user", [pytest.param("", id="oneself"), pytest.param(NOBODY, marks=only_root)])
def test_what_lies_beside_a_plug_in_does_not_come_before_the_programs_own_modules(
    tmp_path: Path, user: int | str
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("difflib", "swarmd", "helper"):
        (folder / f"{name}.py").write_text(PLANTED)
    module(folder, "import difflib, helper\ndifflib.get_close_matches\ndef make(settings, context): pass\n")
    open_to_all(folder)
    checked(anybodys_python() if user else sys.executable, tmp_path, user, folder)
    ran = {file.name: file.read_text().split()[0] for file in folder.glob("*.ran")}
    assert ran == {"helper.py.ran": str(user or os.geteuid())}


@only_root
def test_root_has_the_module_run_by_another_from_its_first_line_on(tmp_path: Path) -> None:
    python, folder = anybodys_python(), tmp_path / "tasks"
    folder.mkdir()
    module(folder, f"{PLANTED}open(__file__ + '.home', 'w').write(os.environ['HOME'] + ' ' + os.getcwd())\n"
                   "def make(s, c): pass\ntry:\n    os.setuid(0)\n    del make\nexcept PermissionError:\n    pass\n")
    open_to_all(folder)
    checked(python, tmp_path, NOBODY, folder)
    groups = os.getgrouplist(pwd.getpwuid(NOBODY).pw_name, pwd.getpwuid(NOBODY).pw_gid)
    assert (folder / "their_tasks.py.ran").read_text() == f"{NOBODY} {pwd.getpwuid(NOBODY).pw_gid} {groups}\n"
    assert (folder / "their_tasks.py.home").read_text() == f"{pwd.getpwuid(NOBODY).pw_dir} /"


@only_root
def test_where_the_other_user_cannot_start_the_interpreter_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, closed = tmp_path / "tasks", tmp_path / "closed"
    folder.mkdir()
    module(folder, f"{PLANTED}def make(s, c): pass\n")
    open_to_all(folder)
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(closed / "python"))
    with pytest.raises(SettingsRefused) as refused:
        check_factory("their_tasks:make", pwd.getpwuid(NOBODY), [str(folder)])
    message = refused.value.problems[0].message
    assert f"user {pwd.getpwuid(NOBODY).pw_name}" in message and "Permission denied" in message
    assert str(closed / "python") in message and "install the package" in message
    assert not list(folder.glob("*.ran"))


def test_a_program_that_cannot_be_read_is_told_apart_from_a_module_that_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, f"{PLANTED}def make(s, c): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing")])
    message = refusal(tmp_path)
    assert "ended before it came to the module" in message and "cannot be read" in message
    assert not list(tmp_path.glob("*.ran"))
