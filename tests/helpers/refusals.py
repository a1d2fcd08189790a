"""Refuse many mistakes in one process without MindSpore: python -m tests.helpers.refusals CASES.json

CASES.json is a list of {"module", "arguments", "folder", "environment"}. Prints a list of [kind of error, message,
what it printed, whether MindSpore or MindCV had been imported].
"""

import contextlib
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from src import cli
from src.errors import one_line


def main(file: str) -> None:
    results = []
    for case in json.loads(Path(file).read_text()):
        os.chdir(case["folder"])
        output, kind, message = io.StringIO(), "none", ""
        with contextlib.redirect_stdout(output), patch.dict(os.environ, case.get("environment", {})):
            try:
                import_module(case["module"]).main(case["arguments"])
            except Exception as error:
                known = cli.as_known(error)
                if known is None:
                    raise
                kind, message = type(known).__name__, one_line(str(known))
        heavy = sorted({"mindspore", "mindcv"} & set(sys.modules))
        results.append([kind, message, output.getvalue(), heavy])
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
