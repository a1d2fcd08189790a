"""Evaluate as one of two ranks, of which the second gets SIGTERM before its third batch."""

import os
import signal

import eval as command  # not the function of that name
from src import cli
from src.training import evaluate


def main() -> None:
    batches = evaluate.batches

    def signalled(*given: object, **named: object) -> object:
        for number, batch in enumerate(batches(*given, **named)):
            if number == 2 and os.environ["RANK_ID"] == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    evaluate.batches = signalled
    cli.run(command.main)


if __name__ == "__main__":
    main()
