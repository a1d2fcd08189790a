"""Load a file of contrib/mindcv into the MindCV that is installed, and take it out again."""

import contextlib
import importlib.util
import sys

from mindcv.models import registry

from tests.helpers.commands import ROOT

CONTRIB = ROOT / "contrib" / "mindcv"
MODEL_FILE = CONTRIB / "mindcv" / "models" / "skipvit.py"
_TABLES = (registry._model_entrypoints, registry._model_to_module, registry._model_pretrained_cfgs)


@contextlib.contextmanager
def loaded(path, name):
    """Load a file as a module of MindCV; the registry is afterwards as it was."""
    tables = [dict(table) for table in _TABLES]
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
        for table, before in zip(_TABLES, tables):
            table.clear()
            table.update(before)
        registry._module_to_models.pop(name.rpartition(".")[2], None)
