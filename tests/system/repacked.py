"""Other versions of the package, for the tests of upgrades: the one that was built, packed anew with another number.

They lack the bundled Python packages and cannot run, which does not matter where only dpkg and the maintainer scripts
are looked at; so they install in a second instead of writing two gigabytes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.system.roots import PACKAGE

MARK = "# The default configuration of another version.\n"
"""A line that stands in the other version's config.yaml only."""

STRAY = Path("usr/lib/swarmd/lib/python3.11/site-packages/swarmd/of_another_version.py")
"""A module that only the other version has."""

_BUNDLE = Path("usr/lib/swarmd/lib")


def repacked(version: str, folder: Path) -> Path:
    """The package with another version, another default configuration (`MARK`), and `STRAY` instead of its bundled
    packages, in `folder`; not compressed. Raises CalledProcessError where a program fails."""
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
