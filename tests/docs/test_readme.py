"""The README: what it names exists, and its commands are ones that the entry points take."""

import re
import shlex

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from src.config import ModelConfig
from src.data.loaders import read_images
from src.models import build
from src.schedules import Geometry, parse, resolve
from tests.helpers.commands import ROOT
from tests.helpers.configs import load
from tests.schedules.test_notation import VIT_S

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_CN.md").read_text(encoding="utf-8")
DOCS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
COMMANDS = sorted(set(re.findall(r"(?:^|`|&& )((?:python|msrun) [\w./-]+[^`\n&]*)", README + DOCS, re.M)))
COMMANDS += [" ".join(f"python {text}".split()) for text in re.findall(r"`(eval\.py\s[^`]+)`", README)]


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_quick_start_is_two_lines():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert blocks == re.findall(r"```bash\n(.*?)```", section("Quick start"), re.S)
    assert [block.count("\n") for block in blocks] == [1, 1]
    first, second = blocks
    for part in ("-m venv", "requirements.txt", "train.py --config configs/quickstart.yaml", "eval.py", "export.py"):
        assert part in first
    assert "requirements-dev.txt" in second
    assert second.strip().split(" && ")[-1] in (ROOT / ".ci/run").read_text()


def test_every_file_that_is_named_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    tree = section("Script description").split("```")[1].removeprefix("text\n")
    listed = [name for line in tree.splitlines() for name in line.split("  ")[0].split()]
    rooms = {f"src/{room.parent.name}/" for room in (ROOT / "src").glob("*/__init__.py")}
    assert rooms <= set(listed)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:src|configs|tests|docs|scripts)/[\w./-]+\.\w+", README + DOCS + contributing)
    assert len(links) > 5
    for name in {*links, *listed, *named}:
        assert (ROOT / name).exists(), name


def test_links_between_the_documents_lead_somewhere():
    for path in (ROOT / "docs").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (path.parent / name).exists(), f"{path.name}: {name}"
        titles = re.findall(r"^#+ (.+)$", text, re.M)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors, path.name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    _, *arguments = shlex.split(re.sub(r"^msrun (--\w+=\S+ )+", "python ", command))
    script = arguments.pop(0)
    if command == "python -m pytest":
        return
    if script == "-m":
        script = arguments.pop(0).replace(".", "/") + ".py"
    assert (ROOT / script).is_file()
    options = set(re.findall(r'"(--[\w-]+)"', (ROOT / script).read_text() + (ROOT / "src/cli.py").read_text()))
    assert {argument for argument in arguments if argument.startswith("--")} <= options
    overrides = [argument for argument in arguments if re.match(r"\w+\.\w+=", argument)]
    config = arguments[arguments.index("--config") + 1] if "--config" in arguments else "configs/quickstart.yaml"
    if config != "FILE":  # stands for any
        load(ROOT / config, overrides)


def test_the_specs_of_the_first_table_are_what_it_says():
    rows = re.findall(r"^\| `(.+?)` \|.*?\| ([^|]*) \| ([\d.]+) \| (\+[\d.]+%|–) \|", README, re.M)
    assert len(rows) == 5
    for spec, tokens, gmacs, gain in rows:
        plan = resolve(parse(spec), VIT_S)
        assert f"{plan.macs / 1e9:.3f}" == gmacs
        assert gain == (f"+{100 * plan.ideal_gain:.1f}%" if plan.ideal_gain else "–")
        expected = [int(n) for part in tokens.split(", ") for n, times in [part.split(" ×")] for _ in range(int(times))]
        assert list(plan.tokens_out) == expected


def test_the_relatives_cost_what_their_table_says():
    text = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| [^|]+ \| ([\d.]+) \| (\+[\d.]+%) \|$", text, re.M)
    assert len(rows) == 5
    for spec, gmacs, gain in rows:
        plan = resolve(parse(spec), VIT_S)
        assert (f"{plan.macs / 1e9:.3f}", f"+{100 * plan.ideal_gain:.1f}%") == (gmacs, gain)


def test_the_systems_cost_what_their_table_says():
    text = (ROOT / "docs/systems.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|([^|]*)\| `([^`]+)`[^|]*\| ([\d.]+) \|([^|]*)\|([^|]*)\|", text, re.M)
    assert len(rows) == 9
    for name, spec, gmacs, training, inference in rows:
        on_lvvit = "LV-ViT" in name or (not name.strip() and spec.startswith("5"))
        model = ModelConfig(name="lvvit_s_16_224" if on_lvvit else "skipvit_s_16_224", tokens=spec)
        plan = resolve(parse(spec), Geometry.from_config(model))
        assert f"{plan.macs / 1e9:.3f}" == gmacs
        for gain, told in ((plan.training_gain, training), (plan.ideal_gain, inference)):
            assert (f"{100 * gain:+.1f}%" in told) if spec != "none" else not told.strip()


def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = build("6(55%)+11", image_size=16, patch_size=4, embed_dim=16, num_heads=2, num_classes=10).set_train(False)
    ms.export(net, Tensor(np.zeros((16, 3, 16, 16), np.float32)), file_name="best_16.mindir", file_format="MINDIR")
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(examples) == 2
    for example in examples:
        scope = {}
        exec(compile(example, "README.md", "exec"), scope)
        assert scope["network"] is not None
    assert scope["logits"].shape == (16, 10)


def test_images_for_a_file_are_prepared_as_it_says(tmp_path):
    """Greyscale to RGB; the shorter side is what it is to be resized to, so that interpolation does not matter."""
    said = " ".join(section("Evaluation, export and inference").split())
    assert "cropped in the centre, scaled to 0 to 1, and then normalised: minus `data.mean`, over `data.std`" in said
    assert "`src.data.loaders.read_images` does all of it" in said
    pixels = np.random.RandomState(0).randint(0, 256, (20, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    plain = [f"data.mean={mean.tolist()}", f"data.std={std.tolist()}", "data.crop_pct=0.8"]
    config = load(ROOT / "configs/quickstart.yaml", plain)
    cropped = pixels[2:18, 7:23, None].repeat(3, axis=2) / 255
    (found,) = read_images([tmp_path / "a.png"], config)
    assert np.abs(found - ((cropped - mean) / std).transpose(2, 0, 1)).max() < 1e-5


def test_nothing_is_left_to_be_filled_in():
    assert "@@" not in README + CHINESE + DOCS
    for path in (ROOT / "configs").glob("*.yaml"):
        assert "@@" not in path.read_text()


def test_the_chinese_readme_is_in_step():
    """The same commands, tables, headings and links; the words are a person's to compare."""

    def shape(text):
        return {
            "blocks": re.findall(r"```\w+\n(?:(?!```)[\s\S])*(?:python|msrun|import)(?:(?!```)[\s\S])*```", text),
            "headings": re.findall(r"^#+(?= )", text, re.M),
            "columns": [row.count("|") for row in re.findall(r"^\|.*\|$", text, re.M)],
            "numbers": [sorted(re.findall(r"\d+(?:\.\d+)?%?", row)) for row in re.findall(r"^\| `.*\|$", text, re.M)],
            "links": sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", text)) - {"README.md", "README_CN.md"}),
        }

    english, chinese = shape(README), shape(CHINESE)
    for kind, value in english.items():
        assert chinese[kind] == value, kind
