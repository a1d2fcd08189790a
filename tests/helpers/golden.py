"""The losses of 20 training steps on made-up images: python -m tests.helpers.golden writes those of this MindSpore.

Ten dense steps, then ten with token skipping, from one seed: initial weights, stochastic depth, label smoothing,
clipping, AdamW and warm-up all show in them.
"""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from src.models import from_config
from src.runtime import device
from src.training.optimizer import learning_rates
from src.training.state import create_train_state, make_train_step

FILE = Path(__file__).resolve().parents[1] / "golden" / "losses.json"
STEPS, BATCH = 20, 8
MODEL = ModelConfig(
    image_size=32,
    patch_size=8,
    embed_dim=32,
    depth=6,
    num_heads=2,
    num_classes=5,
    tokens="2(50%)+5",
    drop_path_rate=0.1,
)


def losses() -> list[float]:
    """Train, and return the loss of every step."""
    train = TrainConfig(epochs=2, label_smoothing=0.1, clip_norm=1.0, ema_decay=0.99)
    config = Config(model=MODEL, train=train, optimizer=OptimizerConfig(lr=3e-3, lr_batch_size=None, warmup_epochs=1))
    device.set_seeds(config.train.seed)
    state = create_train_state(config, lambda: from_config(config.model), learning_rates(config, STEPS // 2))
    random = np.random.RandomState(0)
    labels = random.randint(0, MODEL.num_classes, STEPS * BATCH).astype(np.int32).reshape(STEPS, BATCH)
    images = random.standard_normal((STEPS, BATCH, 3, 32, 32)).astype(np.float32) + labels[
        ..., None, None, None
    ].astype(np.float32)
    found = []
    for number in range(STEPS):
        if number % (STEPS // 2) == 0:
            step = make_train_step(state, config, "none" if number == 0 else MODEL.tokens)
        sample = step.sample(BATCH, 0, 1, number, 0)
        found.append(float(step(Tensor(images[number]), Tensor(labels[number]), *sample)[0].asnumpy()))
    return found


def main() -> None:
    device.set_up("CPU", fused_kernels="off")
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known[ms.__version__] = [round(loss, 6) for loss in losses()]
    lines = ",\n".join(f' "{version}": {json.dumps(values)}' for version, values in sorted(known.items()))
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
