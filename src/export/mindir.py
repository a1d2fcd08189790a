"""Export to MindIR, verified: the file is loaded back and its logits are compared with the network's."""

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from src.config import Config, sides
from src.errors import RunError, short_message
from src.export.checks import check
from src.export.metadata import describe
from src.files import set_mode, written_whole
from src.runtime import device
from src.weights import read_checkpoint

if TYPE_CHECKING:
    from mindspore import nn

LARGEST = 10**9  # bytes; of more, MindSpore writes several files


def export_checkpoint(
    config: Config, path: Path, output: Path, batch_size: int, tolerance: float, target: Optional[str] = None
) -> None:
    """Write a checkpoint's network as MindIR: float32 [B, 3, H, W] → float32 logits [B, classes].

    Args:
        batch_size: B; 0 for a graph that takes any.
        tolerance: Largest absolute difference between the logits of the file and of the network written for the device
            that computes both: where the file's kernels are another device's, what they compute is compared too.
        target: `cpu` or `ascend`, whose kernels the file holds; by default the configured device's.

    Raises:
        UserError: The checkpoint does not fit the configuration, or the output cannot be written.
        RunError: The file computes something else; it is not kept.
    """
    check(config, output, ".mindir", LARGEST)
    device.check_settings(config.runtime.device_target)
    device.set_up(config.runtime.device_target, fused_kernels="off")  # what is written fits any device
    from src.models import from_config
    from src.models.ops import choose_target

    target = choose_target(target)
    checkpoint = read_checkpoint(path)
    config = checkpoint.fill_in(config)
    model = config.model
    network = from_config(model).set_train(False)
    checkpoint.load_into(network)
    written = network
    if target != choose_target(None):
        written = from_config(model, target=target).set_train(False)
        checkpoint.load_into(written)
    with written_whole(output) as partial:
        difference = _export(written, network, partial, batch_size, config)
        if not difference <= tolerance:
            raise RunError(f"{output}: logits differ by {difference:g}, more than {tolerance:g}; the file was deleted")
        verified = f"largest difference {difference:.3g} on {config.runtime.device_target}"
        _describe(partial, {**describe(config, checkpoint), "target": target, "verified": verified})
        set_mode(partial, 0o644)  # MindSpore's files are for their owner only
    megabytes = output.stat().st_size / 2**20
    batch = f"batch {batch_size}" if batch_size else "any batch"
    print(f"{output}: {megabytes:.1f} MB, {batch}, tokens {network.plan.schedule}, for {target}, {verified}")


def _describe(path: Path, said: dict[str, str]) -> None:
    """Write into a MindIR file what it is, as its `user_info`: a message's fields may be appended to it."""
    from src.runtime.releases import user_info

    set_mode(path, 0o600)  # MindSpore's files are read-only
    with path.open("ab") as file:
        file.write(user_info(said))


def write(network: "nn.Cell", path: Path, batch_size: int, image_size: tuple[int, int]) -> None:
    """Write a network as MindIR: float32 [B, 3, H, W] → float32 logits [B, classes]; a batch size of 0: any."""
    import mindspore as ms
    from mindspore import Tensor

    shape = [batch_size or None, 3, *image_size]
    signature = Tensor(shape=shape, dtype=ms.float32) if not batch_size else ms.ops.zeros(tuple(shape), ms.float32)
    ms.export(network, signature, file_name=str(path), file_format="MINDIR")


def _export(written: "nn.Cell", network: "nn.Cell", path: Path, batch_size: int, config: Config) -> float:
    """Write one network, load the file back, and return the largest difference of its logits from another's.

    NaN where any is not finite.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn

    size = sides(config.model.image_size)
    images = Tensor(np.random.RandomState(0).standard_normal((batch_size or 2, 3, *size)), ms.float32)
    try:
        write(written, path, batch_size, size)
        exported = nn.GraphCell(ms.load(str(path)))(images).asnumpy()
    except (RuntimeError, ValueError) as error:
        reason = short_message(error)
        raise RunError(f"--output: MindSpore cannot write {path.parent}, or not read it back: {reason}") from error
    expected = network(images).asnumpy()
    finite = np.isfinite(exported).all() and np.isfinite(expected).all()
    return float(np.abs(exported - expected).max()) if finite else float("nan")
