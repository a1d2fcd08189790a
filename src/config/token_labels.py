"""What is special about the labels of patch tokens in a configuration."""

from typing import Optional

from src.config.schema import Config, first_changed
from src.config.variants import VARIANTS, sizes_of


def problem_of_token_labels(config: Config) -> Optional[str]:
    """Return what is wrong with `token_labels` for the model, whatever its schedule is."""
    model, labels = config.model, config.token_labels
    if model.name not in VARIANTS:
        return None  # refused with the other sizes
    if (model.backbone or sizes_of(model.name)["backbone"]) == "lvvit":
        mixes = [f"data.{name}" for name in ("mixup", "cutmix") if getattr(config.data, name)]
        if mixes:
            return f"{' and '.join(mixes)} mix pixels, and labels of patch tokens stay; set to 0: {', '.join(mixes)}"
        if labels.mix_alpha and config.train.oracle is not None:
            return (
                "token_labels.mix_alpha and train.oracle exclude each other: an oracle sees images that are not mixed"
            )
        return None
    changed = first_changed(labels)
    if changed:
        return f"token_labels.{changed} is for model.backbone lvvit, which labels its patch tokens; leave it out"
    return None
