"""Ascend 910A, checked statically: operators, graphs, and a cost model. Nothing here was run on a 910A."""
