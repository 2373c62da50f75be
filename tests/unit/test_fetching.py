"""The watch over a model that is being fetched: what arrives is progress, what does not is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.fetching import _watched, fetch, stored_bytes
from swarmd.training.models import ModelError

ROOT = Path(__file__).resolve().parents[2]

# Twice some bytes, then a pause in which nothing comes, at the pace in which the watch looks.
ARRIVES = """
import sys, time
with open(sys.argv[1], "wb", buffering=0) as file:
    file.truncate(1 << 30)
    for _ in range(2):
        file.write(bytes(range(256)) * 4096)
        time.sleep(1.2)
    time.sleep(2.0)
sys.exit(7)
"""


def test_only_bytes_that_arrive_are_progress(tmp_path: Path) -> None:
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    seen: list[int] = []
    target = tmp_path / "models--a--b" / "blobs" / "weights.incomplete"
    with subprocess.Popen([sys.executable, "-c", ARRIVES, str(target)]) as child:
        assert _watched(child, tmp_path, seen.append) == 7
    assert seen == sorted(set(seen)) and 1 <= len(seen) <= 2
    assert seen[-1] >= 2 << 20
    assert stored_bytes(tmp_path) < 1 << 30, "a file that was only made long has nothing in it"


def test_the_process_that_fetches_runs_nothing_that_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither from the working directory nor from the user's own packages: both may hold what a stranger sent."""
    (tmp_path / "swarmd").mkdir()
    (tmp_path / "swarmd" / "__init__.py").touch()
    (tmp_path / "swarmd" / "__main__.py").write_text("open('ran', 'w').close()")
    (tmp_path / "wrong.yaml").write_text("modle: {}")  # the child's own fault: it asks no hub
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch("owner/name", tmp_path / "wrong.yaml", lambda stored: None)
    assert "modle: unknown key" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()
    flags = (tmp_path / "arguments").read_text().split(" -m ")[0].split()
    assert {"-P", "-s"} <= set(flags)
