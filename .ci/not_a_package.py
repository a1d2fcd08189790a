"""Refuse to be built: the project is run from its folder."""

MESSAGE = "this project is run from its folder and is not a package; use: pip install -r requirements.txt"


def build_wheel(*_: object, **__: object) -> str:
    raise SystemExit(f"error: {MESSAGE}")


build_sdist = build_editable = build_wheel
