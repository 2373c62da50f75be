"""Where the installed service keeps its things, and that root leaves nothing there that the service cannot read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import become_owner, installation, is_there, status_directory

ROOT = Path(__file__).resolve().parents[2]


def test_the_places_are_those_of_the_units() -> None:
    for unit, instance in (("swarmd.service", None), ("swarmd@.service", "%i")):
        lines = (ROOT / "systemd" / unit).read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        named = installation(None if instance is None else "x")
        below = named.state.name if instance is None else "swarmd/%i"
        assert settings["StateDirectory"] == settings["RuntimeDirectory"] == below
        assert settings["ExecStart"].endswith(f"--config {str(named.config).replace('/x.yaml', '/%i.yaml')}")


@pytest.mark.parametrize("name", ["config", "checkpoints", "huggingface", "", ".", "..", "a/b", "-x", "a b", "x" * 64])
def test_an_instance_cannot_take_a_name_that_means_something_else(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no instance can have this name"):
        installation(name)


def test_an_instance_has_its_own_unit_configuration_and_directories() -> None:
    named = installation("gpu-1")
    assert (named.unit, str(named.config)) == ("swarmd@gpu-1.service", "/etc/swarmd/gpu-1.yaml")
    assert (str(named.state), str(named.runtime)) == ("/var/lib/swarmd/gpu-1", "/run/swarmd/gpu-1")


def test_the_status_of_an_instance_is_looked_for_where_its_unit_writes_it(tmp_path: Path) -> None:
    assert status_directory("gpu-1", tmp_path) == Path("/run/swarmd/gpu-1")


ACT = """
import os, sys
from pathlib import Path
from swarmd.system.installation import become_owner
become_owner(Path(sys.argv[1]))
Path(sys.argv[1], "written").touch()
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.environ["HOME"])
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_goes_on_as_the_owner_of_the_state_and_cannot_go_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)  # nobody, whom every system has
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    shown = subprocess.run(
        [sys.executable, "-c", ACT, str(state)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert shown.stdout.splitlines()[1] == "for good"
    assert shown.stdout.startswith("65534 65534 65534 [65534] /")
    assert (state / "written").stat().st_uid == 65534


def test_whoever_owns_the_state_stays_who_they_are(tmp_path: Path) -> None:
    before = os.geteuid()
    become_owner(tmp_path)
    become_owner(tmp_path / "missing")
    assert os.geteuid() == before


PLANTED = """
import os, sys
from pathlib import Path
from swarmd.system import installation
installation.STATE_ROOT = Path(sys.argv[1])
installation.become_owner(Path(sys.argv[2]))
print(os.geteuid())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("others", [0, 1])
def test_a_link_that_the_services_user_has_planted_makes_root_nobody_else(tmp_path: Path, others: int) -> None:
    root, elsewhere = tmp_path / "lib" / "swarmd", tmp_path / "elsewhere"
    root.mkdir(parents=True)
    elsewhere.mkdir()
    os.chown(elsewhere, others, others)
    (root / "planted").symlink_to(elsewhere)
    os.chown(root, 65534, 65534)
    command = [sys.executable, "-c", PLANTED, str(root), str(root / "planted")]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout == "65534\n", "it went on as whoever owns what the link leads to"


def test_a_folder_that_one_may_not_look_into_is_not_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as somebody else")
    closed = tmp_path / "closed"
    (closed / "second").mkdir(parents=True)
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)  # pytest's own are closed as well
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (closed / "second").is_dir()
        assert not is_there(closed / "second")
    finally:
        os.seteuid(0)
    assert is_there(closed / "second")
