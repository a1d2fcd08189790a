"""An ONNX file in onnxruntime. Never imports MindSpore."""

from pathlib import Path

import numpy as np

from src.errors import UserError, short_message


class Session:
    """A file as a function of a batch of images.

    Attributes:
        batch_size: Images of a batch; 0: any number.
        uint8: Whether images are bytes, uint8 [B, H, W, 3], rather than float32 [B, 3, H, W].
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
        given = self.session.get_inputs()[0]
        self.batch_size = given.shape[0] if isinstance(given.shape[0], int) else 0
        self.uint8 = given.type == "tensor(uint8)"
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.facts: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of one batch by name."""
        return dict(zip(self.outputs, self.session.run(None, {"images": images})))
