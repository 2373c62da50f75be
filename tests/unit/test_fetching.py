"""The watch over a model that is being fetched: what arrives is progress, what does not is none."""

import subprocess
import sys
from pathlib import Path

from swarmd.fetching import _watched, stored_bytes

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
