"""Label maps that a network makes: whose scores they are, of which image, and a training that takes them."""

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.dataset import vision

from src.ascend.networks import training_inputs, training_step
from src.benchmarks import measure
from src.config import with_classes
from src.data.datasets import files_of, open_dataset
from src.data.label_maps import Facts, LabelMaps, check_output, training_digest, write
from src.data.training import TrainingData
from src.errors import UserError
from src.experiments.label_maps import BestOfPatches
from src.models import build, from_config
from src.weights.files import write_weights
from tests.helpers.commands import ROOT, run_here
from tests.helpers.configs import load

SMALL = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
CLASSES = ("ant", "bee", "cat")


def dense(scores, classes, number):
    """Scores of all classes [..., number] of the best ones [..., k]."""
    found = np.zeros((*scores.shape[:-1], number))
    np.put_along_axis(found, classes, scores, -1)
    return found


def best(network, num_classes, images):
    return (part.asnumpy() for part in BestOfPatches(network, num_classes).set_train(False)(Tensor(images)))


@pytest.fixture
def images():
    return np.random.RandomState(0).randn(2, 3, 16, 16).astype(np.float32)


def test_scores_of_patches_are_exact_parts_of_a_mean_that_the_head_reads(images):
    network = build(**SMALL, num_classes=5, pool="avg").set_train(False)
    scores, classes = best(network, 5, images)
    assert (np.diff(scores, axis=-1) <= 0).all()
    logits = network(Tensor(images)).asnumpy()
    assert np.abs(dense(scores, classes, 5).mean(axis=(1, 2)) - logits).max() < 1e-5


@pytest.mark.parametrize("backbone", ["vit", "lvvit", pytest.param("distilled", marks=pytest.mark.slow)])
def test_the_five_largest_are_those_of_the_head_of_patch_tokens(images, backbone):
    """Of outputs that stand for no class none is taken."""
    options = {"distilled": True} if backbone == "distilled" else {"backbone": backbone}
    network = build(**SMALL, num_classes=12, **options).set_train(False)
    for weight in network.get_parameters():
        if weight.name.endswith("head.bias") or weight.name == "head_dist.bias":
            weight.set_data(Tensor(np.random.RandomState(len(weight.name)).randn(12).astype(np.float32)))
    tokens = network.features(Tensor(images)).asnumpy()
    heads = {"vit": ["head"], "lvvit": ["aux_head"], "distilled": ["head", "head_dist"]}[backbone]
    parts = [getattr(network, name) for name in heads]
    expected = np.mean([tokens @ head.weight.asnumpy().T + head.bias.asnumpy() for head in parts], axis=0)[..., :10]
    scores, classes = best(network, 10, images)
    assert classes.shape == (2, 4, 4, 5)
    assert (classes == np.argsort(-expected, axis=-1)[..., :5]).all()
    assert np.abs(scores - np.sort(expected, axis=-1)[..., :-6:-1]).max() < 1e-4


def configured(tmp_path, photos, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
        data: {{root: {photos}, batch_size: 4, workers: 1}}
        model: {{tokens: 1(50%)+2, image_size: [16, 24], patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}}
        """
    )
    return with_classes(load(path, overrides), 3)


def make(tmp_path, photos, *overrides):
    """A configuration, and beside it a checkpoint of its network."""
    config = configured(tmp_path, photos, *overrides)
    network = from_config(config.model).set_train(False)
    write_weights(tmp_path / "best.ckpt", network.parameters_dict(), config, CLASSES)
    return config, network.with_tokens("none")


def arguments(tmp_path, output, *overrides):
    return ["--config", tmp_path / "config.yaml", "--ckpt", tmp_path / "best.ckpt", "--output", output, *overrides]


@pytest.mark.parametrize("backbone", [pytest.param("vit", marks=pytest.mark.slow), "lvvit"])
def test_the_tool_writes_a_map_for_each_whole_training_image_in_order(tmp_path, photos, backbone):
    config, network = make(tmp_path, photos, f"model.backbone={backbone}")
    output = tmp_path / "maps"
    done = run_here("src.tools.label_maps", *arguments(tmp_path, output, f"model.backbone={backbone}"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "label maps of 18 images" in done.stdout
    source = open_dataset(config.data)
    maps = LabelMaps(str(output), source, 3)
    assert maps.facts.grid == (4, 6)
    assert maps.facts.classes == CLASSES
    resize = vision.Resize((16, 24), getattr(vision.Inter, config.data.interpolation.upper()))
    mean, std = (255 * np.array(value) for value in (config.data.mean, config.data.std))
    files = files_of(source.splits["train"], CLASSES)
    whole = np.stack([resize(vision.Decode()(np.fromfile(file, np.uint8))) for file in files])
    scores, classes = best(network, 3, ((whole - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    found, said = maps.array.transpose(1, 0, 3, 4, 2).astype(float)
    assert np.abs(dense(found[..., :3], said[..., :3].astype(int), 3) - dense(scores, classes, 3)).max() < 1e-3
    assert not found[..., 3:].any()
    again = run_here("src.tools.label_maps", *arguments(tmp_path, output), cwd=tmp_path)
    assert again.returncode == 2
    assert f"--output {output} is there already; name a new folder" in again.stderr


def test_what_could_not_be_written_or_used_is_refused(tmp_path, photos):
    make(tmp_path, photos)
    for output, override, said in (
        (tmp_path / "no" / "maps", [], "does not exist; name one in a folder that does"),
        (tmp_path / "maps", ["data.root=sklearn:digits"], "the data's classes are not those of"),
    ):
        done = run_here("src.tools.label_maps", *arguments(tmp_path, output, *override), cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
    with pytest.raises(UserError, match="half precision, which counts to 2048, and the data has 2049 classes"):
        check_output(tmp_path / "maps", 2049)
    assert not (tmp_path / "maps").exists()


def test_a_training_refuses_maps_that_are_not_of_its_images_before_it_starts(tmp_path, photos):
    """With data.on_bad_image=skip it is the images that can be decoded, so they are looked at first."""
    config = configured(tmp_path, photos, "model.backbone=lvvit")
    source = open_dataset(config.data)
    call = ["--config", tmp_path / "config.yaml", "model.backbone=lvvit", "run.dir=run", "token_labels.maps=maps"]
    missing = run_here("train", *call, cwd=tmp_path)
    assert missing.returncode == 2
    assert "token_labels.maps maps: it is not a folder" in missing.stderr
    facts = Facts(images=18, grid=(1, 1), classes=CLASSES, digest=training_digest(source), model="")
    write(tmp_path / "maps", facts, [np.zeros((18, 2, 5, 1, 1))])
    LabelMaps(str(tmp_path / "maps"), source, 3)
    for choice in ("error", "skip"):
        other = run_here("train", *call, "data.train_split=val", f"data.on_bad_image={choice}", cwd=tmp_path)
        assert other.returncode == 2
        assert "token_labels.maps maps: they are of 18 images, and the training takes 9" in other.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_network_that_was_trained_on_digits_labels_those_of_another(tmp_path):
    """The maps of a trained network agree with the labels more often than chance would."""
    tiny = [
        "model.depth=2", "model.embed_dim=32", "model.num_heads=2", "model.tokens=none", "train.epochs=8",
        "train.warmup_dense_epochs=0", "optimizer.warmup_epochs=1", "optimizer.lr=5e-3", "train.report=false",
    ]  # fmt: skip
    call = ["--config", ROOT / "configs/quickstart.yaml", *tiny, "model.pool=avg"]
    trained = run_here("train", *call, "run.dir=run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    made = run_here(
        "src.tools.label_maps", "--ckpt", "run/checkpoints/best.ckpt", "--output", tmp_path / "maps", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    wanted = [*tiny, "model.backbone=lvvit", f"token_labels.maps={tmp_path}/maps", f"data.root={tmp_path}/data/digits"]
    config = load(ROOT / "configs/quickstart.yaml", wanted)
    with TrainingData(open_dataset(config.data), config, 10) as data:
        batches = list(data.epoch(1))
    assert len(batches) == 22
    hits = []
    for _, labels, maps, rows, columns in batches:
        scores = np.zeros((64, 10, 4, 4))
        np.put_along_axis(scores, maps[:, 1].astype(int), maps[:, 0], 1)
        whole = np.einsum("bh,bchw,bw->bc", rows[:, -1], scores, columns[:, -1])
        hits += (whole.argmax(1) == labels).tolist()
    assert np.mean(hits) > 0.3


@pytest.mark.slow
def test_steps_that_are_timed_or_looked_at_are_those_of_a_training_with_maps(tmp_path, photos):
    config = configured(tmp_path, photos, "model.backbone=lvvit", "token_labels.maps=maps", "model.image_size=16")
    state = measure.new_state(config)
    measure.training(config, state, "none", measure.random_batch(config))()
    step = training_step(config)
    images, labels, maps, rows, columns, *_ = training_inputs(config, step, 2)
    assert (images.shape, labels.shape) == ((2, 3, 16, 16), (2,))
    assert (maps.shape, rows.shape, columns.shape) == ((2, 2, 5, 4, 4), (2, 5, 4), (2, 5, 4))
    assert (rows.asnumpy()[:, :-1] == np.eye(4)).all()
