"""Configurations for tests."""

from src import config


def load(path, overrides=()):
    """Load a configuration with overrides as on a command line."""
    return config.load(path, config.read_overrides(overrides))
