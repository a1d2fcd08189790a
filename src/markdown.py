"""Tables in Markdown."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that can be pasted into a document."""
    lines = [list(header), ["---"] * len(header), *[list(row) for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
