"""What the integration tests share: one process with everything imported, which forks nodes."""

from collections.abc import Iterator

import pytest

from tests.integration.node import Preloaded


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    server = Preloaded()
    yield server
    server.close()
