"""An ONNX file in onnxruntime. Never imports MindSpore."""

from pathlib import Path

import numpy as np

from src.errors import UserError, short_message


class Session:
    """A file as a function of any number of images, whatever its batch size.

    Attributes:
        batch_size: Images of a batch; 0: any number.
        facts: What the file says of itself.

    Raises:
        UserError: The file is none that onnxruntime reads.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, which are raised as well
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own, which have no base but this
            version = onnxruntime.__version__
            raise UserError(f"{path} is no file that onnxruntime {version} reads: {short_message(error)}") from error
        batch, *_ = self.session.get_inputs()[0].shape
        self.batch_size = batch if isinstance(batch, int) else 0
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.facts: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of images [B, ...] by name; a batch that they do not fill is padded."""
        size = self.batch_size or len(images)
        parts = []
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            padded = np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1))
            parts.append([output[: len(batch)] for output in self.session.run(None, {"images": padded})])
        return dict(zip(self.outputs, map(np.concatenate, zip(*parts))))
