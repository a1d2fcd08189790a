"""Train and evaluate as one process of one or two: python -m tests.helpers.ranks CONFIG OUT [--msrun].

Writes the losses of the steps, the weights at the end and their digest in each process, and the right answers among the
validation images.
"""

import hashlib
import sys

import numpy as np

from src.runtime import device
from tests.helpers.configs import load


def main(file: str, out: str, distribute: bool) -> None:
    group = device.set_up("CPU", fused_kernels="off", distribute=distribute)
    from src.data.datasets import open_dataset
    from src.data.loaders import train_batches, val_loader
    from src.data.training import TrainingData
    from src.models import from_config
    from src.training.evaluate import evaluate
    from src.training.state import create_train_state, make_train_step

    config = load(file)
    config = load(file, [f"data.batch_size={16 // group.size // config.train.accumulate}"])
    source = open_dataset(config.data, group=group)
    device.set_seeds(config.train.seed)
    state = create_train_state(config, lambda: from_config(config.model), [0.02] * 20)
    step = make_train_step(state, config, config.model.tokens, group)
    losses = []
    with TrainingData(source, config, config.model.num_classes, group) as data:
        for images, labels in train_batches(data.epoch(1)):
            result = step(images, labels, *step.sample(len(labels), 0))
            if result is None:  # accumulated
                continue
            loss, _ = result
            losses.append(group.sum([float(loss.asnumpy())])[0] / group.size)
    accuracy = evaluate(state.network, val_loader(source, config, group), config.data.batch_size, group)
    weights = np.concatenate([weight.asnumpy().ravel() for weight in state.network.get_parameters()])
    digests = group.gather(hashlib.sha256(weights.tobytes()).hexdigest())
    if group.is_main:
        counts = [accuracy.top1_hits, accuracy.top5_hits, accuracy.images]
        np.savez(out, losses=losses, weights=weights, counts=counts, ranks=group.size, digests=digests)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--msrun" in sys.argv)
