"""Write the record of an experiment: its results, table, plots and every training's figures, without the weights.

Example: python -m src.tools.record runs/evidence records/2026-11-27-evidence

OUTPUT is what src.tools.table1 wrote with --finished, or eval.py with --output. Paths of this machine are cut to their
last part. RECORD is a new folder, or one with an earlier record of the same experiment; its README.md is left alone.
records/README.md says what a record needs beside.
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Refuse what is no experiment's, and write."""
    parser = cli.Parser(__doc__, files="OUTPUT RECORD", config=False)
    args = parser.parse(argv)
    from pathlib import Path

    from src.experiments import records

    if len(args.files) != 2 or args.overrides:
        parser.error("record takes two folders, OUTPUT and RECORD, and nothing else")
    output, target = map(Path, args.files)
    files = records.write(output, target)
    runs = sum(path.name == "metrics.csv" for path in files)
    missing = "" if (target / records.WORDS).is_file() else f"; write its {records.WORDS}"
    print(f"record: {target}, {len(files)} files of {runs} trainings{missing}")


if __name__ == "__main__":
    cli.run(main)
