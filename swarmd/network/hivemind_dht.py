"""What swarmd takes from hivemind, imported without the rest of it, and the names inside it that swarmd relies on.

`import hivemind` loads torch, numpy and a hundred others: 4 s and 280 MiB where the DHT needs 0.2 s and 37 MiB.
Here `hivemind` and `hivemind.utils` stand in sys.modules as bare packages while the modules below them are imported,
and are taken out again afterwards: a later `import hivemind` in the same process is the whole hivemind.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

VERSION = "1.1.12"
"""The hivemind that was read; setup.cfg pins it."""


@contextmanager
def _bare_packages(*names: str) -> Iterator[None]:
    """Packages without the imports that their __init__ makes; nothing happens to those that are there already."""
    spec = importlib.util.find_spec("hivemind")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"hivemind {VERSION} is not installed")
    root = Path(spec.submodule_search_locations[0])
    put = []
    for name in names:
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
            put.append(name)
    try:
        yield
    finally:
        for name in put:
            del sys.modules[name]


with _bare_packages("hivemind", "hivemind.utils"):
    from hivemind.p2p.p2p_daemon import P2P, P2PContext
    from hivemind.p2p.p2p_daemon_bindings import p2pclient
    from hivemind.p2p.p2p_daemon_bindings.control import DEFAULT_MAX_MSG_SIZE, ControlClient
    from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
    from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
    from hivemind.p2p.servicer import ServicerBase
    from hivemind.proto import dht_pb2, p2pd_pb2
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr

__all__ = [
    "DEFAULT_MAX_MSG_SIZE",
    "VERSION",
    "Multiaddr",
    "P2P",
    "P2PContext",
    "P2PDaemonError",
    "P2PHandlerError",
    "PeerID",
    "ServicerBase",
    "dht_pb2",
    "differences",
    "p2pclient",
    "p2pd_pb2",
    "p2pd_path",
    "quiet_hivemind",
]

# All that swarmd calls or overrides of hivemind and that is not its public interface, with the signatures of VERSION.
# Where one of them changes, the modules named here have to be read again beside the new hivemind.
_SIGNATURES: dict[str, tuple[Any, str]] = {
    # swarmd.network.p2p_daemon makes a P2P of its own around these.
    "P2P.__init__": (P2P.__init__, "(self)"),
    "P2P._read_outputs": (P2P._read_outputs, "(self, ready: _asyncio.Future) -> None"),
    "P2P._ping_daemon": (P2P._ping_daemon, "(self) -> None"),
    "P2P._terminate": (P2P._terminate, "(self) -> None"),
    "Client.create": (
        p2pclient.Client.create,
        "(control_maddr: hivemind.utils.multiaddr.multiaddr.Multiaddr = None, "
        "listen_maddr: hivemind.utils.multiaddr.multiaddr.Multiaddr = None, *, "
        "persistent_conn_max_msg_size: int = 4194304) -> 'Client'",
    ),
    "Client.connect": (
        p2pclient.Client.connect,
        "(self, peer_id: hivemind.p2p.p2p_daemon_bindings.datastructures.PeerID, "
        "maddrs: Iterable[hivemind.utils.multiaddr.multiaddr.Multiaddr]) -> None",
    ),
    "Client.disconnect": (
        p2pclient.Client.disconnect,
        "(self, peer_id: hivemind.p2p.p2p_daemon_bindings.datastructures.PeerID) -> None",
    ),
    # swarmd.network.dht_server answers under the names that stock nodes call.
    "ServicerBase._get_handle_name": (
        ServicerBase._get_handle_name,
        "(namespace: Optional[str], method_name: str) -> str",
    ),
    "ServicerBase.add_p2p_handlers": (
        ServicerBase.add_p2p_handlers,
        "(self, p2p: hivemind.p2p.p2p_daemon.P2P, wrapper: Any = None, *, namespace: Optional[str] = None, "
        "balanced: bool = False) -> None",
    ),
    "ServicerBase.get_stub": (
        ServicerBase.get_stub,
        "(p2p: hivemind.p2p.p2p_daemon.P2P, peer: hivemind.p2p.p2p_daemon_bindings.datastructures.PeerID, *, "
        "namespace: Optional[str] = None) -> hivemind.p2p.servicer.StubBase",
    ),
}
_FIELDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    # Read by swarmd.network.p2p_daemon: whether the pipe to p2pd still flows, what waits to be sent, what leaks. The
    # calls that wait it replaces.
    "ControlClient": (
        ControlClient,
        ("_read_task", "_write_task", "_pending_messages", "_pending_calls", "_handler_tasks"),
    ),
    "P2P": (
        P2P,
        ("peer_id", "_client", "_child", "_alive", "_reader_task", "_daemon_listen_maddr", "_client_listen_maddr"),
    ),
}
_MESSAGES = {
    # Of p2pd's control socket, in swarmd.network.p2pd_control.
    "Request": (
        "type", "connect", "streamOpen", "streamHandler", "removeStreamHandler", "dht", "connManager", "disconnect",
        "pubsub",
    ),  # fmt: skip
    "Response": ("type", "error", "streamInfo", "identify", "dht", "peers", "pubsub"),
    "IdentifyResponse": ("id", "addrs"),
    "PeerInfo": ("id", "addrs"),
    # Of the DHT.
    "NodeInfo": ("node_id",),
    "PingRequest": ("auth", "peer", "validate"),
    "PingResponse": ("auth", "peer", "dht_time", "available"),
    "StoreRequest": ("auth", "keys", "subkeys", "values", "expiration_time", "in_cache", "peer"),
    "StoreResponse": ("auth", "store_ok", "peer"),
    "FindRequest": ("auth", "keys", "peer"),
    "FindResult": ("type", "value", "expiration_time", "nearest_node_ids", "nearest_peer_ids"),
    "FindResponse": ("auth", "results", "peer"),
}


def differences() -> list[str]:
    """One sentence for everything in the installed hivemind that is not as it was in VERSION; empty if it fits."""
    found = []
    installed = metadata.version("hivemind")
    if installed != VERSION:
        found.append(f"hivemind {installed} is installed, {VERSION} was read")
    for name, (function, expected) in _SIGNATURES.items():
        signature = str(inspect.signature(function))
        if signature != expected:
            found.append(f"{name} is now {signature}, it was {expected}")
    for name, (owner, fields) in _FIELDS.items():
        source = inspect.getsource(owner)
        found += [f"{name} no longer has {field}" for field in fields if f"self.{field}" not in source]
    for name, expected_fields in _MESSAGES.items():
        message = getattr(p2pd_pb2, name, None) or getattr(dht_pb2, name)
        fields = tuple(field.name for field in message.DESCRIPTOR.fields)
        if fields != expected_fields:
            found.append(f"the message {name} now has the fields {fields}, it had {expected_fields}")
    return found


def p2pd_path() -> Path:
    """The libp2p daemon that hivemind brings."""
    return Path(inspect.getfile(P2P)).parents[1] / "hivemind_cli" / "p2pd"


class _ToDebug(logging.Handler):
    """hivemind warns of whatever strangers send: to the operator that is debugging output."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("swarmd").debug("hivemind: %s: %s", record.name, record.getMessage()[:500])


def quiet_hivemind() -> None:
    """Sends hivemind's log to our own, as DEBUG lines; it would print to stderr by a handler of its own."""
    use_hivemind_log_handler("nowhere")
    logger = logging.getLogger("hivemind")
    logger.propagate = False
    logger.handlers = [_ToDebug()]
