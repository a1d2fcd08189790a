"""The configuration: what is accepted, what is refused and how, and what the recipes come to."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src import config as configuration
from src.config import Config, dump, fields_by_key, flatten, format_override, read_overrides
from src.errors import UserError
from src.schedules import parse
from src.training.optimizer import peak_lr
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
RECIPES = yaml.safe_load((ROOT / "tests/config/recipes.yaml").read_text())
KEYS = list(fields_by_key())


@pytest.fixture
def empty(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("{}")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_resolve_to_the_values_that_they_always_had(name):
    """tests/config/recipes.yaml has the values of their first release, the oldest from before they had a base."""
    assert yaml.safe_load(dump(load(ROOT / "configs" / f"{name}.yaml"))) == RECIPES[name]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_say_only_what_differs_and_what_they_promise(path):
    text = path.read_text()
    for promise in ("# Command:   python train.py --config configs/" + path.name, "# Device:", "# Expected:"):
        assert promise in text
    tree = yaml.safe_load(text)
    below = flatten(load(path.parent / tree.pop("base"))) if "base" in tree else flatten(Config())
    said = {f"{section}.{key}" for section, keys in tree.items() for key in keys}
    assert len(said) <= 25
    resolved = flatten(load(path))
    changed = {key for key in KEYS if resolved[key] != below[key]}
    assert changed <= said
    assert len(said - changed) <= 3, "beyond what differs, at most what a reader expects to see"
    parse(load(path).model.tokens)


def test_a_file_lies_over_its_base_and_overrides_over_both(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/a.yaml").write_text("train: {epochs: 7, seed: 3}\nmodel: {depth: 4}")
    (tmp_path / "b.yaml").write_text("base: base/a.yaml\ntrain: {epochs: 8}")
    resolved = configuration.resolve(tmp_path / "b.yaml", {"model.depth": 5})
    train, model = resolved.config.train, resolved.config.model
    assert (train.epochs, train.seed, model.depth, model.tokens) == (8, 3, 5, "none")
    assert resolved.origins == {
        "train.epochs": str(tmp_path / "b.yaml"), "train.seed": str(tmp_path / "base/a.yaml"),
        "model.depth": "override",
    }  # fmt: skip
    text = dump(resolved.config, resolved.origins)
    assert f"  epochs: 8  # {tmp_path / 'b.yaml'}\n" in text
    assert "  tokens: none  # default\n" in text
    assert "  depth: 5  # override\n" in text
    (tmp_path / "copy.yaml").write_text(text)
    assert load(tmp_path / "copy.yaml") == resolved.config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml", "b.yaml: base: config {}/nowhere.yaml cannot be read"),
        ("base: 3", "b.yaml: base: must be the name of a file, not 3"),
        ("base: b.yaml", "b.yaml has a base of its own; one level is all there is"),
        ("base: wrong.yaml", "{}/wrong.yaml: unknown key train.epoch; did you mean train.epochs?"),
    ],
)
def test_a_wrong_base_is_named(tmp_path, text, message):
    (tmp_path / "wrong.yaml").write_text("train: {epoch: 3}")
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load(tmp_path / "b.yaml")
    assert message.format(tmp_path) in str(refused.value)


values_of_overrides = ["none", 5, 0.25, 1e-5, True, None, [0.5, 1.0], "4,7(30%,30%)+10", "a b", "5e-4", "x\ny", "ü", ""]


@pytest.mark.parametrize("value", values_of_overrides)
def test_an_override_is_one_line_that_reads_back(value):
    text = format_override("data.root", value)
    assert len(text.splitlines()) == 1
    assert read_overrides([text]) == {"data.root": value}


def test_dump_and_load_are_inverse(tmp_path):
    for path in SHIPPED:
        config = load(path, ["model.image_size=[32, 64]"])
        (tmp_path / "copy.yaml").write_text(dump(config))
        assert load(tmp_path / "copy.yaml") == config


def test_overrides_win_and_numbers_are_numbers(empty):
    config = load(empty, ["optimizer.lr=5e-4", "model.tokens=4,7(30%,30%)+10", "train.clip_norm=1", "run.dir=null"])
    assert config.optimizer.lr == 5e-4
    assert config.model.tokens == "4,7(30%,30%)+10"
    assert config.train.clip_norm == 1.0
    assert config.run.dir is None


def test_on_and_off_are_words(empty, tmp_path):
    for word in ("on", "off", "auto"):
        config = load(empty, [f"runtime.fused_kernels={word}"])
        assert config.runtime.fused_kernels == word
        (tmp_path / "copy.yaml").write_text(dump(config))
        assert load(tmp_path / "copy.yaml") == config


def test_a_config_cannot_be_changed(empty):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(empty).model.tokens = "none"


def test_the_learning_rate_grows_with_the_batch(empty):
    assert peak_lr(load(empty, ["data.batch_size=1024", "optimizer.lr=5e-4"])) == pytest.approx(1e-3)
    assert peak_lr(load(empty, ["optimizer.lr_batch_size=null", "optimizer.lr=5e-4"])) == 5e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.tokns=none", "unknown key model.tokns; did you mean model.tokens?"),
        ("modle.tokens=none", "unknown key modle; did you mean model?"),
        ("train.lr=1.0", "unknown key train.lr; did you mean optimizer.lr?"),
        ("data.zzz=1", "unknown key data.zzz; valid are name, root"),
        ("train.epochs=ten", "train.epochs: input should be a valid integer, not 'ten'"),
        ("train.epochs=1.5", "train.epochs: input should be a valid integer, not 1.5"),
        ("train.epochs=true", "train.epochs: input should be a valid integer, not True"),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1, not 0"),
        ("optimizer.lr=fast", "optimizer.lr: input should be a valid number, not 'fast'"),
        ("optimizer.lr=.nan", "optimizer.lr: input should be a finite number"),
        ("data.name=cifar", "data.name: input should be 'folder', 'cifar10' or 'cifar100', not 'cifar'"),
        ("data.mean=[0.5]", "data.mean: too few entries"),
        ("model.image_size=wide", "model.image_size: input should be a valid integer, not 'wide'"),
        ("run.dir=7", "run.dir: input should be a valid string, not 7"),
        ("epochs=7", "is not of the form section.key=value"),
        ("train.epochs", "is not of the form section.key=value"),
        ("train.seed=[", "is not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(empty, override, message):
    with pytest.raises(UserError) as refused:
        load(empty, [override])
    assert message in str(refused.value)
    assert override in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.mixup=0.8", "data.batch_size=15"], "data.batch_size 15 must be even"),
        (["data.scale=[1.0, 0.5]"], r"data\.scale \[1\.0, 0\.5\] and data\.ratio"),
        (["data.name=cifar10"], "must be train, test or all"),
        (["data.name=cifar10", "data.val_split=test", "data.crop_pct=0.5"], "are of image folders"),
        (["data.color_jitter=0.4", "data.auto_augment=randaug-m9"], "exclude each other"),
    ],
)
def test_impossible_combinations_are_refused(empty, overrides, message):
    with pytest.raises(UserError, match=message):
        load(empty, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {tokns: none}", "did you mean model.tokens?"),
        ("model: 3", "model: must be a section of keys, not 3"),
        ("- 1", "must be a YAML mapping of sections"),
        ("", "must be a YAML mapping of sections"),
        ("model: {tokens: [}", "line 1: is not valid YAML"),
        ("train:\n  epochs: 3\n  seed: 0\n  epochs: 4", "line 4: is not valid YAML: epochs stands there twice"),
        ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read"):
        load(tmp_path / "nowhere.yaml")


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=800, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_random_values_are_accepted_or_refused(tmp_path_factory, chosen):
    tree = {}
    for key, value in chosen.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    try:
        assert isinstance(load(path), Config)
    except UserError as refused:
        assert str(path) in str(refused)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("{}[]:,-!&*|>'\"% \nabc019.#?@", max_size=60)))
def test_random_text_is_accepted_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert isinstance(load(path), Config)
    except UserError as refused:
        assert str(path) in str(refused)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=30), st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=12))))
def test_random_overrides_are_accepted_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "empty.yaml"
    path.write_text("{}", encoding="utf-8")
    try:
        assert isinstance(load(path, [text]), Config)
    except UserError as refused:
        assert len(str(refused).splitlines()) >= 1


def test_what_decides_and_was_not_set_can_be_said(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {epochs: 3}\ndata: {root: photos}")
    left = configuration.resolve(tmp_path / "a.yaml", {"model.tokens": "none"}).left_open()
    assert left == ["model.name=skipvit_s_16_224", "model.image_size=224", "data.batch_size=128", "optimizer.lr=0.0005"]
    assert configuration.resolve(ROOT / "configs/quickstart.yaml").left_open() == []
