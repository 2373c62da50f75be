"""The package under dpkg and apt, in roots that are not booted: what it installs, upgrades, keeps and removes.

What systemd makes of it is tested on booted machines, in the modules beside this one.
"""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import roots
from tests.system.repacked import MARK, STRAY, repacked

pytestmark = pytest.mark.skipif(roots.why_not() is not None, reason=str(roots.why_not()))

KEY = bytes(range(64))
ENABLED = "etc/systemd/system/multi-user.target.wants/swarmd.service"


@pytest.fixture(scope="module")
def installed() -> Path:
    """A root with the package installed without a network, only to be read."""
    return roots.shared_root()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root of the test's own with the package installed."""
    with roots.installed_root(tmp_path / "machine") as path:
        yield path


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repacked("99", tmp_path_factory.mktemp("newer"))


def state(root: Path) -> str:
    """dpkg's word for the package: `install ok installed`, or nothing where it knows none."""
    try:
        return roots.offline(root, "dpkg-query", "--show", "--showformat=${Status}", "swarmd")
    except roots.RootError:
        return ""


def write_state(root: Path) -> None:
    """What a node and an instance leave behind."""
    for folder in ("var/lib/swarmd", "var/lib/swarmd/second"):
        (root / folder / "checkpoints").mkdir(parents=True)
        (root / folder / "checkpoints" / "weights").write_text("learned")
        (root / folder / "identity.key").write_bytes(KEY)
    (root / "var/cache/swarmd/huggingface").mkdir(parents=True)
    (root / "etc/swarmd/config.d/50-swarm.yaml").write_text("swarm: {}\n")
    (root / "etc/swarmd/second.yaml").write_text("training: {}\n")


def test_every_installed_file_is_the_packages(installed: Path) -> None:
    assert roots.offline(installed, "dpkg", "--verify", "swarmd") == ""
    assert state(installed) == "install ok installed"


def test_the_root_has_no_python_packages_but_the_bundled_ones(installed: Path) -> None:
    packages = roots.offline(installed, "dpkg-query", "--show", "--showformat=${Package}\n").split()
    python = {name for name in packages if "python" in name}
    assert python == {"python3.11", "python3.11-minimal", "libpython3.11-stdlib", "libpython3.11-minimal"}


def test_it_is_enabled_but_not_started(installed: Path) -> None:
    assert (installed / ENABLED).is_symlink()
    assert not (installed / "var/lib/swarmd").exists(), "the node's first start makes its state directory"


@pytest.mark.parametrize(
    ("path", "mode", "group"),
    [
        ("etc/swarmd", 0o755, "swarmd"),
        ("etc/swarmd/config.yaml", 0o640, "swarmd"),
        ("etc/swarmd/config.d", 0o750, "swarmd"),
        ("etc/swarmd/credentials", 0o700, "root"),
        ("usr/bin/swarmd", 0o755, "root"),
    ],
)
def test_the_configuration_is_for_root_and_the_node_only(installed: Path, path: str, mode: int, group: str) -> None:
    found = roots.offline(installed, "stat", "--format=%a %U %G", f"/{path}").split()
    assert found == [f"{mode:o}", "root", group]


def test_nothing_of_it_is_writable_by_the_node(installed: Path) -> None:
    found = roots.offline(installed, "find", "/usr/lib/swarmd", "!", "-user", "root", "-o", "-perm", "/022", "!",
                          "-type", "l")  # fmt: skip
    assert found == ""


def test_every_library_finds_what_it_links_to(installed: Path) -> None:
    script = "find /usr/lib/swarmd -name '*.so*' -type f -print0 | xargs -0 ldd 2>&1 | grep 'not found' | sort -u"
    missing = roots.offline(installed, "sh", "-c", script).splitlines()
    bundled = {path.name for path in (installed / "usr/lib/swarmd").rglob("*.so*")}
    # scipy loads its own libquadmath before the library that links to it, which ldd cannot know.
    assert [line for line in missing if line.split()[0] not in bundled] == []


def test_it_runs_as_its_user_and_leaves_nothing_beside_its_files(root: Path) -> None:
    modules = "torch, transformers, hivemind, web3, genrl, reasoning_gym, pyseccomp, sdnotify, systemd.journal"
    script = f"import {modules}; print(sorted(__import__('swarmd').__path__))"
    printed = roots.offline(
        root, "setpriv", "--reuid=swarmd", "--regid=swarmd", "--clear-groups", "env", "HOME=/tmp/home",
        "MPLCONFIGDIR=/tmp/home", "/usr/lib/swarmd/bin/python3", "-P", "-s", "-c", script,
    )  # fmt: skip
    assert "['/usr/lib/swarmd/lib/python3.11/site-packages/swarmd']" in printed
    rounds = roots.offline(root, "setpriv", "--reuid=swarmd", "--regid=swarmd", "--clear-groups", "env",
                           "HOME=/tmp/home", "swarmd", "run", "--rounds", "1", "--state", "/tmp/state")  # fmt: skip
    assert "round 0: reward" in rounds
    written = roots.offline(root, "find", "/usr", "/etc/swarmd", "-newer", "/var/lib/dpkg/status", "-type", "f")
    assert written == ""
    assert roots.offline(root, "dpkg", "--verify", "swarmd") == ""


def test_an_upgrade_from_an_older_build_keeps_what_the_administrator_changed(tmp_path: Path) -> None:
    older = repacked("0.0.1", tmp_path)
    with roots.layered(roots.bare_root(), tmp_path / "machine") as root:
        roots.install(root, older)
        config = root / "etc/swarmd/config.yaml"
        edited = config.read_text().replace(MARK, "# Mine.\n")
        config.write_text(edited)
        write_state(root)
        roots.offline(root, "systemctl", "disable", "swarmd.service")
        owners = roots.offline(root, "stat", "--format=%a %U %G", "/etc/swarmd/config.yaml")

        # As unattended-upgrades would call it: nobody is asked.
        roots.install(root, roots.PACKAGE, "-o", "Dpkg::Options::=--force-confold")

        assert state(root) == "install ok installed"
        assert config.read_text() == edited
        assert roots.offline(root, "stat", "--format=%a %U %G", "/etc/swarmd/config.yaml") == owners
        assert (root / "etc/swarmd/config.yaml.dpkg-dist").exists(), "the new default is there to compare"
        assert not (root / ENABLED).exists(), "disabled stays disabled"
        assert (root / "var/lib/swarmd/checkpoints/weights").read_text() == "learned"
        assert not (root / STRAY).exists(), "what the older version alone had is gone"
        changed = roots.offline(root, "sh", "-c", "dpkg --verify swarmd || true").split()
        assert changed == ["??5??????", "c", "/etc/swarmd/config.yaml"]


def test_an_upgrade_replaces_an_untouched_configuration(root: Path, newer: Path) -> None:
    roots.install(root, newer)
    assert (root / "etc/swarmd/config.yaml").read_text().endswith(MARK)
    assert stat.S_IMODE((root / "etc/swarmd/config.yaml").stat().st_mode) == 0o640
    assert not (root / "etc/swarmd/config.yaml.dpkg-dist").exists()
    assert (root / ENABLED).is_symlink()
    left = [path for path in (root / "usr/lib/swarmd/lib").rglob("*") if not path.is_dir()]
    assert left == [root / STRAY], "what the newer version does not have is gone"


def test_owners_set_with_dpkg_statoverride_are_kept(root: Path, newer: Path) -> None:
    roots.offline(root, "dpkg-statoverride", "--update", "--add", "root", "root", "0600", "/etc/swarmd/config.yaml")
    roots.install(root, newer)
    owners = roots.offline(root, "stat", "--format=%a %U %G", "/etc/swarmd/config.yaml")
    assert owners.split() == ["600", "root", "root"]


def test_removing_keeps_state_and_configuration_for_the_next_installation(root: Path, newer: Path) -> None:
    write_state(root)
    roots.offline(root, "apt-get", "remove", "--yes", "swarmd")
    assert state(root) == "deinstall ok config-files"
    assert not (root / "usr/bin/swarmd").exists()
    assert not (root / "usr/lib/swarmd").exists()
    assert (root / "var/lib/swarmd/identity.key").read_bytes() == KEY
    assert (root / "etc/swarmd/config.d/50-swarm.yaml").exists()

    roots.install(root, newer)
    assert state(root) == "install ok installed"
    assert (root / "var/lib/swarmd/checkpoints/weights").read_text() == "learned"
    assert (root / ENABLED).is_symlink()


def test_purging_removes_all_but_a_copy_of_each_identity(root: Path, newer: Path) -> None:
    write_state(root)
    link = root / "etc/systemd/system/multi-user.target.wants/swarmd@second.service"
    link.symlink_to("/lib/systemd/system/swarmd@.service")

    said = roots.offline(root, "apt-get", "purge", "--yes", "swarmd")

    assert state(root) in ("", "unknown ok not-installed")
    for gone in ("var/lib/swarmd", "var/cache/swarmd", "etc/swarmd", "usr/lib/swarmd", ENABLED):
        assert not (root / gone).exists() and not (root / gone).is_symlink(), gone
    assert not link.is_symlink()
    copies = sorted((root / "var/backups/swarmd").iterdir())
    assert [copy.name.split(".key.")[0] for copy in copies] == ["identity", "second-identity"]
    for copy in copies:
        assert copy.read_bytes() == KEY
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert f"/var/backups/swarmd/{copy.name}" in said, "where it is must be said"

    roots.install(root, newer)
    assert (root / "etc/swarmd/config.yaml").read_text().endswith(MARK)
    assert (root / ENABLED).is_symlink()


def test_purging_copies_nothing_that_is_no_identity(root: Path) -> None:
    write_state(root)
    below = root / "var/lib/swarmd"
    (below / "second/checkpoints/identity.key").write_bytes(KEY)
    # A folder's name that reads as two paths, the second being root's own file.
    (root / "identity.key").write_text("root's own")
    for name in ("odd\n", "odd name", "$(id)", "large", "empty", "link"):
        (below / name).mkdir()
    for name in ("odd\n", "odd name", "$(id)"):
        (below / name / "identity.key").write_bytes(KEY)
    (below / "large/identity.key").write_bytes(bytes(65537))
    (below / "empty/identity.key").touch()
    (below / "link/identity.key").symlink_to("/etc/shadow")
    (root / "root/elsewhere").mkdir()
    (root / "root/elsewhere/identity.key").write_text("root's own")
    (below / "linked").symlink_to("/root/elsewhere")

    roots.offline(root, "dpkg", "--purge", "swarmd")

    copies = sorted((root / "var/backups/swarmd").iterdir())
    assert [copy.name.split(".key.")[0] for copy in copies] == ["identity", "second-identity"]
    assert all(copy.read_bytes() == KEY for copy in copies)
    assert not below.exists()
    assert (root / "root/elsewhere/identity.key").read_text() == "root's own"


def test_purging_twice_keeps_both_identities(root: Path, newer: Path) -> None:
    for _ in range(2):
        (root / "var/lib/swarmd").mkdir()
        (root / "var/lib/swarmd/identity.key").write_bytes(KEY)
        roots.offline(root, "dpkg", "--purge", "swarmd")
        roots.install(root, newer)
    assert len(list((root / "var/backups/swarmd").iterdir())) == 2


def test_the_maintainer_scripts_start_and_download_nothing() -> None:
    scripts = subprocess.run(
        ["dpkg-deb", "--ctrl-tarfile", roots.PACKAGE], check=True, capture_output=True
    ).stdout.decode(errors="replace")
    for word in ("curl", "wget", "pip ", "http:", "https:", "apt-get", "deb-systemd-invoke start"):
        assert word not in scripts, word
