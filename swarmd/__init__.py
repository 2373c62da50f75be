"""swarmd: a node for collaborative reinforcement learning of language models."""

__version__ = "0.1.0"
