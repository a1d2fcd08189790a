"""A run, or several beside each other, as one page of HTML.

Example: python -m src.tools.report runs/quickstart-20261120-110055

The page needs no network. Of one run it is RUN/report.html, of several report.html beside the first one, if --output
does not say otherwise. Where a run's data has moved, say so: data.root=FOLDER.
"""

from collections.abc import Sequence
from pathlib import Path

from src import cli, runtime
from src.errors import UserError

MAY_CHANGE = ("data.", "runtime.device_target=")


def main(argv: Sequence[str]) -> None:
    parser = cli.Parser(__doc__, files="RUN", config=False)
    parser.add_argument("--output", metavar="FILE.html", help="the file to write")
    args = parser.parse(argv)
    if not args.files:
        parser.error("name the folder of a run")
    for override in args.overrides:
        if not override.startswith(MAY_CHANGE):
            raise UserError(f"override {override!r}: a report may only be given other data.* and --device_target")
    from src.report import write_report  # after the arguments: it imports MindSpore

    first = Path(args.files[0])
    output = Path(args.output or (first if len(args.files) == 1 else first.parent) / "report.html")
    runtime.set_up(args.device_target or "CPU", fused_kernels="off")
    write_report(args.files, output, args.overrides)
    print(f"report: {output}")


if __name__ == "__main__":
    cli.run(main)
