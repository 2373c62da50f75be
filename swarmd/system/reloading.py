"""Being asked to read the configuration anew: SIGHUP, as `systemctl reload` sends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


class ReloadRequest:
    """Notes SIGHUP; who plays the game asks for it when nothing is in work.

    hung_up(): called instead where the signal tells that the terminal, in which the node runs, is gone.
    """

    _early = False

    def __init__(self, hung_up: Callable[[], None]) -> None:
        self._hung_up = hung_up
        self._asked = False
        self._terminal = False

    @classmethod
    def note_early(cls, hung_up: Callable[[], None]) -> None:
        """Until `install`, main thread only: a SIGHUP must not end a process that has yet to import its parts."""
        terminal = _terminal()

        def note(number: int, frame: FrameType | None) -> None:
            if terminal and not _terminal():
                hung_up()
            else:
                cls._early = True

        signal.signal(signal.SIGHUP, note)

    def install(self) -> None:
        """Takes over the signal; main thread only."""
        self._terminal = _terminal()
        signal.signal(signal.SIGHUP, self._note)
        self._asked, ReloadRequest._early = self._asked or ReloadRequest._early, False

    def take(self) -> bool:
        """Whether there was a request since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._terminal and not _terminal():
            self._hung_up()
        else:
            self._asked = True


def _terminal() -> bool:
    return os.isatty(2)
