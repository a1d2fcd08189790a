"""A list of phases in a configuration: what it sets, how it is written, and how it is refused."""

import pytest

from src import commands
from src import config as configuration
from src.config import PhaseConfig, dump, parse, read_overrides
from src.errors import UserError
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

SKIPVIT = ROOT / "configs" / "skipvit_s.yaml"
LIST = (
    "train.phases=[{epochs: 4, tokens: none, image_size: [160, 96]},"
    " {epochs: 6, from: none, curve: cosine, plateaus: 2}]"
)


def test_a_list_says_how_many_epochs_there_are():
    """Nobody sets train.epochs here, and the file's dense warm-up is below the list."""
    resolved = configuration.resolve(SKIPVIT, read_overrides([LIST]))
    assert resolved.config.train.phases == (
        PhaseConfig(epochs=4, tokens="none", image_size=(160, 96)),
        PhaseConfig(epochs=6, curve="cosine", plateaus=2, **{"from": "none"}),
    )
    assert (resolved.config.train.epochs, resolved.config.train.warmup_dense_epochs) == (10, 0)
    assert resolved.origins["train.epochs"] == "the sum of train.phases"
    assert not any(text.startswith("train.epochs") for text in resolved.left_open())
    text = dump(resolved.config, resolved.origins)
    assert "  phases: [{epochs: 4, tokens: none, image_size: [160, 96]}, {epochs: 6, curve: cosine," in text
    assert parse(text, "config.yaml") == resolved.config


def test_a_list_overrules_what_lies_below_it(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {epochs: 7, warmup_dense_epochs: 3}")
    (tmp_path / "list.yaml").write_text("base: base.yaml\ntrain: {phases: [{epochs: 5}]}")
    train = load(tmp_path / "list.yaml").train
    assert (train.epochs, train.warmup_dense_epochs) == (5, 0)
    train = load(tmp_path / "list.yaml", ["train.phases=null"]).train
    assert (train.epochs, train.warmup_dense_epochs, train.phases) == (7, 3, None)
    with pytest.raises(UserError, match=r"5 epochs together, train\.epochs is 7"):
        load(tmp_path / "list.yaml", ["train.epochs=7"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("[{epochs: 2, toks: none}]", "phase 1: unknown key toks; did you mean tokens?"),
        ("[{epochs: 2, zzz: none}]", "phase 1: unknown key zzz; valid are epochs, tokens, image_size, auto_augment,"),
        ("[{epochs: 2}, {epochs: two}]", "phase 2: epochs: input should be a valid integer, not 'two'"),
        ("[{epochs: 2}, {epochs: 0}]", "phase 2: epochs: input should be greater than or equal to 1, not 0"),
        ("[{tokens: none}]", "phase 1: epochs is missing"),
        ("[3]", "phase 1: must be a mapping of epochs, tokens, image_size,"),
        ("[]", "train.phases: must be a list of 1 to 1000 phases"),
        ("none", "train.phases: must be a list of 1 to 1000 phases, not 'none'"),
        ("[{epochs: 2}] train.epochs=3", "have 2 epochs together, train.epochs is 3; leave train.epochs out"),
        ("[{epochs: 2}] train.warmup_dense_epochs=1", "exclude each other; make the warm-up the first phase"),
        ("[{epochs: 2, plateaus: 2}]", "phase 1: plateaus belongs to a curve; add curve: cosine or linear"),
        ("[{epochs: 2, from: none, curve: cosine}]", "phase 1: a curve needs both from and plateaus"),
        ("[{epochs: 2, from: none, curve: cosine, plateaus: 3}]", "3 plateaus do not fit into 2 epochs"),
        ("[{epochs: 2, auto_augment: foo}]", "'foo': MindCV refuses it: its policies are autoaug"),
        (
            "[{epochs: 2, tokens: 6(55%)+13}]",
            "train.phases: phase 1: tokens spec '6(55%)+13': block 13 is out of range",
        ),
        ("[{epochs: 2, image_size: 100}]", "phase 1: image_size 100x100 is not a multiple of the patch size 16"),
        ("[{epochs: 2, tokens: 6(5%), from: 4(3%), curve: linear, plateaus: 1}]", "must differ in their ratios alone"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(override, message):
    with pytest.raises(UserError) as refused:
        commands.check(load(SKIPVIT, _split(override)))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def _split(text):
    phases, _, more = text.partition(" train.")
    return [f"train.phases={phases}", *([f"train.{more}"] if more else [])]
