"""What an exported file takes, gives and stores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """What a file takes, gives and stores.

    Attributes:
        batch_size: Images of a batch; 0: any number.
        kept: Whether the patches that each drop keeps are outputs too: `kept.BLOCK`, int64 [B, K], as `Trace.kept`.
        uint8: Whether images are uint8 [B, H, W, 3], which the file normalises, rather than float32 [B, 3, H, W].
        float16: Of ONNX: whether weights are stored so; they are computed with in float32.
    """

    batch_size: int = 1
    kept: bool = False
    uint8: bool = False
    float16: bool = False
