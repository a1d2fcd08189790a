"""Write a checkpoint as an ONNX file. Never imports MindSpore."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src import __version__
from src.config import Config, DataConfig
from src.export.form import Form
from src.export.onnx import lvvit, vit
from src.export.onnx.tokens import FLOAT, follow
from src.schedules import Geometry, parse, resolve
from src.weights import Checkpoint
from src.weights.load import check_fit, shapes_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript import GraphBuilder

NETWORKS = {"vit": (vit.SkipViT, vit.lay_out), "lvvit": (lvvit.LVViT, lvvit.lay_out)}
OPSET, IR_VERSION = 20, 10  # the first with Gelu; onnxruntime reads it since 1.18


def write(path: Path, config: Config, checkpoint: Checkpoint, form: Form, facts: Mapping[str, str]) -> None:
    """Write a checkpoint's network as ONNX: `images` → `logits`, float32 [B, classes].

    Args:
        config: Its model with `num_classes` filled in.
        facts: What the file says of itself, as its metadata.

    Raises:
        UserError: The checkpoint does not fit the configuration.
    """
    import onnx_ir as ir

    path.write_bytes(ir.to_proto(build(config, checkpoint, form, facts)).SerializeToString())


def add_fact(path: Path, name: str, text: str) -> None:
    """Add one to what a file says of itself: a message's fields may be appended to it."""
    import onnx

    fact = onnx.StringStringEntryProto(key=name, value=text)
    with path.open("ab") as file:
        file.write(onnx.ModelProto(metadata_props=[fact]).SerializeToString())


def build(config: Config, checkpoint: Checkpoint, form: Form, facts: Mapping[str, str]) -> "ir.Model":
    """Return what `write` writes."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript import GraphBuilder

    geometry = Geometry.from_config(config.model)
    plan = resolve(parse(config.model.tokens), geometry)
    arrays = checkpoint.arrays_at(geometry.grid, geometry.prefix_tokens)
    check_fit(arrays, shapes_of(geometry), checkpoint.path)
    builder = GraphBuilder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="skipvit"))
    images = _input(builder, geometry, form, config.data)
    network, lay_out = NETWORKS[geometry.backbone]
    weights = lay_out(arrays, geometry)
    logits, all_ids = network(builder, images, weights, geometry, plan, config.model.act, form.float16).construct()
    builder.add_output(logits, "logits")
    for name, places in follow(builder.op, plan, all_ids)[0].items() if form.kept else ():
        builder.add_output(places, name)
    model = ir.Model(
        builder.graph, ir_version=IR_VERSION, producer_name="skipvit-mindspore", producer_version=__version__
    )
    ClearMetadataAndDocStringPass()(model)  # of each node
    model.metadata_props.update(facts)
    return model


def _input(builder: "GraphBuilder", geometry: Geometry, form: Form, data: DataConfig) -> "ir.Value":
    """Add the input `images`, and return it as float32 [B, 3, H, W], normalised."""
    import onnx_ir as ir

    batch, channels = form.batch_size or "batch", geometry.in_channels
    if not form.uint8:
        return builder.input("images", ir.DataType.FLOAT, [batch, channels, *geometry.image_size])
    images = builder.input("images", ir.DataType.UINT8, [batch, *geometry.image_size, channels])
    mean, std = (
        builder.initializer(ir.tensor(255 * np.array(value, np.float32).reshape(-1, 1, 1), name=name))
        for name, value in (("mean", data.mean), ("std", data.std))
    )
    op = builder.op
    pixels = op.Transpose(op.Cast(images, to=FLOAT), perm=[0, 3, 1, 2])
    return op.Div(op.Sub(pixels, mean), std)
