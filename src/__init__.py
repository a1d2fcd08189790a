"""SkipViT (arXiv 2401.15293) and EViT (arXiv 2202.07800) on MindSpore."""

from src.runtime.device import prepare_environment

__version__ = "0.1.0"

prepare_environment()  # MindSpore reads its environment when it is first imported
