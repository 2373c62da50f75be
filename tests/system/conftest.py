"""A machine with the package installed, booted once for each module."""

import shutil
from collections.abc import Iterator

import pytest

from tests.system.machine import Machine
from tests.system.roots import shared_root, why_not


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    reason = why_not() or (None if shutil.which("systemd-nspawn") else "needs systemd-nspawn (systemd-container)")
    if reason:
        pytest.skip(reason)
    with Machine(shared_root(), tmp_path_factory.mktemp("machine") / "console") as booted:
        yield booted
