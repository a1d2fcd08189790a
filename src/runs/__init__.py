"""Run folders: their files, metrics, and how to find one. Never imports MindSpore."""

from src.runs.find import class_names, find_checkpoint, latest_best
from src.runs.folder import RUNS, RunFolder
from src.runs.metrics import COLUMNS, Metrics, throughput

__all__ = ["COLUMNS", "RUNS", "Metrics", "RunFolder", "class_names", "find_checkpoint", "latest_best", "throughput"]
