"""Weights: this project's checkpoint files, those of others, conversion, and loading into networks."""

from src.weights.load import Checkpoint, load_timm, read_checkpoint

__all__ = ["Checkpoint", "load_timm", "read_checkpoint"]
