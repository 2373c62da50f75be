"""The command line. Each command reads its arguments and calls the room that does the work.

Imports stand inside the commands: `swarmd status` must not wait for torch, and the environment that several libraries
read when they are imported is set first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from swarmd import __version__
from swarmd.system.exits import EXIT_CONFIG, EXIT_OK, EXIT_RESTART, ConfigurationError, RestartableError
from swarmd.system.startup import prepare_process

if TYPE_CHECKING:
    from swarmd.config import Config

_USAGE = 2  # argparse's exit code for a command line it does not understand
_FAILED = 1


def program(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: runs `main` and ends at once. Once torch is imported, the interpreter takes two seconds of
    computing to tidy up, which a node that was asked to stop does not have."""
    code = main(arguments)
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (the answer is no), 2 (usage), 75 or 78."""
    options = _parser().parse_args(arguments)
    prepare_process(pulling=options.command == "model" and options.action == "pull")
    try:
        code = int(options.call(options))
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone is no error, and not at the interpreter's exit
        return code
    except ConfigurationError as error:
        print(f"swarmd: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except RestartableError as error:
        print(f"swarmd: {error}", file=sys.stderr)
        return EXIT_RESTART
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; the interpreter must not stumble over it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="PATH",
                        help="the configuration (default: /etc/swarmd/config.yaml, and where there is none, "
                             "the built-in defaults)")
    common.add_argument("--state", type=Path, metavar="DIR",
                        help="where checkpoints and curves are kept (default: $STATE_DIRECTORY, else "
                             "~/.local/state/swarmd)")
    reporting = argparse.ArgumentParser(add_help=False, parents=[common])
    reporting.add_argument("--json", action="store_true", help="print JSON, for programs")

    parser = argparse.ArgumentParser(
        prog="swarmd", description="Train a language model by reinforcement learning, alone or together with others.",
        epilog="Exit codes: 0 done or asked to stop; 1 the answer is no; 2 wrong usage; 75 a fault that a restart may "
               "mend; 78 a fault in the configuration.",
    )
    parser.add_argument("--version", action="version", version=f"swarmd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], int], help: str,
                parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, parents=[parent])
        made.set_defaults(call=call)
        return made

    run = command("run", _run, "Run the node in the foreground until it is stopped.", common)
    run.add_argument("--rounds", type=_at_least(1), metavar="N", help="end with exit code 0 after N rounds")
    command("check", _check, "Validate the configuration and print the plan: model, memory, tasks.", reporting)
    command("status", _status, "Tell what the node does now, or did last.", reporting)
    evaluation = command("eval", _eval, "Score the last checkpoint and the base model on held-out tasks.", reporting)
    evaluation.add_argument("--samples", type=_at_least(1), metavar="N",
                            help="held-out tasks (default: training.evaluate_samples)")
    evaluation.add_argument("--seed", type=_at_least(0), default=0, metavar="N",
                            help="which held-out tasks; 0 (default) are those that the node itself evaluates on")

    model = commands.add_parser("model", help="Fetch, list and export models.",
                                description="Fetch, list and export models.")
    actions = model.add_subparsers(dest="action", required=True, metavar="ACTION")
    pull = actions.add_parser("pull", parents=[common], help="Fetch a model of the Hugging Face hub into the cache.")
    pull.add_argument("name", metavar="OWNER/NAME")
    pull.add_argument("--revision", help="commit, tag or branch (default: model.revision, else the newest)")
    pull.set_defaults(call=_model_pull)
    listing = actions.add_parser("list", parents=[reporting], help="List the embedded model and those in the cache.")
    listing.set_defaults(call=_model_list)
    export = actions.add_parser("export", parents=[common],
                                help="Write the trained model as a folder that transformers loads.")
    export.add_argument("directory", type=Path, metavar="DIR", help="a new or empty folder")
    export.set_defaults(call=_model_export)

    command("import-env", _import_env,
            "Take over the environment variables of rl-swarm (MODEL_NAME, IDENTITY_PATH, ...) as a drop-in.", common)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        return number

    return integer


def _config(options: argparse.Namespace) -> Config:
    from swarmd.config import ConfigErrors, load_config

    try:
        return load_config(options.config, os.environ)
    except ConfigErrors as errors:
        raise ConfigurationError(f"the configuration cannot be used:\n{errors}") from None


def _run(options: argparse.Namespace) -> int:
    from swarmd.system.stopping import leave_at_once_when_asked

    leave_at_once_when_asked()
    config = _config(options)
    from swarmd.daemon import run

    try:
        return run(config, options.state, options.rounds, options.config)
    except (ConfigurationError, RestartableError):
        raise
    except Exception:
        # A fault of this program, a library or the machine: the trace for people, and for the service manager the
        # code that says that a restart is worth trying.
        traceback.print_exc()
        return EXIT_RESTART


def _check(options: argparse.Namespace) -> int:
    from swarmd.config import ConfigErrors, load_config

    try:
        config = load_config(options.config, os.environ)
    except ConfigErrors as errors:
        if not options.json:
            raise ConfigurationError(f"the configuration cannot be used:\n{errors}") from None
        problems = [
            {"file": p.file, "line": p.line, "key": p.key, "value": p.value, "message": p.message}
            for p in errors.problems
        ]
        _print_json({"ok": False, "errors": problems, "plan": None})
        return EXIT_CONFIG
    from swarmd.plan import make_plan, plan_lines

    try:
        plan = make_plan(config, options.state)
    except ConfigurationError as error:
        if not options.json:
            raise
        _print_json({"ok": False, "errors": [{"file": None, "line": None, "key": None, "value": None,
                                              "message": str(error)}], "plan": None})
        return EXIT_CONFIG
    if options.json:
        _print_json({"ok": True, "errors": [], "plan": plan})
    else:
        print("\n".join(plan_lines(plan)))
    return EXIT_OK


def _status(options: argparse.Namespace) -> int:
    from swarmd.monitor.lines import status_lines
    from swarmd.monitor.status import StatusError, read_status
    from swarmd.system.paths import runtime_directory, state_directory

    try:
        status = read_status(options.state or runtime_directory(state_directory(None)))
    except StatusError as error:
        print(f"swarmd: {error}", file=sys.stderr)
        return _FAILED
    if options.json:
        _print_json(status)
    else:
        print("\n".join(status_lines(status)))
    return EXIT_OK


def _eval(options: argparse.Namespace) -> int:
    config = _config(options)
    from swarmd.heldout import evaluate, table

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
    folder = pull(options.name, options.revision or config.model.revision, cache_directory() / "huggingface", token)
    print(folder)
    return EXIT_OK


def _read_secret(reference: str) -> str:
    from swarmd.config import ConfigErrors, secret_path

    try:
        path = secret_path(reference, os.environ)
        return path.read_text(encoding="ascii").strip()
    except ConfigErrors as errors:
        raise ConfigurationError(f"hub.token_file: {errors}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"hub.token_file: {path} cannot be read: {error}") from None


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
    from swarmd.export import export_model

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
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from None
    print("\n".join([str(target), *imported.notes]))
    return EXIT_OK


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()
