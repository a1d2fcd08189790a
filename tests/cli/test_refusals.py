"""Mistakes that need no tensor to be refused: one line each, soon, without MindSpore in the process."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.runs.images import RunImages
from tests.helpers.commands import ROOT, run_module, run_script
from tests.helpers.hostile import BOMB

QUICK = ["--config", str(ROOT / "configs/quickstart.yaml")]
PLAN = ["--target-speedup", "1.25"]
CKPT = ["--ckpt", "run/checkpoints/best.ckpt"]

CASES = [
    ("train", ["model.tokns=none"], "unknown key model.tokns; did you mean model.tokens?"),
    ("train", ["model.tokens=6(55)+11"], "tokens spec '6(55)+11': ratio '55' must be a percentage"),
    ("train", ["train.phases=[{epochs: 2, tokens: 6(55%)+13}]"], "train.phases: phase 1: tokens spec '6(55%)+13'"),
    ("train", ["model.tokens=6(55%)+13"], "tokens spec '6(55%)+13': block 13 is out of range"),
    ("train", ["model.name=skipvit_s"], "model.name 'skipvit_s' is unknown; did you mean skipvit_s_16_224?"),
    ("train", ["data.auto_augment=foo"], "data.auto_augment 'foo': MindCV refuses it"),
    ("train", ["data.mean=[123, 116, 103]"], "data.mean: input should be less than or equal to 1, not 123"),
    ("train", ["data.std=[58, 57, 57]"], "data.std: input should be less than or equal to 1, not 58"),
    ("train", ["data.ratio=[0.1, 1e300]"], "data.ratio: input should be less than or equal to 100"),
    ("train", ["data.color_jitter=50"], "data.color_jitter: input should be less than or equal to 10, not 50"),
    ("train", ["model.mlp_ratio=0.001"], "model.mlp_ratio 0.001 leaves no channel"),
    ("train", ["model.num_classes=1000000000"], "num_classes: input should be less than or equal to 1000000"),
    ("train", ["model.embed_dim=16384", "model.depth=1000"], "more than this machine's memory; lower model.embed_dim"),
    ("train", ["data.root=&a [*a]"], "anchors, aliases and tags (& * !) are not allowed"),
    ("train", ["train.seed=!!bool x"], "anchors, aliases and tags (& * !) are not allowed"),
    ("train", ["data.root=" + "[" * 300], "is not valid YAML: it is nested too deeply"),
    ("train", ['data.root="a\\0b"'], "should be text of one line without control characters, not 'a\\x00b'"),
    ("train", ['data.root="a\\ud800b"'], "data.root: input should be a valid string, unable to parse"),
    ("train", ["data.root=" + "x" * 300], "xxx: File name too long; shorten the name"),
    ("train", ["data.root=" + "x" * 5000], "data.root: string should have at most 4096 characters, not 'xxx"),
    ("train", ["data.root=~nobody-at-all/x"], "data.root ~nobody-at-all/x: there is no such user; name the folder"),
    ("train", ["--resume", "x" * 300], "give either --config FILE or --resume"),
    ("train", ["run.dir=" + "x" * 300], "xxx/config.yaml: File name too long; shorten the name"),
    ("eval", ["--ckpt", "x" * 300 + ".ckpt"], "xxx.ckpt: File name too long; shorten the name"),
    ("eval", ["--ckpt", "\x1b[2J.ckpt"], "checkpoint \\x1b[2J.ckpt does not exist"),
    ("train", ["model.num_heads=5"], "model.embed_dim 64 is not a multiple of model.num_heads 5"),
    ("train", ["model.image_size=18"], "image_size 18x18 is not a multiple of the patch size 4"),
    ("train", ["model.num_classes=3"], "the data has 10 classes but the model has 3 outputs"),
    ("train", ["data.batch_size=5000"], "data.batch_size 5000 exceeds the 1437 training images"),
    ("train", ["data.root=nowhere"], "nowhere is not a folder; set data.root"),
    ("train", ["data.root=."], "no class folders with images"),
    ("train", ["data.name=cifar10", "data.val_split=test", "data.crop_pct=0.875", "data.scale=[0.08, 1.0]"],
     "has no data_batch_1.bin"),
    ("train", ["runtime.sink=true"], "runtime.sink true: CPU has no queue of data; set it to false"),
    ("train", ["--print", "model.tokens=6(55%)+13"], "tokens spec '6(55%)+13': block 13 is out of range"),
    ("train", ["--device_target", "TPU"], "runtime.device_target 'TPU' is unknown; choose one of CPU, Ascend"),
    ("train", ["--distribute"], "--distribute needs MindSpore's launcher; start with: msrun"),
    ("train", [], "msrun started this process, but not with --distribute"),
    ("eval", [], "msrun started this process, but not with --distribute"),
    ("export", [], "msrun started this process, but not with --distribute"),
    ("src.tools.table1", [], "msrun started this process, but not with --distribute"),
    ("train", ["--resume", "nowhere"], "give either --config FILE or --resume RUN_FOLDER"),
    ("train", ["run.dir=/dev/null/run"], "run.dir /dev/null/run cannot be made: Not a directory"),
    ("train", ["train.accumulate=50"], "train.accumulate 50: the 1437 training images do not fill so"),
    ("train", ["train.freeze_blocks=13"], "train.freeze_blocks 13: the model has 12 blocks; name at most as many"),
    ("train", ["optimizer.layer_decay=1.5"], "optimizer.layer_decay: input should be less than or equal to 1, not 1.5"),
    ("train", ["train.init=nowhere.ckpt"], "train.init nowhere.ckpt does not exist; name a checkpoint, or null to"),
    ("train", ["train.init=empty.ckpt"], "checkpoint empty.ckpt is damaged, or no checkpoint"),
    ("train", ["train.init=digits.yaml"], "checkpoint digits.yaml must end in .ckpt, .safetensors"),
    ("train", ["train.init=small.safetensors", "model.patch_size=8"],
     "small.safetensors does not fit the model: its model.embed_dim is 8, not 64, its model.patch_size is 4, not 8, its"
     " model.depth is 1, not 12, its hidden channels of the MLP is 16, not 256; set what the file has"),
    ("train", ["train.init=headless.safetensors"], "does not fit the model; missing, or of another form: head.weight"),
    ("train", ["--epochs", "3"], "unrecognized arguments: --epochs"),
    ("train", ["train.epochs"], "override 'train.epochs' is not of the form section.key=value"),
    ("eval", ["--ckpt", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
    ("eval", [], "there is no run below runs/ yet; train one with: python train.py --config"),
    ("eval", ["--ckpt", "."], "checkpoint . is a folder; name a file"),
    ("export", [], "there is no run below runs/ yet; train one with: python train.py --config"),
    ("export", ["--ckpt", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
    ("export", ["--batch_size", "-1"], "argument --batch_size"),
    ("export", ["--ckpt", "empty.ckpt", "--output", "a.pb"], "--output a.pb must end in .mindir"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "--output", "a.mindir"], "a.mindir must end in .onnx"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "mindir", "--output", "a.onnx"], "a.onnx must end in .mindir"),
    ("export", ["--ckpt", "empty.ckpt", "--output", "no/a.onnx"], "the folder no does not exist"),
    ("export", ["--ckpt", "empty.ckpt", "--float16"], "--float16 is for ONNX; add --format onnx, or leave it out"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "--target", "cpu"], "--target is for MindIR: ONNX"),
    ("export", ["--ckpt", "empty.ckpt", "--batch_sizes", "1,999999", "model.image_size=512"],
     "a batch of 999,999 images takes more than this machine's memory; lower --batch_size"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "--batch_size", "999999", "model.image_size=512"],
     "a batch of 999,999 images takes more than this machine's memory; lower --batch_size"),
    ("export", ["--batch_sizes", "1,x"], "argument --batch_sizes: 'x' is not a whole number"),
    ("export", ["--batch_size", "1", "--batch_sizes", "1,8"], "argument --batch_sizes: not allowed with argument"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "model.tokens=6(55%,random)+11"], "ranks at random: a"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "model.tokens=6(55%,oracle)+11"], "ranks by an oracle,"),
    ("export", ["--ckpt", "empty.ckpt", "--format", "onnx", "model.embed_dim=8192", "model.num_heads=8"],
     "more than the 2 GB that one file holds as onnx"),
    ("export", ["--ckpt", "empty.ckpt", "--output", "no/a.mindir"], "the folder no does not exist"),
    ("export", ["--ckpt", "empty.ckpt", "model.tokens=6(55%,random)+11"], "ranks at random: a control"),
    ("export", ["--ckpt", "empty.ckpt", "model.embed_dim=8192", "model.num_heads=8"], "more than the 1 GB that one"),
    ("src.tools.benchmark", ["--specs", "6(55)"], "tokens spec '6(55)'"),
    ("src.tools.benchmark", ["--specs", "6(55%)+13"], "block 13 is out of range"),
    ("src.tools.benchmark", ["model.image_size=[32, 64]"], "the benchmark's images are square"),
    ("src.tools.benchmark", ["--data", "nowhere.yaml"], "config nowhere.yaml cannot be read"),
    ("src.tools.benchmark", ["--png", "x.png"], "--png draws the training of schedules; leave it out"),
    ("src.tools.benchmark", ["--deploy", "--peer", "mindcv"], "--peer mindcv is a model that trains; leave it out"),
    ("src.tools.benchmark", ["--deploy", "--specs", "6(55%,random)+11"], "6(55%,random)+11 ranks at random: a control"),
    ("src.tools.benchmark", ["--deploy", "--device_target", "Ascend"], "--deploy measures on this machine's CPU"),
    ("src.tools.plan", ["--pays", "6(55%)+13", "model.num_classes=10"], "block 13 is out of range"),
    ("src.tools.benchmark", ["--peer", "timm"], "--peer timm is a data pipeline; add --data CONFIG"),
    ("src.tools.benchmark", ["--data", "x.yaml", "--peer", "timm", "--peer", "mindcv"], "--peer mindcv is a model"),
    ("src.tools.benchmark", ["--png", "no/x.png"], "no/x.png cannot be written: the folder no does not exist"),
    ("src.tools.ascend_check", ["--markdown", "run"], "run cannot be written: it is a folder; name another file"),
    ("train", ["model.tokens=4,7(30%,30%,centre)+fused"], "a fused token has no place to rank it by; drop once"),
    ("train", ["model.tokens=6(55%,attention)+11"], "ranking 'attention' is unknown; choose one of cls, random"),
    ("src.tools.ascend_check", ["--specs", "6(55"], "tokens spec '6(55'"),
    ("src.tools.table1", ["--specs", "none", "6(55%)+13"], "block 13 is out of range"),
    ("src.tools.table1", ["--rows", "nowhere.yaml"], "rows nowhere.yaml cannot be read"),
    ("src.tools.table1", ["--specs", "none", "train.seed=3"], "train.seed differs between the trainings of an"),
    ("src.tools.table1", ["--specs", "none", "data.root=nowhere"], "nowhere is not a folder; set data.root"),
    ("src.tools.table1", ["--seeds", "0"], "argument --seeds: it must be 1 or more, not 0; see --help"),
    ("src.tools.table1", ["--specs", "none", "--finished"], "has none of these trainings; name their folder with"),
    ("src.tools.table1", ["--specs", "train.epochs=1"], "--specs names nothing; see --help"),
    ("train", ["model.backbone=lvvit", "token_labels.maps=nowhere"], "token_labels.maps nowhere: it is not a folder"),
    ("train", ["model.backbone=lvvit", "token_labels.maps=run"], "token_labels.maps run: it has no file labels.npy"),
    ("src.tools.label_maps", [*CKPT, "--output", "run"], "--output run is there already; name a new folder, or remove"),
    ("src.tools.label_maps", [*CKPT, "--output", "no/maps"], "--output no/maps: the folder no does not exist; name"),
    ("src.tools.label_maps", CKPT, "the following arguments are required: --output"),
    ("src.tools.visualize", ["--limit", "0"], "--limit 0: a sheet shows 1 to 100 images"),
    ("src.tools.visualize", ["--tokens", "2(50)+3"], "tokens spec '2(50)+3': ratio '50' must be a percentage"),
    ("src.tools.visualize", ["--ckpt", "run/checkpoints/best.ckpt", "nowhere.png"], "image nowhere.png does not exist"),
    ("src.tools.visualize", ["--ckpt", "run/checkpoints/best.ckpt", "--tokens", "6(55%)+14"], "block 14 is out of"),
    ("src.tools.visualize", ["--epochs", "run"], "has kept no weights of epochs; train with run.save_every_epochs=N"),
    ("src.tools.visualize", ["--epochs", "nowhere"], "run folder nowhere holds no config.yaml"),
]  # fmt: skip
WITHOUT_CONFIG = [
    ("train", ["--resume", "nowhere"], "run folder nowhere holds no config.yaml; name the folder that train.py"),
    ("train", ["--resume", "run", "data.batch_size=4"], "override 'data.batch_size=4': a resumed run may only change"),
    ("train", ["--resume", "run", "train.epochs=1"], "train.epochs 1: the run run has done 2 epochs already"),
    ("train", ["--resume", "shared"], "the run shared was trained by 2 processes, not 1; resume it with as many"),
    ("train", ["--resume", "grown"], "the run grown was trained on 1436 train and 360 val images, and data.root has"),
    ("train", ["--resume", "renamed"], "has 1437 train and 360 val, of other names; put back those that it began"),
    ("train", ["--resume", "run", "--print"], "--print goes with --config FILE; a run folder has its whole"),
    ("train", ["--resume", "x" * 300], "xxx/config.yaml: File name too long; shorten the name"),
    ("train", ["--config", "bomb.yaml"], "bomb.yaml, line 2: is not valid YAML: anchors, aliases and tags"),
    ("train", ["--config", "long.yaml"], "long.yaml: is longer than 262144 characters"),
    ("train", ["--config", "nowhere.yaml"], "config nowhere.yaml cannot be read: No such file or directory"),
    ("train", [*QUICK, "run.dir=run"], "run.dir run holds a run already; resume it with --resume run"),
    ("train", [*QUICK, "run.dir=a run"], "run.dir a run holds a run already; resume it with --resume 'a run', or"),
    ("src.tools.plan", ["--target-speedup", "1"], "--target-speedup 1: name a number above 1"),
    ("src.tools.plan", [*PLAN, "model.tokens=6(55%)+11"], "the planner searches for schedules; leave it out"),
    ("src.tools.plan", ["--target-speedup", "9"], "no schedule with drops of up to 60% is 9 times as fast; lower"),
    ("src.tools.plan", [*PLAN, "--max-drop", "100"], "--max-drop 100: name a percentage below 100"),
    ("src.tools.plan", [*PLAN, "--from-block", "13"], "--from-block 13 is out of range: the model has blocks 1 to 12"),
    ("src.tools.convert", ["nowhere.pth", "a.ckpt"], "checkpoint nowhere.pth does not exist"),
    ("src.tools.convert", ["empty.ckpt", "a.ckpt"], "checkpoint empty.ckpt is damaged, or no checkpoint: it holds"),
    ("src.tools.convert", ["headless.safetensors", "a.ckpt"], "is of no ViT with a head; missing, or of another form"),
    ("src.tools.convert", ["small.safetensors", "a.ckpt"], "nothing tells the number of attention heads; add model."),
    ("src.tools.convert", ["small.safetensors", "a.npz"], "OUT a.npz must end in .ckpt with --to ours"),
    ("src.tools.convert", ["small.safetensors"], "convert takes two files, IN and OUT, not 1; see --help"),
    ("src.tools.predict", ["run"], "predict takes a network's FILE and images; see --help"),
    ("src.tools.predict", ["a.onnx", "nowhere.png"], "image nowhere.png does not exist"),
    ("src.tools.predict", ["a.onnx", "a.png"], "a.onnx does not exist; name a file that export.py wrote"),
    ("src.tools.predict", ["a.pb", "a.png"], "a.pb must end in .onnx, .mindir, .ckpt, "),
    ("src.tools.predict", ["b.onnx", "a.png", "data.mean=[0,0,0]"], "b.onnx has its configuration inside; leave out"),
    ("src.tools.predict", ["b.onnx", "a.png", "--save", "a.jpg"], "--save a.jpg must be a file that ends in .png, in"),
    ("src.tools.predict", ["b.onnx", "a.png"], "b.onnx is no file that onnxruntime"),
    ("src.tools.table1", [], "--config is missing"),
    ("src.tools.report", [], "name the folder of a run"),
    ("src.tools.report", ["nowhere"], "run folder nowhere holds no config.yaml"),
    ("src.tools.report", ["run", "--output", "x.pdf"], "--output x.pdf: a report is a page; name a file that ends"),
    ("src.tools.report", ["run", "model.tokens=none"], "a report may only be given other data.* and --device_target"),
]


def all_cases():
    return [(name, [*QUICK, *arguments], message) for name, arguments, message in CASES] + WITHOUT_CONFIG


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What one process that refuses every case reports of each."""
    folder = tmp_path_factory.mktemp("refusals")
    for name in ("empty.ckpt", "a.png", "b.onnx"):
        (folder / name).touch()
    (folder / "bomb.yaml").write_text(f"train: {{}}\n{BOMB}")
    (folder / "long.yaml").write_text("#" * 2**20)
    (folder / "digits.yaml").touch()
    small = {"pos_embed": (1, 17, 8), "cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4),
             "blocks.0.mlp.fc1.weight": (16, 8)}  # fmt: skip
    arrays = {name: np.zeros(shape, np.float32) for name, shape in small.items()}
    save_file(arrays, folder / "headless.safetensors")
    save_file({**arrays, "head.weight": np.zeros((10, 8), np.float32)}, folder / "small.safetensors")
    (folder / "run/checkpoints").mkdir(parents=True)
    (folder / "run/checkpoints/best.ckpt").touch()
    (folder / "run/config.yaml").write_text((ROOT / "configs/quickstart.yaml").read_text())
    lines = ["epoch,phase,tokens,loss,lr,top1,top5,img_s,seconds", "1,1,none,1,1,1,1,1,1", "2,1,none,1,1,1,1,1,1"]
    (folder / "run/metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "a run").mkdir()
    (folder / "a run/config.yaml").touch()
    begun = {"shared": (2, 1437, "0"), "grown": (1, 1436, "0"), "renamed": (1, 1437, "0")}
    for name, (processes, images, names) in begun.items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text((ROOT / "configs/quickstart.yaml").read_text())
        RunImages(processes, {"train": images, "val": 360}, names).write(folder / name / "images.json")
    cases = [
        {
            "module": name,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": {"MS_ROLE": "MS_WORKER"} if message.startswith("msrun started") else {},
        }
        for name, arguments, message in all_cases()
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    done = run_module("tests.helpers.refusals", folder / "cases.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in folder.iterdir())
    given = ["a run", "a.png", "b.onnx", "bomb.yaml", "cases.json", "digits.yaml", "empty.ckpt", "headless.safetensors",
             "long.yaml", "run", "small.safetensors", *begun]  # fmt: skip
    assert left == sorted([*given, "data"]), "the digits, and nothing that a refusal left"
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(all_cases())), ids=lambda number: str(all_cases()[number][2])[:40])
def test_a_mistake_is_named_without_mindspore(refused, number):
    _, _, expected = all_cases()[number]
    kind, message, printed, heavy = refused[number]
    assert kind == "UserError"
    assert expected in message
    assert heavy == []
    assert printed == "" or "trainings, of which" in printed


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("train.py", [*QUICK, "train.epoch=3"]), ("eval.py", []), ("export.py", ["--ckpt", "nowhere.ckpt"])],
)
def test_an_entry_point_ends_with_one_line_and_exit_code_2(tmp_path, script, arguments):
    done = run_script(script, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_printing_a_configuration_tells_where_every_value_comes_from(tmp_path):
    arguments = ["--config", ROOT / "configs/skipvit_s.yaml", "--print", "train.epochs=3"]
    done = run_script("train.py", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  tokens: 6(55%)+11  # {ROOT / 'configs/skipvit_s.yaml'}\n" in done.stdout
    assert f"  mixup: 0.8  # {ROOT / 'configs/base/deit.yaml'}\n" in done.stdout
    assert "  epochs: 3  # override\n" in done.stdout
    assert "  eval_every: 1  # default\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


PURE = ["src", "src.cli", "src.commands", "src.config", "src.config.reference", "src.data.datasets", "src.data.verify",
        "src.errors", "src.export.onnx.file", "src.export.predictor", "src.visuals.predictions",
        "src.experiments.results", "src.files", "src.markdown", "src.progress", "src.runs",
        "src.runtime.device", "src.runtime.signals", "src.schedules", "src.schedules.search", "src.weights",
        *(f"src.tools.{path.stem}" for path in sorted((ROOT / "src/tools").glob("[a-z]*.py")))]  # fmt: skip


def test_pure_modules_import_neither_mindspore_nor_mindcv():
    code = f"import importlib, sys\nfor name in {PURE}:\n    importlib.import_module(name)\n"
    code += "    assert not {'mindspore', 'mindcv'} & set(sys.modules), name\nprint('pure')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "pure\n"), done.stderr


def test_a_command_imports_nothing_of_others_before_it_watches_for_signals():
    """So that Ctrl-C during any other import ends in one line: `cli.run` is called first."""
    names = ["train", "eval", "export", *(name for name in PURE if name.startswith("src.tools."))]
    code = f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n"
    code += "print(sorted({'yaml', 'pydantic', 'numpy', 'matplotlib', 'tqdm', 'PIL', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("imported", ["pydantic", "numpy"])
def test_ctrl_c_during_an_import_is_one_line(tmp_path, imported):
    """The planner, which never imports MindSpore; train.py's imports are tested with its other moments."""
    code = f"""
import os, signal, sys, time
class Interrupter:
    def find_spec(self, name, path, target=None):
        if name == {imported!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
sys.meta_path.insert(0, Interrupter())
sys.argv = ["plan", "--target-speedup", "1.25"]
from src import cli
from src.tools import plan
cli.run(plan.main)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "error: stopped by SIGINT\n")
