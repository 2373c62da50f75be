"""Models of the Hugging Face hub: what the cache holds, and fetching what it lacks.

Fetching needs a process of its own (`swarmd model pull`): the node itself runs with the hub switched off, so that
no library of its can reach the network behind its back.
"""

from __future__ import annotations

from pathlib import Path

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from swarmd.system.exits import RestartableError
from swarmd.training.models import ModelError

# Weights as safetensors, configuration, tokenizer, chat template. No pickles, no code.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def cached_folder(name: str, revision: str | None, cache: Path) -> Path | None:
    """The folder of a model that was fetched before, or None."""
    try:
        return Path(snapshot_download(
                name, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=_WANTED
            )
        )
    except LocalEntryNotFoundError:
        return None


def pull(name: str, revision: str | None, cache: Path, token: str | None) -> Path:
    """Fetches a model into the cache, going on where an earlier attempt broke off, with a progress bar on a terminal.

    Raises:
        ModelError: the hub does not know the model, or wants a token: a person has to mend that.
        RestartableError: the hub cannot be reached or has a fault of its own: it may be gone after a while.
    """
    try:
        return Path(
            snapshot_download(name, revision=revision, cache_dir=cache, token=token or False, allow_patterns=_WANTED)
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        refusals = {
            401: "it does not exist, or it needs a token: put one in a file and name it in hub.token_file",
            403: "the token in hub.token_file may not read it (a gated model: accept its terms on the hub first)",
            404: "there is no such model or revision on the hub; check model.name and model.revision",
        }
        if status in refusals:
            raise ModelError(f"model {name}: {refusals[status]}") from None
        raise RestartableError(f"model {name}: the hub answered {status}; try again later") from None
    except (OSError, LocalEntryNotFoundError, ValueError, httpx2.HTTPError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RestartableError(
            f"model {name}: it cannot be fetched ({first}); check the network and run `swarmd model pull {name}` "
            "again, which goes on where it stopped"
        ) from None


def downloaded(cache: Path) -> list[tuple[str, int]]:
    """(name, bytes on disk) of every model in the cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(cache).repos
    except CacheNotFound:
        return []
    return sorted((r.repo_id, r.size_on_disk) for r in repositories if r.repo_type == "model")
