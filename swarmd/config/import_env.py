"""The incumbent's environment variables as settings: what `swarmd import-env` writes into a drop-in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from swarmd.config.loading import config_of
from swarmd.config.problems import ConfigErrors, ConfigProblem
from swarmd.config.tree import Node, Place

TOKEN_FILE_NAME = "hub-token"
_TOKEN_VARIABLE = "HUGGINGFACE_ACCESS_TOKEN"
_CHAIN_NOTE = "to report to the chain, set coordinator.kind: modal with its rpc_url_file and proxy_url"
_MARKET_NOTE = "to take part in the market, set market.enabled: true and market.contract; it needs the chain"
_TOKEN_NOTE = "to upload the model, set hub.push_every and hub.repo"


@dataclass(frozen=True)
class ImportedEnvironment:
    """Settings by section and key, the text of a drop-in with them, and what is left for the operator."""

    settings: dict[str, dict[str, str | bool]]
    text: str
    notes: tuple[str, ...]


def import_environment(environ: Mapping[str, str], state_directory: Path) -> ImportedEnvironment:
    """Translate the variables that are set and not empty; a token goes into a file in `state_directory`.

    Raises ConfigErrors, and writes nothing, where a value cannot be used; also where the token file cannot be
    written.
    """
    settings: dict[str, dict[str, str | bool]] = {}
    layers: list[Node] = []
    notes: list[str] = []
    token = environ.get(_TOKEN_VARIABLE, "").strip()
    token = "" if token == "None" else token  # what the incumbent's launcher passes for "no token"
    token_file = state_directory.absolute() / TOKEN_FILE_NAME

    def take(variable: str, section: str, key: str, value: str | bool) -> None:
        place = Place(f"environment {variable}", None)
        node = Node(value, place, raw=environ[variable] if isinstance(value, bool) else value)
        layers.append(Node({section: Node({key: node}, place)}, place))
        settings.setdefault(section, {})[key] = value

    for variable, (section, key, translate) in _TRANSLATIONS.items():
        text = environ.get(variable, "").strip()
        value = translate(text) if text else None
        if value is not None:
            take(variable, section, key, value)
    if token:
        take(_TOKEN_VARIABLE, "hub", "token_file", str(token_file))
        notes.append(_TOKEN_NOTE)
    if "coordinator" in settings:
        notes.append(_CHAIN_NOTE)
    if _is_true(environ.get("PRG_GAME", "")):
        notes.append(_MARKET_NOTE)
    problems = []
    if not token.isascii() or any(not char.isprintable() or char.isspace() for char in token):
        problems.append(_token_problem("is not a token: it has spaces or other characters that no token has"))
    config_of(layers, problems, order=[])
    if token:
        _write_token(token, token_file)
    return ImportedEnvironment(settings, _drop_in(settings, notes), tuple(notes))


def _is_true(text: str) -> bool:
    return text.strip().lower() not in ("", "0", "false", "no", "off", "n")


_TRANSLATIONS: dict[str, tuple[str, str, Callable[[str], str | bool | None]]] = {
    "MODEL_NAME": ("model", "name", str),
    "CPU_ONLY": ("model", "device", lambda text: "cpu" if _is_true(text) else None),
    # The incumbent's path counts from where it was started, which a service has no notion of.
    "IDENTITY_PATH": ("network", "identity_file", os.path.abspath),
    "SWARM_CONTRACT": ("coordinator", "contract", str),
    "ORG_ID": ("coordinator", "org_id", str),
    "PRG_GAME": ("market", "enabled", lambda text: None if _is_true(text) else False),
}


def _token_problem(message: str) -> ConfigProblem:
    return ConfigProblem(f"environment {_TOKEN_VARIABLE}", None, "", None, message)


def _write_token(token: str, path: Path) -> None:
    """Write beside and rename, so that there is never a moment with a half or a readable token.

    Root writes it for the owner of the directory, who is the user that the service runs as.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as stream:
                if os.geteuid() == 0:
                    owner = os.stat(path.parent)
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                stream.write(f"{token}\n")
                stream.flush()
                os.fsync(descriptor)
            os.replace(beside, path)
        except OSError:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ConfigErrors([_token_problem(f"{path} cannot be written: {error.strerror}")]) from error


def _drop_in(settings: Mapping[str, Mapping[str, str | bool]], notes: list[str]) -> str:
    header = ["Written by swarmd import-env from the variables of an rl-swarm node.", *notes]
    body = yaml.safe_dump(dict(settings), sort_keys=False) if settings else "# No variable was set.\n"
    return "".join(f"# {line}\n" for line in header) + body
