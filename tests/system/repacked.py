"""Other versions of the package, for the tests of upgrades: the one that was built, packed anew with another number."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.system.roots import PACKAGE, shared_root

MARK = "# The default configuration of another version.\n"
"""A line that stands in the other version's config.yaml only."""

_BUNDLE = Path("usr/lib/swarmd/lib")


def repacked(version: str, folder: Path, *, whole: bool) -> Path:
    """The package with another version and another default configuration (`MARK`), in `folder`; not compressed.

    whole: with the bundled Python packages, two gigabytes of them. Without them it cannot run, which does not matter
    where only dpkg and the maintainer scripts are looked at, and it is installed in a second.
    """
    tree = folder / f"swarmd-{version}"
    control = tree / "DEBIAN"
    tree.mkdir(parents=True)
    tree.chmod(0o755)  # it becomes the mode of the root directory that the package is installed in
    subprocess.run(["dpkg-deb", "--control", PACKAGE, control], check=True, umask=0o022)
    unpack = ["tar", "--extract", f"--directory={tree}", f"--exclude=./{_BUNDLE}", "--preserve-permissions"]
    contents = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", PACKAGE], stdout=subprocess.PIPE)
    subprocess.run(unpack, stdin=contents.stdout, check=True)
    if contents.wait() != 0:
        raise RuntimeError(f"dpkg-deb cannot read {PACKAGE}")
    if whole:
        # From where it is unpacked already, which is quicker.
        subprocess.run(["cp", "-a", "--reflink=auto", shared_root() / _BUNDLE, tree / _BUNDLE], check=True)

    described = control / "control"
    described.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", described.read_text()))
    with open(tree / "etc/swarmd/config.yaml", "a", encoding="utf-8") as config:
        config.write(MARK)
    sums = control / "md5sums"
    kept = [line for line in sums.read_text().splitlines(keepends=True) if whole or f"  {_BUNDLE}/" not in line]
    sums.write_text("".join(kept))

    package = folder / f"swarmd_{version}.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, package], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return package
