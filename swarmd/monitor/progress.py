"""Progress bars on long work: on a terminal only, never in a journal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while the block runs; gives a function to be told (done, of). It vanishes at the end."""
    with tqdm(desc=what, unit=unit, leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield show
