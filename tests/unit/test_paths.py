"""Where things live, and that two nodes never share a state directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.system.exits import ConfigurationError
from swarmd.system.paths import cache_directory, lock_state, runtime_directory, state_directory

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("STATE_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_flag_comes_first_then_systemd_then_xdg_then_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert state_directory(None) == tmp_path / "home/.local/state/swarmd"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_directory(None) == tmp_path / "xdg/swarmd"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'unit'}:{tmp_path / 'second'}")
    assert state_directory(None) == tmp_path / "unit"
    assert state_directory(tmp_path / "flag") == tmp_path / "flag"


def test_the_cache_has_the_same_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_directory() == tmp_path / "home/.cache/swarmd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg/swarmd"
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "unit"))
    assert cache_directory() == tmp_path / "unit"


def test_the_status_lies_in_the_state_directory_but_under_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert runtime_directory(tmp_path / "state") == tmp_path / "state"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    assert runtime_directory(tmp_path / "state") == tmp_path / "run"


def test_a_relative_xdg_directory_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    assert state_directory(None) == tmp_path / "home/.local/state/swarmd"


def test_a_relative_flag_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_directory(Path(".run")) == tmp_path / ".run"


def test_a_new_state_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    assert state_directory(tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/swarmd"])
def test_a_place_that_cannot_be_a_directory_is_named_with_the_flag(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=rf"{place} \(--state\) cannot be used as a directory: "):
        state_directory(tmp_path / place)


HOLDER = """
import sys, time
from pathlib import Path
from swarmd.system.paths import lock_state
lock = lock_state(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_node_on_one_state_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match=f"{tmp_path}: .* in use by process {child.pid}; stop"):
            lock_state(tmp_path)
        child.kill()  # the lock goes with the process, however it ends
    lock_state(tmp_path).release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    with lock_state(tmp_path), pytest.raises(ConfigurationError, match=f"process {os.getpid()};"):
        lock_state(tmp_path)
    with lock_state(tmp_path):
        pass


def test_children_do_not_hold_their_parents_lock(tmp_path: Path) -> None:
    lock = lock_state(tmp_path)
    program = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        child.stdout.readline()  # from here on the child is the program; before, it is still a copy of this process
        lock.release()
        lock_state(tmp_path).release()
        child.communicate(b"\n")


def test_a_directory_that_cannot_be_locked_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the state directory cannot be written: No such file"):
        lock_state(tmp_path / "missing")
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigurationError, match="the state directory cannot be written: Is a directory"):
        lock_state(tmp_path)
