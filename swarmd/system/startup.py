"""What every swarmd process does first, before torch, transformers or the tokenizers are imported.

Several libraries read the environment once, when they are imported; set later, or exported by hand in a shell
profile, these settings would do nothing. This module therefore imports nothing but the standard library.
"""

from __future__ import annotations

import faulthandler
import os
import sys

# Python's own default. `import web3` raises it to 100,000, at which deeply nested input ends the process with
# a segmentation fault where it should raise RecursionError.
RECURSION_LIMIT = 1000

_ENVIRONMENT = {
    # The tokenizers' thread pool deadlocks in a forked child, and warns at every fork.
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # GenRL imports wandb, which otherwise asks for a log-in.
    "WANDB_MODE": "disabled",
    "WANDB_SILENT": "true",
}
# Lifted for a process that fetches a model: it may ask the hub and show its progress bar.
_NOT_WHILE_PULLING = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_PROGRESS_BARS",
)
# Set, it makes GenRL's communication module wait for a rendezvous and unpickle what it is sent.
_FORBIDDEN = ("LAMBDA",)


def prepare_process(*, pulling: bool = False) -> None:
    """Sets environment, umask, fault handler and recursion limit; `pulling` alone may talk to a model hub."""
    os.environ.update(_ENVIRONMENT)
    for name in _NOT_WHILE_PULLING:
        if pulling:
            os.environ.pop(name, None)
        else:
            os.environ[name] = "1"
    for name in _FORBIDDEN:
        os.environ.pop(name, None)
    os.umask(0o077)
    # All stacks to stderr on SIGSEGV, SIGABRT (the watchdog's signal), SIGBUS, ...: to the descriptor itself, since
    # sys.stderr may be an object without one.
    faulthandler.enable(2)
    sys.setrecursionlimit(RECURSION_LIMIT)


def assert_recursion_limit() -> None:
    """Call after the imports: RuntimeError when one of them raised the recursion limit."""
    limit = sys.getrecursionlimit()
    if limit != RECURSION_LIMIT:
        raise RuntimeError(f"an imported library set the recursion limit to {limit} (not {RECURSION_LIMIT})")
