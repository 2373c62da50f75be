"""What `swarmd doctor` looks at on the machine: directories, disk, memory, torch and GPU, the hub."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.config import ConfigErrors, secret_path
from swarmd.config.secret_values import CREDENTIAL_PREFIX
from swarmd.doctor.look import Finding, Look
from swarmd.system.exits import RestartableError
from swarmd.system.paths import cache_directory
from swarmd.system.redaction import conceal

_MIB, _GIB = 2**20, 2**30
_LITTLE = _GIB
_LEAST = 64 * _MIB
_HUB = "https://huggingface.co"
_HUB_SECONDS = 10.0
_DRIVER = Path("/proc/driver/nvidia/version")


def state(look: Look) -> Iterator[Finding]:
    """The state directory is there, and the node may write to it."""
    if not look.state.is_dir():
        yield Finding("state", "ok", f"{look.state} is not there yet; the first start makes it")
        return
    if os.access(look.state, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state", "ok", f"{look.state} can be written by user {os.geteuid()}")
    elif look.is_the_service:
        yield Finding("state", "skipped", f"{look.state} is the service's, and not to be looked into by this user",
                      "sudo swarmd doctor")
    else:
        owner = look.state.stat().st_uid
        yield Finding("state", "failed", f"{look.state} belongs to user {owner} and cannot be written by this one "
                      f"({os.geteuid()})", f"sudo chown -R {os.geteuid()} {look.state}")


def disk(look: Look) -> Iterator[Finding]:
    """There is room for checkpoints, and for a model of the hub that has yet to be fetched."""
    checkpoint = _checkpoint_bytes(look)
    # The next one is written before the oldest is removed.
    yield _disk_of("disk", "checkpoints", look.state, 2 * checkpoint, "training.keep_checkpoints")
    if "/" in look.config.model.name and not look.config.model.name.startswith("/") and not look.bootnode:
        yield _disk_of("disk-cache", "models of the hub", cache_directory(), 0, "a smaller model")


def _disk_of(check: str, what: str, directory: Path, needed: int, less: str) -> Finding:
    while not directory.exists():
        directory = directory.parent
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    told = f"{free / _GIB:.1f} GiB are free for {what} in {directory}"
    fix = f"df -h {directory}  # make room there, or need less: {less}"
    if free < max(_LEAST, needed) or (found.f_files and not found.f_favail):
        return Finding(check, "failed", f"{told}, too little ({max(_LEAST, needed) / _MIB:.0f} MiB are needed) or no "
                       "more files can be made", fix)
    if free < max(_LITTLE, 2 * needed):
        return Finding(check, "warning", f"{told}, which is little", fix)
    return Finding(check, "ok", told)


def _checkpoint_bytes(look: Look) -> int:
    """The size of the last checkpoint; 0 where there is none, or none to be seen."""
    last = look.status.get("checkpoint") or {}
    folder = Path(str(last.get("path") or ""))
    if look.state not in folder.parents or not folder.is_dir():
        return 0
    return sum(entry.stat(follow_symlinks=False).st_size for entry in folder.iterdir())


def memory(look: Look) -> Iterator[Finding]:
    """The model fits the memory, as planned or, of a running node, as it turned out."""
    if look.bootnode:
        return
    told = look.status.get("memory") or {}
    if look.running and told.get("limit") and told.get("peak"):
        share = told["peak"] / told["limit"]
        message = f"the node has used {told['peak'] // _MIB} MiB at most of the {told['limit'] // _MIB} MiB it may use"
        fix = (f"sudo systemctl set-property {look.named.unit} MemoryMax=SIZE  # more memory, or a smaller model"
               if look.is_the_service else "set a smaller model.name, training.group_size or training.max_new_tokens")
        yield Finding("memory", "warning" if share > 0.95 else "ok", message, fix if share > 0.95 else None)
        return
    yield _planned(look)


def _planned(look: Look) -> Finding:
    from swarmd.planned import planned

    try:
        chosen = planned(look.config, look.state, look.named.unit if look.is_the_service else None)
    except RestartableError as error:
        return Finding("memory", "failed", str(error), "nvidia-smi")
    if chosen.plan is None:
        return Finding("memory", "skipped", f"how much model {chosen.name} needs is known when it has been fetched",
                       f"swarmd model pull {chosen.name}")
    limit = f"{chosen.limit.bytes // _MIB} MiB ({chosen.limit.source})"
    needed = f"{chosen.plan.predicted_bytes // _MIB} MiB"
    return Finding("memory", "ok", f"model {chosen.name} will need {needed} of {limit}, in mode {chosen.plan.mode}")


def torch(look: Look) -> Iterator[Finding]:
    """The build of torch fits the machine and the configuration."""
    if look.bootnode:
        return
    import torch as library

    build = f"torch {library.__version__}, " + (
        "a build for CPUs" if library.version.cuda is None else f"a build for CUDA {library.version.cuda}"
    )
    wanted = look.config.model.device
    if library.cuda.is_available():
        name = library.cuda.get_device_name(0)
        bf16 = "with" if library.cuda.is_bf16_supported() else "without"
        count = library.cuda.device_count()
        found = f"a GPU, {name}" if count == 1 else f"{count} GPUs, the first one {name}"
        yield Finding("torch", "ok", f"{build}; it finds {found}, {bf16} bf16")
    elif wanted == "cuda":
        fix = ("install the package swarmd-cuda, or set model.device: cpu" if library.version.cuda is None
               else "nvidia-smi  # does the driver work? after a change of the driver, reboot")
        yield Finding("torch", "failed", f"{build}; model.device is cuda, and it finds no GPU", fix)
    elif _DRIVER.exists() and wanted == "auto":
        yield Finding("torch", "warning", f"{build}; this machine has an NVIDIA driver, and torch cannot use it",
                      "sudo apt install ./swarmd-cuda.deb  # or set model.device: cpu")
    else:
        yield Finding("torch", "ok", f"{build}; computes on the processor, {_bf16_of_cpu()}")


def _bf16_of_cpu() -> str:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        flags = set()
    found = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512")) if flag in flags]
    return f"with bf16 in hardware ({', '.join(found)})" if found else "without bf16 in hardware"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the server that was named, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def hub(look: Look) -> Iterator[Finding]:
    """The hub can be reached and takes the token. Nothing is asked where no token and no upload is configured."""
    settings = look.config.hub
    if settings.token_file is None and settings.endpoint is None:
        return
    endpoint = str(settings.endpoint or look.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    headers = {"User-Agent": "swarmd-doctor"}
    if settings.token_file is not None:
        if settings.token_file.startswith(CREDENTIAL_PREFIX) and "CREDENTIALS_DIRECTORY" not in look.environ:
            yield Finding("hub", "skipped", f"hub.token_file is {settings.token_file}: the service alone can read it")
            return
        try:
            token = secret_path(settings.token_file, look.environ).read_text(encoding="ascii").strip()
        except (ConfigErrors, OSError, UnicodeDecodeError) as error:
            yield Finding("hub", "failed", f"hub.token_file {settings.token_file} cannot be read: {error}",
                          f"ls -l {settings.token_file}  # user {os.geteuid()} must be able to read it")
            return
        conceal(token)
        headers["Authorization"] = f"Bearer {token}"
    yield _asked(endpoint, headers)


def _asked(endpoint: str, headers: dict[str, str]) -> Finding:
    path = "/api/whoami-v2" if "Authorization" in headers else "/api/models?limit=1"
    try:
        request = urllib.request.Request(endpoint + path, headers=headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_HUB_SECONDS) as answer:
            json.loads(answer.read(1024 * 1024))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Finding("hub", "failed", f"{endpoint} does not take the token in hub.token_file ({error.code})",
                           "make a new token on the hub and put it into that file")
        return Finding("hub", "warning", f"{endpoint} answered {error.code}", f"curl -I {endpoint}")
    except (OSError, ValueError) as error:
        return Finding("hub", "warning", f"{endpoint} cannot be reached: {error}; training goes on without it",
                       f"curl -I {endpoint}  # network, proxy, name server")
    return Finding("hub", "ok", f"{endpoint} answers" + (" and knows the token" if "whoami" in path else ""))
