"""Section `memory`: how much the node may use, and in which mode it trains."""

from __future__ import annotations

from typing import Literal

from swarmd.config.values import Auto, Section, Size


class Memory(Section):
    limit: Auto | Size = "auto"
    """Most memory to use; auto: what the control group, the machine or the GPU allows."""

    plan: Auto | Literal["fp32", "bf16-sr"] = "auto"
    """Number format of the training: 32-bit weights, or bfloat16 weights with stochastic rounding."""
