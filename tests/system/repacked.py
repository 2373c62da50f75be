"""Other versions of the package, for the tests of upgrades: the one that was built, packed anew with another number.

They lack the bundled Python packages, so that they install in a second instead of writing two gigabytes. That they
cannot run does not matter where only dpkg and the maintainer scripts are looked at; on a machine whose dpkg has been
told that the bundled packages are nobody's (`keep_bundle`), the upgrade leaves them, and the other version runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.system.machine import Machine
from tests.system.roots import PACKAGE, shared_root

MARK = "# The default configuration of another version.\n"
"""A line that stands in the other version's config.yaml only."""

STRAY = Path("usr/lib/swarmd/lib/python3.11/site-packages/swarmd/of_another_version.py")
"""A module that only the other version has."""

_BUNDLE = Path("usr/lib/swarmd/lib")
_SITE = _BUNDLE / "python3.11/site-packages"
_FILE_LIST = "/var/lib/dpkg/info/swarmd.list"


def keep_bundle(machine: Machine) -> None:
    """Has dpkg of a machine forget that the bundled Python packages are the package's, all but swarmd's own."""
    rest = f"\\#^/{_SITE}/#{{\\#^/{_SITE}/swarmd#!d}}"
    machine.run("sed", "-i", "-E", rest, _FILE_LIST)


def _add_program(site: Path, version: str) -> None:
    for source in (shared_root() / _SITE).glob("swarmd*"):
        shutil.copytree(source, site / source.name, dirs_exist_ok=True)
    init = site / "swarmd/__init__.py"
    text, changed = re.subn(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', init.read_text())
    assert changed == 1, f"{init} has no version"
    init.write_text(text)
    for compiled in (site / "swarmd/__pycache__").glob("__init__.*.pyc"):
        compiled.unlink()  # it would be taken without a look at the source


def repacked(version: str, folder: Path, *, runs: bool = False) -> Path:
    """The package with another version, another default configuration (`MARK`), and `STRAY` instead of its bundled
    packages, in `folder`; not compressed. With `runs` the program itself is in it and calls itself by that version.

    Raises CalledProcessError where a program fails.
    """
    tree = folder / f"swarmd-{version}"
    control = tree / "DEBIAN"
    tree.mkdir(parents=True)
    tree.chmod(0o755)  # it becomes the mode of the root directory that the package is installed in
    subprocess.run(["dpkg-deb", "--control", PACKAGE, control], check=True, umask=0o022)
    unpack = ["tar", "--extract", "--preserve-permissions", f"--directory={tree}", f"--exclude=./{_BUNDLE}"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", PACKAGE], stdout=subprocess.PIPE) as contents:
        subprocess.run(unpack, stdin=contents.stdout, check=True)
    if contents.returncode != 0:
        raise subprocess.CalledProcessError(contents.returncode, contents.args)
    for parent in reversed((tree / STRAY).relative_to(tree).parents[:-1]):
        (tree / parent).mkdir(exist_ok=True)
        (tree / parent).chmod(0o755)
    (tree / STRAY).touch()
    if runs:
        _add_program(tree / _SITE, version)

    described = control / "control"
    described.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", described.read_text()))
    with open(tree / "etc/swarmd/config.yaml", "a", encoding="utf-8") as config:
        config.write(MARK)
    sums = control / "md5sums"
    kept = [line for line in sums.read_text().splitlines(keepends=True) if f"  {_BUNDLE}/" not in line]
    sums.write_text("".join(kept))

    package = folder / f"swarmd_{version}.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, package], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return package
