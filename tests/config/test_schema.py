"""The fields: their meanings, their roles, and the reference that is generated from them."""

import dataclasses
from enum import Enum

from src.config import Role, fields_by_key, keys_with
from src.config.reference import reference
from tests.helpers.commands import ROOT


def test_every_key_has_a_meaning_and_a_set_of_roles():
    for name, field in fields_by_key().items():
        assert field.metadata["meaning"], name
        assert field.metadata["roles"] <= set(Role), name
        assert dataclasses.MISSING not in (field.default, None) or field.default is None, name


def test_roles_are_what_their_readers_relied_on():
    """The lists that stood in six modules before fields had roles."""
    sections = {name: {key for key in fields_by_key() if key.startswith(f"{name}.")} for name in
                ("model", "data", "train", "optimizer", "run", "runtime")}  # fmt: skip
    told = {"train.report", "train.tensorboard"}
    saved = {"run.save_every_steps", "run.save_every_epochs"}
    resumable = {"train.epochs", *told, *saved, "data.root", "data.workers", "data.on_bad_image",
                 "token_labels.maps", *sections["runtime"]}  # fmt: skip
    assert set(keys_with(Role.RESUMABLE)) == resumable
    assert set(keys_with(Role.RECORD)) == sections["run"] | told
    assert set(keys_with(Role.MACHINE)) == sections["runtime"]
    timed = sections["model"] | sections["data"] | sections["runtime"] | {"train.freeze_blocks", "train.accumulate"}
    timed |= {"token_labels.maps", "token_labels.mix_alpha", "predictor.teacher"}
    assert set(keys_with(Role.STEP_TIME)) == timed
    assert set(keys_with(Role.MOVABLE)) == sections["data"] | {"runtime.device_target", "token_labels.maps"}
    assert set(keys_with(Role.FOLDER_ONLY)) == {f"data.{k}" for k in ("val_fraction", "scale", "ratio", "crop_pct")}
    assert keys_with(Role.FROM_DATA) == ["model.num_classes"]
    assert issubclass(Role, Enum)


def test_the_reference_is_that_of_the_fields():
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert text == reference(), "run: make docs"
    for name in fields_by_key():
        assert text.count(f"| `{name}` |") == 1
    for bounds in ("number > 0 and < 1", "whole number ≥ 1", "list of 2: number > 0 and ≤ 1", "`O0`, `O2`, `O3`"):
        assert bounds in text
