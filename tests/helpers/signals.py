"""Run train.py and send it a signal at some moment: python -m tests.helpers.signals MOMENT NUMBER ARGUMENT ..."""

import functools
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module

import train
from src import cli

MOMENTS = {
    "start-up": ("src.config", "resolve"),
    "import": ("mindspore.ops", ""),
    "verify": ("src.commands", "verify_images"),
    "compile": ("src.runtime.device", "compile_ahead"),
    "step": ("src.training.trainer", "Trainer._sample"),
    "evaluation": ("src.training.trainer", "evaluate"),
    "saving": ("mindspore", "save_checkpoint"),
}


class Interrupter:
    """A finder of modules that finds none, and sends this process a signal when one is imported."""

    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == self.module:
            os.kill(os.getpid(), self.number)
            time.sleep(0.3)


def main(argv: Sequence[str]) -> None:
    """As train.main, which is called when signals are watched: nothing of MindSpore was imported before."""
    moment, number, *arguments = argv
    module, path = MOMENTS[moment]
    if moment == "import":
        sys.meta_path.insert(0, Interrupter(module, int(number)))
        train.main(arguments)
        return
    *owner, name = path.split(".")
    place = functools.reduce(getattr, owner, import_module(module))
    original = getattr(place, name)

    def interrupted(*given: object, **named: object) -> object:
        setattr(place, name, original)
        os.kill(os.getpid(), int(number))
        time.sleep(0.3)  # Ctrl-C is taken by another thread
        return original(*given, **named)

    setattr(place, name, interrupted)
    train.main(arguments)


if __name__ == "__main__":
    cli.run(main)
