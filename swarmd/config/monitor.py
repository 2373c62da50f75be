"""Sections `monitor` and `log`: how the node is watched."""

from __future__ import annotations

from typing import Literal

from swarmd.config.values import Section, SocketAddress


class Monitor(Section):
    listen: SocketAddress | None = "127.0.0.1:9470"
    """Where the status page and the metrics are served; null: nowhere. Not read by this version."""


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important messages that are written."""
