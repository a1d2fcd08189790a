"""One process of a small training and evaluation, for test_distributed.py: python -m tests.ranks CONFIG OUT [--msrun].

Writes the losses of the steps, the weights at the end, and the right answers among the validation images.
"""

import sys

import numpy as np

from src import runtime
from src.config import load


def main(file: str, out: str, distribute: bool) -> None:
    group = runtime.set_up("CPU", fused_kernels="off", distribute=distribute)
    from src.data import batches, train_loader, val_loader
    from src.models import from_config
    from src.sources import open_source
    from src.training.evaluate import evaluate
    from src.training.state import new_state

    config = load(file, [f"data.batch_size={16 // group.size}"])
    source = open_source(config.data, group=group)
    runtime.set_seeds(config.train.seed)
    state = new_state(config, lambda: from_config(config.model), [0.02] * 20)
    step = state.step(config, config.model.tokens, group)
    losses = []
    for images, labels in batches(train_loader(source, config, config.model.num_classes, 1, group), sink=False):
        loss, _ = step(images, labels)
        losses.append(group.sum([float(loss.asnumpy())])[0] / group.size)
    accuracy = evaluate(state.network, val_loader(source, config, group), config.data.batch_size, group)
    if group.leads:
        weights = np.concatenate([weight.asnumpy().ravel() for weight in state.network.get_parameters()])
        counts = [accuracy.top1_hits, accuracy.top5_hits, accuracy.images]
        np.savez(out, losses=losses, weights=weights, counts=counts, ranks=group.size)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--msrun" in sys.argv)
