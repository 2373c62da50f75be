"""Weights and optimizer states as safetensors files, and back bit for bit."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightsError(ValueError):
    """A file of weights that is damaged or not this model's."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's weights; tied ones once, under their first name, as `from_pretrained` reads them."""
    save_file({name: tensor.contiguous() for name, tensor in _own(model).items()}, path, {"format": "pt"})


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the file's weights into the model, rounded to its number format where the file has another.

    Raises:
        WeightsError: names or shapes differ from the model's, or the file is damaged. The model is then unchanged.
        OSError: the file cannot be read.
    """
    own = _own(model)
    found = _load(path)
    _compare(path, own, found)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(found[name])


def save_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Write the optimizer's state tensors, named after the weights they belong to: KIND.WEIGHT."""
    tensors = {
        f"{kind}.{name}": tensor
        for name, weight in model.named_parameters()
        for kind, tensor in optimizer.state.get(weight, {}).items()
    }
    save_file(tensors, path)


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Replace the optimizer's state by the file's, in the number format of the weights.

    Raises:
        WeightsError: the file is damaged, or has states of weights that the model has not. The optimizer is
            then unchanged.
        OSError: the file cannot be read.
    """
    weights = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _load(path).items():
        kind, _, name = key.partition(".")
        weight = weights.get(name)
        if weight is None or tensor.shape not in ((), weight.shape):
            raise WeightsError(f"{path} holds {key} {tuple(tensor.shape)}, which is no state of this model")
        # Steps are counted in fp32 whatever the weights are: bf16 cannot tell 256 from 257.
        states.setdefault(name, {})[kind] = tensor.to(weight.device, None if kind == "step" else weight.dtype)
    optimizer.state.clear()
    for name, state in states.items():
        optimizer.state[weights[name]] = state


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without second names of tied weights."""
    seen: set[int] = set()
    own = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            own[name] = tensor
    return own


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error


def _compare(path: Path, own: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    missing, strange = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or strange:
        raise WeightsError(
            f"{path} holds another model's weights: {len(missing)} missing (first: {missing[:1]}), "
            f"{len(strange)} unknown (first: {strange[:1]})"
        )
    for name, tensor in own.items():
        theirs = found[name]
        if theirs.shape != tensor.shape or theirs.is_floating_point() != tensor.is_floating_point():
            raise WeightsError(
                f"{path}: {name} is {theirs.dtype} {tuple(theirs.shape)}, the model has {tensor.dtype} "
                f"{tuple(tensor.shape)}"
            )
