"""Other implementations of the same ViT, each in a process of its own.

`transformers`: Hugging Face's ViT in PyTorch, eager and compiled, float32 and bfloat16 autocast; for inference also
its ONNX export in onnxruntime. `mindcv`: MindCV's VisionTransformer class with MindCV's AdamW, as it comes.

A worker (python -m src.benchmarks.peers KIND SIZES) reads a contestant's name a line, runs it once and answers with
a line. `timm`: timm's data pipeline (`src.benchmarks.timm_pipeline`). `onnxruntime`, `openvino`, `mindir`: what opens
exported files (`src.benchmarks.runtimes`).
"""

import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Union

import numpy as np

from src.benchmarks.runtimes import RuntimeSettings, open_files
from src.benchmarks.timm_pipeline import PipelineSettings, timm_pipeline
from src.errors import RunError

NEEDS = {
    "transformers": ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"), "mindcv": (),
    "timm": ("torch", "torchvision", "timm"), "onnxruntime": ("onnxscript", "onnxruntime"),
    "openvino": ("onnxscript", "onnxruntime", "openvino"), "mindir": (),
}  # fmt: skip

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class PeerSizes:
    """The sizes that every implementation is built with."""

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int
    batch_size: int

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random images float32 [B, 3, H, W] and labels int32 [B], the same for all."""
        random = np.random.RandomState(0)
        images = random.standard_normal((self.batch_size, 3, self.image_size, self.image_size)).astype(np.float32)
        return images, random.randint(0, self.num_classes, self.batch_size).astype(np.int32)


class Peer:
    """A process that runs contestants when it is told to."""

    def __init__(self, kind: str, settings: Union[PeerSizes, PipelineSettings, RuntimeSettings]) -> None:
        self.kind = kind
        # our settings for MindSpore's CPU kernels are not part of how others run
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "MS_COMPILER_CACHE_PATH")}
        command = [sys.executable, "-m", "src.benchmarks.peers", kind, json.dumps(asdict(settings))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.names: list[str] = self._answer()
        self.versions: dict[str, str] = self._answer()

    def contestants(self) -> dict[str, Callable[[], None]]:
        """Return one training step or inference of each contestant, by name, which starts with "train" or "infer"."""
        return {name: partial(self.run, name) for name in self.names}

    def close(self) -> None:
        self.input.close()
        self.process.wait(timeout=30)

    def run(self, name: str) -> Any:
        """Run a contestant once, and return what it returns if that is a number."""
        self.input.write(name + "\n")
        return self._answer()

    def _answer(self) -> Any:
        line = self.output.readline()
        if not line:
            raise RunError(f"{self.kind}: the process ended with exit code {self.process.wait()}, as it says above")
        return json.loads(line)


def is_installed(kind: str) -> bool:
    """Tell whether the packages that a peer needs are installed; log a line if not."""
    absent = [name for name in NEEDS[kind] if importlib.util.find_spec(name) is None]
    if absent:
        log.warning("%s is left out: %s not installed; pip install %s", kind, ", ".join(absent), " ".join(NEEDS[kind]))
    return not absent


def _transformers(sizes: PeerSizes) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    import onnxruntime
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=sizes.embed_dim, num_hidden_layers=sizes.depth, num_attention_heads=sizes.num_heads,
            intermediate_size=4 * sizes.embed_dim, image_size=sizes.image_size, patch_size=sizes.patch_size,
            num_labels=sizes.num_classes, layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    images, labels = (torch.from_numpy(array) for array in sizes.batch())
    labels = labels.long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    compiled = torch.compile(model)

    def train(network: Callable, bfloat16: bool) -> float:
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = network(pixel_values=images, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def infer(network: Callable, bfloat16: bool) -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(pixel_values=images)

    runs: dict[str, Callable[[], object]] = {}
    for title, network in (("eager", model), ("compiled", compiled)):
        for precision in ("float32", "bfloat16"):
            name = f"PyTorch {title} {precision}"
            runs[f"train {name}"] = partial(train, network, precision == "bfloat16")
            runs[f"infer {name}"] = partial(infer, network, precision == "bfloat16")
    file = io.BytesIO()
    torch.onnx.export(model.eval(), (images,), file, dynamo=False, input_names=["images"])
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    runs["infer onnxruntime float32"] = partial(session.run, None, {"images": images.numpy()})
    versions = {m.__name__: m.__version__ for m in (torch, transformers, onnxruntime)}
    return runs, versions


def _mindcv(sizes: PeerSizes) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    from importlib.metadata import version

    from mindcv.loss import create_loss
    from mindcv.models.vit import VisionTransformer
    from mindcv.optim import create_optimizer
    from mindspore import Tensor, nn

    from src.runtime import device

    device.set_up("CPU", fused_kernels="off")
    network = VisionTransformer(
        sizes.image_size, sizes.patch_size, embed_dim=sizes.embed_dim, depth=sizes.depth, num_heads=sizes.num_heads,
        num_classes=sizes.num_classes,
    )  # fmt: skip
    optimizer = create_optimizer(network, "adamw", lr=1e-4, weight_decay=0.05, weight_decay_filter="norm_and_bias")
    step = nn.TrainOneStepCell(nn.WithLossCell(network, create_loss("CE")), optimizer).set_train()
    images, labels = (Tensor(array) for array in sizes.batch())
    return {"train MindCV float32": lambda: step(images, labels).asnumpy()}, {"mindcv": version("mindcv")}


def _serve(kind: str, settings: dict[str, Any]) -> None:
    runs: Mapping[str, Callable[[], object]]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print is no answer
    if kind == "timm":
        runs, versions = timm_pipeline(PipelineSettings(**settings))
    elif kind in ("onnxruntime", "openvino", "mindir"):
        runs, versions = open_files(kind, RuntimeSettings(**settings))
    else:
        runs, versions = {"transformers": _transformers, "mindcv": _mindcv}[kind](PeerSizes(**settings))
    print(json.dumps(list(runs)), file=answers)
    print(json.dumps(versions), file=answers)
    for line in sys.stdin:
        result = runs[line.strip()]()
        print(json.dumps(result if isinstance(result, float) else True), file=answers)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
