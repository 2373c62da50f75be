"""What can be said on the command line: commands, options, help texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from swarmd import __version__

Call = Callable[[argparse.Namespace], int]

MOST_NODES = 16_384
"""As in config.swarm, whose import `swarmd status` need not wait for."""


def parser(calls: Mapping[str, Call]) -> argparse.ArgumentParser:
    """The whole command line. calls: by command ("model pull" for its actions), what the parsed options are handed to
    (as `options.call`)."""
    before = _common_options(None)
    # Of what stood before the command, nothing is taken back by what does not stand after it.
    common = _common_options(argparse.SUPPRESS)
    reporting = argparse.ArgumentParser(add_help=False, parents=[common])
    reporting.add_argument("--json", action="store_true", help="print JSON, for programs")

    whole = argparse.ArgumentParser(
        prog="swarmd", parents=[before],
        description="Train a language model by reinforcement learning, alone or together with others.",
        epilog="Exit codes: 0 done or asked to stop; 1 the answer is no; 2 wrong usage; 75 a fault that a restart may "
               "mend; 78 a fault in the configuration.",
    )
    whole.add_argument("--version", action="version", version=f"swarmd {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, parents=[parent])
        made.set_defaults(call=calls[name])
        return made

    run = command("run", "Run the node in the foreground until it is stopped.", common)
    run.add_argument("--rounds", type=_at_least(1), metavar="N", help="end with exit code 0 after N rounds")
    check = command("check", "Validate the configuration and print the plan: model, memory, tasks.", reporting)
    check.add_argument("--no-plan", action="store_true",
                       help="only read the configuration: no look at model, memory and tasks")
    command("status", "Tell what the node does now, or did last.", reporting)
    command("peers", "Tell who is seen in the swarm, what was admitted or rejected and why.", reporting)
    command("doctor", "Look at machine, network and swarm, and say what to mend and how.", reporting)
    history = command("restarts", "List every start and stop of the service with its cause.", reporting)
    history.add_argument("--since", metavar="WHEN",
                         help="leave out what ended before: 2026-11-01, '2026-11-01 12:30', yesterday, 7d, '2 h ago'")
    evaluation = command("eval", "Score the last checkpoint and the base model on held-out tasks.", reporting)
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
    pull.set_defaults(call=calls["model pull"])
    listing = actions.add_parser("list", parents=[reporting], help="List the embedded model and those in the cache.")
    listing.set_defaults(call=calls["model list"])
    export = actions.add_parser("export", parents=[common],
                                help="Write the trained model as a folder that transformers loads.")
    export.add_argument("directory", type=Path, metavar="DIR", help="a new or empty folder")
    export.set_defaults(call=calls["model export"])

    _swarm_commands(command, reporting)
    key = commands.add_parser("identity", help="Show, make, back up and restore the node's key.",
                              description="Show, make, back up and restore the node's key.")
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help, argument in (
        ("show", "Tell the node's peer id, its name and the file of its key.", None),
        ("new", "Make a key where there is none; the node does so itself when it first joins a swarm.", None),
        ("backup", "Copy the key into a new file that only you can read.", "FILE"),
        ("restore", "Take the key from a backup, or from the swarm.pem of an rl-swarm node.", "FILE"),
    ):
        action = actions.add_parser(name, parents=[reporting], help=help, description=help)
        if argument is not None:
            action.add_argument("file", type=Path, metavar=argument)
        action.set_defaults(call=calls[f"identity {name}"])

    command("import-env",
            "Take over the environment variables of rl-swarm (MODEL_NAME, IDENTITY_PATH, ...) as a drop-in.", common)
    return whole


def _common_options(default: str | None) -> argparse.ArgumentParser:
    """The options that every command has. default: what they are where they are not given."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--config", type=Path, default=default, metavar="PATH",
                      help="the configuration (default: /etc/swarmd/config.yaml, and where there is none, "
                           "the built-in defaults)")
    made.add_argument("--state", type=Path, default=default, metavar="DIR",
                      help="where checkpoints and curves are kept (default: $STATE_DIRECTORY, for root the "
                           "service's /var/lib/swarmd where it is installed, else ~/.local/state/swarmd)")
    made.add_argument("--instance", default=default, metavar="NAME",
                      help="the node that swarmd@NAME.service runs: /etc/swarmd/NAME.yaml, /var/lib/swarmd/NAME")
    return made


def _swarm_commands(command: Callable[..., argparse.ArgumentParser], reporting: argparse.ArgumentParser) -> None:
    founding = command("found", "Found a swarm with this node as its first member, and print an invite.", reporting)
    founding.add_argument("name", metavar="NAME")
    founding.add_argument("--round-seconds", type=_seconds, default=60.0, metavar="S",
                          help="length of a round, 1 to 86400 (default: 60); it cannot be changed later")
    founding.add_argument("--nodes", type=_nodes, metavar="N",
                          help=f"how many nodes it is to have, 1 to {MOST_NODES}: fits swarm.shards to it, which "
                               "cannot be changed later (default: swarm.shards as configured here, 32 for up to 512)")
    founding.add_argument("--datasets", metavar="PRESET", help="the swarm's tasks (default: those configured here)")
    founding.add_argument("--private", action="store_true", help="only who has the invite can read and take part")
    founding.add_argument("--announce", action="append", default=[], metavar="MULTIADDR",
                          help="where others reach this node, such as /ip4/203.0.113.7/tcp/38751; may be repeated")
    founding.add_argument("--bootnode", action="store_true", help="only help others to find each other; do not train")
    command("invite", "Print the invite to the swarm that this node is in.", reporting)
    joining = command("join", "Join a swarm.", reporting)
    joining.add_argument("invite", metavar="INVITE",
                         help="what swarmd found or swarmd invite printed; - reads it from standard input")
    command("leave", "Leave the swarm; what the node has learned stays.", reporting)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not in 1 to 86400")
    return seconds


def _nodes(text: str) -> int:
    number = _at_least(1)(text)
    if number > MOST_NODES:
        raise argparse.ArgumentTypeError(f"{number} is more than {MOST_NODES}; name {MOST_NODES} for a larger swarm")
    return number


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
