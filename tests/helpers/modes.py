"""Run networks in one of MindSpore's execution modes; graphs are the default."""

import contextlib

import mindspore as ms


@contextlib.contextmanager
def pynative():
    """Operators run one by one, but for what compiles: quicker for a single pass."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
