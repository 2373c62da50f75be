"""The commands that tell of a node what it has written itself, or what there is to see: status, peers, doctor.

Imports stand inside them: each loads what it needs and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swarmd.system.exits import EXIT_OK
from swarmd.system.installation import installation, status_directory
from swarmd.system.redaction import one_line

_NO = 1


def status_command(options: argparse.Namespace) -> int:
    """Carries out `status`; the exit code."""
    from swarmd.monitor.lines import status_lines
    from swarmd.monitor.status import STATUS_FILE, StatusError, read_status

    try:
        directory = _what_the_node_writes(options)
        status = read_status(directory)
    except StatusError as error:
        named, why = installation(options.instance), str(error)
        if directory == named.runtime and not (directory / STATUS_FILE).exists():
            why = (
                f"{named.unit} has not run since the machine started; start it with "
                f"`sudo systemctl start {named.unit}`, or name the directory of another node with --state DIR"
            )
        print(f"swarmd: {why}", file=sys.stderr)
        return _NO
    _tell(options, status, status_lines(status))
    return EXIT_OK


def peers_command(options: argparse.Namespace) -> int:
    """Carries out `peers`; the exit code."""
    from swarmd.commands.peers import NoPeers, peer_lines, peers

    its_own = options.config is not None or options.state is None
    try:
        told, note = peers(_what_the_node_writes(options), options.config, its_own)
    except NoPeers as error:
        if options.json:
            _tell(options, [], ())
        print(f"swarmd: {one_line(str(error))}", file=sys.stderr)
        return _NO
    if note:
        print(f"swarmd: {one_line(note)}", file=sys.stderr)
    _tell(options, told.peers, peer_lines(told))
    return EXIT_OK


def doctor_command(options: argparse.Namespace) -> int:
    """Carries out `doctor`; the exit code."""
    from swarmd.doctor.examination import examine, finding_lines
    from swarmd.system.paths import default_state_directory

    named, state = installation(options.instance), options.state
    if state is None and "STATE_DIRECTORY" in os.environ:
        state = Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    elif state is None:
        # Root means the service, which may not have made its directory yet.
        of_service = os.geteuid() == 0 and options.config is None and named.config.is_file()
        state = named.state if options.instance is not None or of_service else default_state_directory()
    found = examine(options.config, state, _what_the_node_writes(options), named)
    ok = not any(finding.result == "failed" for finding in found)
    _tell(options, {"ok": ok, "findings": [vars(finding) for finding in found]}, finding_lines(found))
    return EXIT_OK if ok else _NO


def _what_the_node_writes(options: argparse.Namespace) -> Path:
    """Where the node puts what it tells of itself while it runs."""
    from swarmd.system.paths import default_state_directory, runtime_directory

    if options.state is not None:
        return Path(options.state)
    own = default_state_directory()
    return runtime_directory(own) if "RUNTIME_DIRECTORY" in os.environ else status_directory(options.instance, own)


def _tell(options: argparse.Namespace, document: Any, lines: Iterable[str]) -> None:
    if options.json:
        json.dump(document, sys.stdout, indent=2, ensure_ascii=True)
        print()
    else:
        print("\n".join(map(one_line, lines)))  # what a node writes shall not steer the terminal
