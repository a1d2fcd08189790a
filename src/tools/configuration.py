"""Print the reference of all configuration keys, docs/configuration.md.

Example: python -m src.tools.configuration > docs/configuration.md
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Print the reference."""
    cli.Parser(__doc__, config=False).parse(argv)
    from src.config.reference import reference

    print(reference(), end="")


if __name__ == "__main__":
    cli.run(main)
