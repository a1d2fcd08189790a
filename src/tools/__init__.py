"""Tools, each `python -m src.tools.NAME`."""
