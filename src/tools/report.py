"""Write a run, or several beside each other, as one page of HTML.

Example: python -m src.tools.report runs/quickstart-20261120-110055

The page needs no network. Of one run it is RUN/report.html, of several report.html beside the first one, unless
--output says otherwise. Where a run's data has moved, say so: data.root=FOLDER.
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Refuse what can be refused at once, and write the page."""
    parser = cli.Parser(__doc__, files="RUN", config=False)
    parser.add_argument("--output", metavar="FILE.html", help="the file to write")
    args = parser.parse(argv)
    if not args.files:
        parser.error("name the folder of a run")
    from pathlib import Path

    from src.config import Role, format_override, keys_with
    from src.errors import UserError
    from src.runs import RunFolder

    if args.output and Path(args.output).suffix not in (".html", ".htm"):
        raise UserError(f"--output {args.output}: a report is a page; name a file that ends in .html")
    for key, value in args.overrides.items():
        if key not in keys_with(Role.MOVABLE):
            given = format_override(key, value)
            raise UserError(f"override {given!r}: a report may only be given other data.* and --device_target")
    for folder in args.files:
        RunFolder.open(folder)
    from src.runtime import device
    from src.visuals.report import write_report

    first = Path(args.files[0])
    output = Path(args.output or (first if len(args.files) == 1 else first.parent) / "report.html")
    device.set_up(args.device_target or "CPU", fused_kernels="off")
    write_report(args.files, output, args.overrides)
    print(f"report: {output}")


if __name__ == "__main__":
    cli.run(main)
