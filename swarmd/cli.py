"""The command line. Each command reads its arguments and calls the room that does the work.

Imports stand inside the commands: `swarmd status` must not wait for torch, and the environment that several libraries
read when they are imported is set first.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from swarmd.arguments import parser
from swarmd.system.events import crashed, refused
from swarmd.system.exits import EXIT_CONFIG, EXIT_OK, EXIT_RESTART, ConfigurationError, RestartableError
from swarmd.system.installation import become_owner, installation, is_there
from swarmd.system.redaction import conceal, one_line, redact
from swarmd.system.startup import prepare_process
from swarmd.system.streams import report_uncaught

if TYPE_CHECKING:
    from swarmd.config import Config

_USAGE = 2  # argparse's exit code for a command line it does not understand
_FAILED = 1
# They look at what the running node writes, which lies elsewhere than its state.
_BY_RUNTIME_DIRECTORY = ("status", "peers", "doctor")


def program(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: runs `main` and ends at once. Once torch is imported, the interpreter takes two seconds of
    computing to tidy up, which a node that was asked to stop does not have."""
    code = main(arguments)
    for handler in logging.getLogger("swarmd").handlers:
        handler.flush()
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (the answer is no), 2 (usage), 75 or 78."""
    options = _parser().parse_args(arguments)
    prepare_process(pulling=options.command == "model" and options.action == "pull")
    report_uncaught()
    try:
        _name_the_instance(options)
        code = int(options.call(options))
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone is no error, and not at the interpreter's exit
        return code
    except ConfigurationError as error:
        return _refuse(options, error, EXIT_CONFIG)
    except RestartableError as error:
        return _refuse(options, error, EXIT_RESTART)
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; the interpreter must not stumble over it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130


def _refuse(options: argparse.Namespace, error: Exception, code: int) -> int:
    """Tells why, where it belongs: a service's refusal into the journal with its kind, else a line for people."""
    if options.command == "run":
        refused(str(error), code)
    else:
        print(f"swarmd: {redact(str(error))}", file=sys.stderr)
    return code


def _name_the_instance(options: argparse.Namespace) -> None:
    """--instance stands for the places that its unit names, where they are not given one by one."""
    if options.instance is None:
        return
    named = installation(options.instance)
    options.config = options.config or named.config
    if options.state is not None or "STATE_DIRECTORY" in os.environ:
        return
    if is_there(named.state):
        options.state = named.state if options.command not in _BY_RUNTIME_DIRECTORY else None
    elif options.command in ("run", "eval", "model"):
        raise ConfigurationError(
            f"--instance {options.instance}: {named.state} is not there, or not readable for this user; as root, "
            f"start it once with `systemctl start {named.unit}`"
        )


def _parser() -> argparse.ArgumentParser:
    return parser(
        {
            "run": _run, "check": _check, "status": _status, "peers": _peers, "doctor": _doctor, "restarts": _restarts,
            "eval": _eval,
            "model pull": _model_pull, "model list": _model_list, "model export": _model_export,
            "import-env": _import_env, "found": _swarm, "invite": _swarm, "join": _swarm, "leave": _swarm,
            "identity show": _swarm, "identity new": _swarm, "identity backup": _swarm, "identity restore": _swarm,
        }
    )  # fmt: skip


def _config(options: argparse.Namespace) -> Config:
    from swarmd.config import ConfigErrors, load_config

    try:
        return load_config(options.config, os.environ)
    except ConfigErrors as errors:
        raise ConfigurationError(f"the configuration cannot be used:\n{errors}") from None


def _run(options: argparse.Namespace) -> int:
    from swarmd.system.notify import notifier
    from swarmd.system.stopping import leave_at_once_when_asked

    leave_at_once_when_asked()
    try:
        config = _config(options)
    except ConfigurationError as error:
        notifier().failed(str(error), errno.EINVAL)
        raise
    try:
        from swarmd.beginning import begin
        from swarmd.system.paths import state_directory

        become_owner(state_directory(options.state))
        return begin(config, state_directory(options.state), options.rounds, options.config)
    except (ConfigurationError, RestartableError):
        raise
    # A fault of this program, a library or the machine: the trace for people, and for the service manager the code that
    # says that a restart is worth trying.
    except Exception as error:
        crashed(error)
        return EXIT_RESTART


def _check(options: argparse.Namespace) -> int:
    from swarmd.config import ConfigErrors, load_config

    try:
        config = load_config(options.config, os.environ)
    except ConfigErrors as errors:
        if not options.json:
            raise ConfigurationError(f"the configuration cannot be used:\n{errors}") from None
        _print_json({"ok": False, "errors": [vars(problem) for problem in errors.problems], "plan": None})
        return EXIT_CONFIG
    if options.no_plan:
        from swarmd.unbuilt import refuse_what_is_not_built

        refuse_what_is_not_built(config)
        if options.json:
            _print_json({"ok": True, "errors": [], "plan": None})
        else:
            print("the configuration is good")
        return EXIT_OK
    from swarmd.commands.plan import make_plan, plan_lines
    from swarmd.located import LocatedError, naming_lines

    try:
        with naming_lines(options.config):
            plan = make_plan(config, options.config, options.state, installation(options.instance))
    except ConfigurationError as error:
        if not options.json:
            raise
        nowhere = {"file": None, "line": None, "key": None, "value": None, "message": str(error)}
        found = [vars(problem) for problem in error.problems] if isinstance(error, LocatedError) else [nowhere]
        _print_json({"ok": False, "errors": found, "plan": None})
        return EXIT_CONFIG
    if options.json:
        _print_json({"ok": True, "errors": [], "plan": plan})
    else:
        print("\n".join(plan_lines(plan)))
    return EXIT_OK


def _status(options: argparse.Namespace) -> int:
    from swarmd.commands.report import status_command

    return status_command(options)


def _peers(options: argparse.Namespace) -> int:
    from swarmd.commands.report import peers_command

    return peers_command(options)


def _doctor(options: argparse.Namespace) -> int:
    from swarmd.commands.report import doctor_command

    return doctor_command(options)


def _restarts(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from swarmd.commands.restarts import HistoryUnreadable, moment, restart_json, restart_lines, restarts

    named = installation(options.instance)
    try:
        since = moment(options.since, datetime.now(UTC)) if options.since else None
    except ValueError as error:
        print(f"swarmd: --since {options.since!r}: {error}", file=sys.stderr)
        return _USAGE
    try:
        told = restarts(named.unit, options.state or named.state, since)
    except HistoryUnreadable as error:
        print(f"swarmd: {error}", file=sys.stderr)
        return _FAILED
    if options.json:
        _print_json(restart_json(told))
    else:
        print("\n".join(map(one_line, restart_lines(told))))
    return EXIT_OK


def _eval(options: argparse.Namespace) -> int:
    config = _config(options)
    from swarmd.commands.heldout import evaluate, table
    from swarmd.located import naming_lines
    from swarmd.system.paths import state_directory

    become_owner(state_directory(options.state))
    with naming_lines(options.config):
        result = evaluate(config, options.state, options.samples, options.seed)
    if options.json:
        _print_json(result)
    else:
        print("\n".join(table(result)))
    return EXIT_OK


def _model_pull(options: argparse.Namespace) -> int:
    config = _config(options)
    from swarmd.system.paths import cache_directory
    from swarmd.training.hub import pull
    from swarmd.training.models import is_hub_name

    if not is_hub_name(options.name):
        raise ConfigurationError(f"{options.name} is not a model of the hub; write OWNER/NAME")
    token = _read_secret(config.hub.token_file) if config.hub.token_file else None
    become_owner(cache_directory())
    folder = pull(options.name, options.revision or config.model.revision, cache_directory() / "huggingface", token)
    print(folder)
    return EXIT_OK


def _read_secret(reference: str) -> str:
    from swarmd.config import ConfigErrors, secret_path

    try:
        path = secret_path(reference, os.environ)
        secret = path.read_text(encoding="ascii").strip()
    except ConfigErrors as errors:
        raise ConfigurationError(f"hub.token_file: {errors}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"hub.token_file: {path} cannot be read: {error}") from None
    conceal(secret)
    return secret


def _model_list(options: argparse.Namespace) -> int:
    from swarmd.system.paths import cache_directory
    from swarmd.training.hub import downloaded
    from swarmd.training.models import EMBEDDED, embedded_folder

    size = sum(file.stat().st_size for file in embedded_folder().iterdir() if file.is_file())
    models = [(EMBEDDED, size), *downloaded(cache_directory() / "huggingface")]
    if options.json:
        _print_json([{"name": name, "bytes": size} for name, size in models])
    else:
        for name, size in models:
            print(f"{size / 1e6:10.1f} MB  {name}")
    return EXIT_OK


def _model_export(options: argparse.Namespace) -> int:
    config = _config(options)
    from swarmd.commands.export import export_model

    print(export_model(config, options.state, options.directory))
    return EXIT_OK


def _import_env(options: argparse.Namespace) -> int:
    from swarmd.config import DEFAULT_PATH, ConfigErrors
    from swarmd.config.import_env import import_environment
    from swarmd.system.paths import state_directory

    target = (options.config or DEFAULT_PATH).parent / "config.d" / "40-imported.yaml"
    try:
        imported = import_environment(os.environ, state_directory(options.state))
    except ConfigErrors as errors:
        raise ConfigurationError(f"the environment cannot be taken over:\n{errors}") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(imported.text, encoding="utf-8")
        target.chmod(0o644)  # no secrets in it: the token has a file of its own
    except OSError as error:
        denied = isinstance(error, PermissionError) and os.geteuid() != 0
        way_out = "; run this with sudo --preserve-env" if denied else ""
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}{way_out}") from None
    print("\n".join([str(target), *imported.notes]))
    return EXIT_OK


def _swarm(options: argparse.Namespace) -> int:
    from swarmd.commands.swarm import run_command

    return run_command(options)


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    print()
