"""Unmodified GenRL of both wire formats, each in a venv of its own under `.run/cache/genrl`, made once.

Such a venv holds GenRL alone, installed from a lock with hashes. What GenRL imports besides it takes from the venv
that runs the tests, whose own GenRL comes behind: to install torch and hivemind twice more would take gigabytes.

    python -m tests.integration.genrl_venvs     makes both, and prints where they are
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".run" / "cache" / "genrl"
VERSIONS = ("0.3", "0.1")
"""The wire formats, by the first numbers of the versions that speak them."""


class VenvError(Exception):
    """A venv could not be made; with the last words of the program that failed."""


def python_with_genrl(version: str) -> Path:
    """The interpreter of the venv with GenRL of one of VERSIONS, which is made when it is not there yet.

    pip fetches a file of a tenth of a megabyte for it. Raises VenvError with pip's last words.
    """
    lock = REPOSITORY / "requirements" / f"peers-genrl-{version}.lock"
    place = CACHE / f"{version}-{_digest(lock.read_text(), sys.executable, sysconfig.get_path('purelib'))}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # two runs at once would write into one venv
        if not place.exists():
            try:
                _make(place, lock)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
    return place / "bin" / "python"


def _make(place: Path, lock: Path) -> None:
    _call(sys.executable, "-m", "venv", "--without-pip", place)
    python = place / "bin" / "python"
    _call(
        sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--no-cache-dir",
        "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", lock,
    )  # fmt: skip
    packages = Path(_call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "of-the-tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def _call(*command: str | Path) -> str:
    environment = {**os.environ, "TMPDIR": str(CACHE), "PIP_USER": "no", "PIP_NO_INPUT": "yes"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2000:]
        raise VenvError(f"{' '.join(map(str, command))} ended with {done.returncode}; it wrote:\n{said}")
    return done.stdout


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    for version in VERSIONS:
        print(python_with_genrl(version))
