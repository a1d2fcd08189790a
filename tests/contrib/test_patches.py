"""The changes that MindCV itself needs, applied to copies of the installed files."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mindcv
import numpy as np
import pytest
from mindcv.models.layers.patch_dropout import PatchDropout
from mindcv.models.layers.pos_embed import resample_abs_pos_embed
from mindspore import Tensor

from tests.contrib.loading import CONTRIB, MODEL_FILE, loaded

INSTALLED = Path(mindcv.__file__).parent.parent
PATCHES = sorted((CONTRIB / "patches").glob("*.patch"))


def apply(patch, folder):
    """Apply a patch to a folder that holds copies of MindCV's files."""
    commands = {"patch": ["patch", "-p1", "--fuzz=0", "-i", str(patch)], "git": ["git", "apply", str(patch)]}
    found = [command for tool, command in commands.items() if shutil.which(tool)]
    if not found:
        pytest.skip("neither patch nor git is there to apply it with")
    done = subprocess.run(found[0], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def mended(tmp_path):
    """The module of MindCV's layers as the patch of its name mends it, and an edit after that changes it."""
    with contextlib.ExitStack() as stack:

        def load(name, edit=str):
            patch = CONTRIB / "patches" / f"{name}.patch"
            (file,) = re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(encoding="utf-8"), re.MULTILINE)
            copy = tmp_path / file
            copy.parent.mkdir(parents=True)
            shutil.copy(INSTALLED / file, copy)
            apply(patch, tmp_path)
            copy.write_text(edit(copy.read_text(encoding="utf-8")), encoding="utf-8")
            return stack.enter_context(loaded(copy, f"mindcv.models.layers.mended_{name}"))

        yield load


def numbered_tokens():
    """Tokens [2, 17, 8] that are their own index in all channels."""
    return Tensor(np.tile(np.arange(17, dtype=np.float32)[None, :, None], (2, 1, 8)))


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
def test_patch_dropout_cannot_be_called(mode):
    with pytest.raises(AttributeError, match="'construct' is not defined"):
        PatchDropout(0.5).set_train()(numbered_tokens())


@pytest.mark.parametrize("mode", ["pynative", pytest.param("graph", marks=pytest.mark.slow)], indirect=True)
def test_patch_dropout_mended_keeps_other_tokens_each_time(mended, mode):
    layer = mended("patch_dropout").PatchDropout(0.5).set_train()
    first, second = ([row[:, 0] for row in layer(numbered_tokens()).asnumpy()] for _ in range(2))
    for kept in (*first, *second):
        assert kept[0] == 0
        assert len(kept) == len(set(kept)) == 9
        assert set(kept) <= set(range(17))
    assert len({tuple(sorted(kept)) for kept in (*first, *second)}) == 4  # of 12,870: not the same for all images
    assert (layer.set_train(False)(numbered_tokens()).asnumpy() == numbered_tokens().asnumpy()).all()


@pytest.mark.slow
def test_by_its_name_alone_patch_dropout_would_not_draw_anew(mended):
    """In graph mode NumPy's numbers are drawn once, when the graph is compiled: hence the patch's second line."""

    def as_it_was(source):
        drawn = source.replace(
            "ops.rand((B, L), dtype=ms.float32)", "ms.Tensor(np.random.rand(B, L)).astype(ms.float32)"
        )
        assert drawn != source
        return "import numpy as np\n" + drawn

    layer = mended("patch_dropout", as_it_was).PatchDropout(0.5).set_train()
    first, second = (layer(numbered_tokens()).asnumpy() for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
def test_positions_cannot_be_resampled(mode):
    positions = numbered_tokens()[:1]
    with pytest.raises(AttributeError, match="concatcat"):
        resample_abs_pos_embed(positions, (8, 8), interpolation="bicubic")
    with pytest.raises(ValueError, match="align_corners"):
        resample_abs_pos_embed(positions, (8, 8))


@pytest.mark.parametrize("mode", ["pynative", pytest.param("graph", marks=pytest.mark.slow)], indirect=True)
def test_positions_mended_are_resampled(mended, mode):
    resample = mended("pos_embed").resample_abs_pos_embed
    positions, grid = numbered_tokens()[:1], np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    nearest = resample(positions, (8, 8)).asnumpy()
    assert nearest.shape == (1, 65, 8)
    assert (nearest[0, 0] == 0).all()
    assert (nearest[0, 1:, 3].reshape(8, 8) == grid.repeat(2, 0).repeat(2, 1)).all()
    for interpolation in ("bilinear", "bicubic"):
        resampled = resample(positions, (7, 7), interpolation=interpolation).asnumpy()[0, 1:, 3].reshape(7, 7)
        np.testing.assert_allclose(resampled[::2, ::2], grid, atol=1e-5)  # align_corners: every second is as it was


USE = """
import numpy as np, mindspore as ms, mindcv
from mindcv.models.vit import VisionTransformer
assert mindcv.__file__.startswith(FOLDER), mindcv.__file__
assert "skipvit_small" in mindcv.list_models(module="skipvit") and "skipvit_small" in mindcv.models.__all__
images = ms.Tensor(np.ones((2, 3, 48, 48), np.float32))
sizes = {"patch_size": 8, "embed_dim": 24, "num_heads": 4, "num_classes": 5}
print(mindcv.create_model("skipvit_small", image_size=48, **sizes).set_train(False)(images).shape)
print(VisionTransformer(image_size=48, patch_drop_rate=0.5, depth=1, **sizes).set_train()(images).shape)
print(VisionTransformer(image_size=32, dynamic_img_size=True, depth=1, **sizes).set_train(False)(images).shape)
"""


@pytest.mark.slow
def test_a_mindcv_with_all_of_it_has_the_models_and_both_repairs(tmp_path):
    shutil.copytree(INSTALLED / "mindcv", tmp_path / "mindcv", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(MODEL_FILE, tmp_path / "mindcv" / "models")
    for patch in PATCHES:
        apply(patch, tmp_path)
    (tmp_path / "use.py").write_text(f"FOLDER = {str(tmp_path)!r}\n{USE}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(2, 5)"] * 3


def test_the_lines_of_init_name_the_model_wherever_others_are_named(tmp_path):
    (tmp_path / "mindcv" / "models").mkdir(parents=True)
    copy = tmp_path / "mindcv" / "models" / "__init__.py"
    shutil.copy(INSTALLED / "mindcv" / "models" / "__init__.py", copy)
    apply(CONTRIB / "patches" / "models_init.patch", tmp_path)
    lines = copy.read_text(encoding="utf-8").splitlines()
    for line in ("    {},", "from .{} import *", "__all__.extend({}.__all__)"):
        assert lines.index(line.format("skipvit")) == lines.index(line.format("sknet")) - 1
