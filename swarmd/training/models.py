"""From a model's name to a loaded model: the embedded one, a folder, or one fetched from the Hugging Face hub.

Nothing here downloads or runs code that came with a model: weights are read from safetensors alone, custom model
code is refused, and `hub.py` fetches in a process of its own.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from swarmd.system.exits import ConfigurationError
from swarmd.training.decoder import UnsupportedModel, check_head

EMBEDDED = "embedded"

# A chat template is a program that came with the model: this bounds its first rendering.
_TEMPLATE_SECONDS = 5.0
_TEMPLATE_CHARS = 100_000
# What transformers and a template raise for values that contradict each other: it differs by model and version.
CONTRADICTIONS = (
    ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError, ImportError, IndexError,
    struct.error, StrictDataclassError,
)  # fmt: skip
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelError(ConfigurationError):
    """A model that cannot be trained; the message names it and what to do."""


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready for sampling and training.

    Attributes:
        name: as it is shown to users: "embedded", a folder, or OWNER/NAME.
        model: weights in the asked number format, on the asked device, in eval mode.
        tokenizer: with a chat template, an end token and a padding token.
        parameters: how many, tied ones counted once.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: int


def is_hub_name(name: str) -> bool:
    """Whether the name means a repository on the hub rather than something on this machine."""
    return name not in (EMBEDDED, "auto") and not name.startswith((".", "/")) and bool(_HUB_NAME.fullmatch(name))


def embedded_folder() -> Path:
    """Where the package keeps the embedded model."""
    return Path(str(files("swarmd.training") / "embedded"))


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The model's config.json, after the checks that need no loading.

    Raises:
        ModelError: not a model folder, unreadable or damaged, custom code, or weights only as pickle.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelError(f"model {name}: {folder} is not a folder; set model.name to a folder with config.json, "
                         "model.safetensors and the tokenizer's files")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"model {name}: {folder} has no config.json, so it is no model folder") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelError(f"model {name}: {path} cannot be read ({error}); fetch the model again") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"model {name}: {path} names no model_type, so it is no model of transformers")
    if "auto_map" in config:
        raise ModelError(f"model {name}: it needs code of its own (auto_map in {path}), which is never run here; "
                         "choose a model that transformers knows, such as Qwen/Qwen2.5-0.5B-Instruct")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter([*folder.glob("*.bin"), *folder.glob("*.pt")]), None)
        found = f"only {pickled.name}, a pickle, which can run code when it is read" if pickled else "no weights"
        raise ModelError(f"model {name}: {folder} has {found}; it needs *.safetensors files")
    if config.get("quantization_config"):
        raise ModelError(f"model {name}: its weights are quantized (quantization_config in {path}), and such weights "
                         "cannot be trained; choose the model that it was made from")
    return _without_kernels(config)


def _without_kernels(config: dict[str, Any]) -> dict[str, Any]:
    """How attention is computed is for this machine to choose, and a name of the hub there would be fetched and run."""
    return {
        key: _without_kernels(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in ("attn_implementation", "_attn_implementation", "experts_implementation")
    }


def describe(raw: dict[str, Any], name: str) -> PretrainedConfig:
    """What transformers makes of a config.json.

    Raises:
        ModelError: it knows no such model, or the values contradict each other.
    """
    kind = raw["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"model {name}: transformers has no model of type {kind!r}")
    try:
        config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(raw)
    except CONTRADICTIONS as error:
        raise ModelError(f"model {name}: its config.json contradicts itself: {first_line(error)}") from None
    return config


def load_model(name: str, folder: Path, dtype: torch.dtype, device: torch.device) -> LoadedModel:
    """Loads the model of a folder.

    Args:
        name: what to call it in messages.
        folder: config.json, *.safetensors, tokenizer files.
        dtype: number format of the weights.
        device: where to put them.

    Raises:
        ModelError: the folder's content is damaged or not fit for training; the message says what is missing.
    """
    config = describe(read_config(folder, name), name)
    tokenizer = _load_tokenizer(name, folder)
    model = _load_weights(name, folder, config, dtype)
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    if len(tokenizer) > rows:
        raise ModelError(f"model {name}: the tokenizer has {len(tokenizer)} tokens and the model's embedding only "
                         f"{rows}; they do not belong together")
    model.to(device)  # type: ignore[arg-type]
    model.eval()
    try:
        check_head(model)
    except UnsupportedModel as error:
        raise ModelError(f"model {name}: {error}") from None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return LoadedModel(name=name, model=model, tokenizer=tokenizer, parameters=parameters)


def _load_weights(name: str, folder: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    loaded: Any
    try:
        # Left to itself, transformers fills up what is missing with random numbers and a warning.
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except SafetensorError as error:
        raise ModelError(f"model {name}: the weights in {folder} are damaged ({error}); fetch them again") from None
    except (OSError, *CONTRADICTIONS) as error:
        raise ModelError(f"model {name}: transformers cannot load {folder}: {first_line(error)}") from None
    model: PreTrainedModel = loaded[0]
    report: dict[str, Any] = loaded[1]
    for weight, found, wanted in sorted(report["mismatched_keys"]):
        raise ModelError(f"model {name}: the weights in {folder} do not belong to its config.json: {weight} has the "
                         f"shape {tuple(found)} and not {tuple(wanted)}; fetch the model again")
    if missing := sorted(report["missing_keys"]):
        others = f" and {len(missing) - 1} other weights" if len(missing) > 1 else ""
        raise ModelError(f"model {name}: {missing[0]}{others} cannot be found in {folder}; fetch the model again")
    return model


def _load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    # Without any of these transformers makes up a tokenizer that knows no words, and says nothing.
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"model {name}: {folder} has no tokenizer; it needs {' or '.join(_TOKENIZER_FILES)}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, *CONTRADICTIONS) as error:
        raise ModelError(f"model {name}: its tokenizer cannot be loaded from {folder}: {first_line(error)}") from None
    except Exception as error:
        # The tokenizers library raises plain Exception for a damaged tokenizer.json.
        if type(error) is not Exception:
            raise
        raise ModelError(f"model {name}: {folder}/tokenizer.json is damaged: {first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {name}: its tokenizer has no end token, so completions could never end; add "
                         f"eos_token to {folder}/tokenizer_config.json")
    if not tokenizer.chat_template:
        raise ModelError(f"model {name}: its tokenizer has no chat template (a base model?); choose an instruct model "
                         f"or add chat_template to {folder}/tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    try:
        with _deadline(_TEMPLATE_SECONDS):
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": "1 + 1 ="}], add_generation_prompt=True, tokenize=False
            )
    except _TooSlow:
        raise ModelError(f"model {name}: its chat template runs for more than {_TEMPLATE_SECONDS:g} s on one "
                         "question; it is broken or hostile") from None
    except (TemplateError, MemoryError, RecursionError, *CONTRADICTIONS) as error:
        raise ModelError(f"model {name}: its chat template fails on a plain question: {first_line(error)}") from None
    if len(prompt) > _TEMPLATE_CHARS:
        raise ModelError(f"model {name}: its chat template makes {len(prompt)} characters of one short question; it is "
                         "broken or hostile")
    return tokenizer


class _TooSlow(Exception):
    pass


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises _TooSlow in the block after `seconds`. Only the main thread can be interrupted so; others run on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, expire)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)  # that of a node which was asked to stop


def first_line(error: BaseException) -> str:
    """An error of a library in a line: its first, with the second where that one says what is wrong."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:300]
