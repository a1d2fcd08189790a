"""The report: its numbers, its escapes, runs in every state, and how a browser shows it."""

import html
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from src.config import load, with_classes
from src.errors import UserError
from src.models import from_config
from src.report import write_report
from src.report.runs import read_runs
from src.tools import report
from src.training import session
from src.training.checkpoint import save_network
from src.training.metrics import COLUMNS, Metrics
from src.training.run_folder import RunFolder
from tests.conftest import ROOT

MODEL = ["model.image_size=16", "model.embed_dim=16", "model.num_heads=2", "model.depth=4", "data.workers=1"]
NASTY = '<b>&amp;"x"</b>'
ROWS = (
    Metrics(1, 1, "none", 2.300001, 1e-4, 20.1, 90.0, None, 9.1),
    Metrics(2, 1, "none", 2.100002, 2e-4, None, None, 810.0, 8.2),
    Metrics(3, 2, "2(50%)+4", 1.900003, 3e-4, 33.33, 91.0, 903.0, 7.3),
    Metrics(4, 2, "2(50%)+4", math.nan, 2e-4, 60.44, 92.0, 1004.0, 6.4),
    Metrics(5, 2, "2(50%)+4", 1.500005, 1e-4, 55.55, 93.0, 1105.0, 5.5),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Nine validation images of three classes, one of them named in HTML."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate((NASTY.replace("/", "∕"), "bee", "cat")):
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20, 24), (80 * label, 40 * number, 99)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def make_run(images, tmp_path_factory):
    """A run folder as a training leaves it, after so many epochs."""

    def make(name, epochs, *overrides, best=True):
        folder = tmp_path_factory.mktemp("runs") / name
        quick = ROOT / "configs/quickstart.yaml"
        config = load(quick, [*MODEL, f"data.root={images}", "model.tokens=2(50%)+4", "train.epochs=5", *overrides])
        config = with_classes(replace(config, run=replace(config.run, dir=str(folder))), 3)
        run = RunFolder.create(config, "test", sorted(path.name for path in (images / "val").iterdir()))
        run.note_environment({"hardware": "A <machine>", "mindspore": "2.10.0", "date": "2026-11-20"})
        for row in ROWS[:epochs]:
            run.write_epoch(row)
        if best:
            save_network(run.best, config, from_config(config.model))
        return run

    return make


@pytest.fixture(scope="module")
def one(make_run):
    """A finished run and its report."""
    run = make_run("finished", 5)
    write_report([str(run.path)], run.report)
    return run, run.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def two(make_run, one, tmp_path_factory):
    """The report of the finished run beside one of another schedule, of an odd name, that is not finished."""
    other = make_run(f"{NASTY.replace('/', '')} $x_1$", 4, "model.tokens=2(25%)+fused", "optimizer.lr=0.5")
    file = tmp_path_factory.mktemp("report") / "two.html"
    write_report([str(one[0].path), str(other.path)], file)
    return file


def table(text, label):
    """The rows of a table as lists of text."""
    body = re.search(rf'aria-label="{re.escape(label)}">\s*<table.*?</table>', text, re.S)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[html.unescape(re.sub(r"<.*?>", "", cell)).strip() for cell in row] for row in cells]


def test_numbers_are_those_of_the_metrics(one):
    _, text = one
    assert table(text, "Epochs of finished") == [list(COLUMNS), *[list(row.cells) for row in ROWS]]
    assert ROWS[3].cells == ("4", "2", "2(50%)+4", "", "2.000000e-04", "60.4400", "92.0000", "1004.00", "6.40")
    results = dict(table(text, "Results"))
    assert results["Schedule"] == "2(50%)+4"
    assert results["Training throughput"] == "1004 img/s median of epochs 3 to 5, 2(50%)+4"
    assert results["Epochs done"] == "5 of 5"
    assert results["Best top-1"] == "60.44% epoch 4"
    assert (results["Final top-1"], results["Final top-5"]) == ("55.55%", "93.00%")
    assert results["Final training loss"] == "1.5000"
    (run,) = read_runs([str(one[0].path)])
    assert results["Ideal gain over dense"] == f"{100 * run.network.plan.ideal_gain:+.1f}%"
    assert results["Parameters"] == f"{run.parameters:,}"
    assert "finished: 2.3 in epoch 1, 1.5 in epoch 5" in text
    assert dict(table(text, "Environment"))["Hardware"] == "A <machine>"


def test_curves_pass_through_the_values(one):
    """The marks of top-1 stand as far from each other, vertically, as the values."""
    svg = re.search(r'aria-label="Top-1.*?</svg>', one[1], re.S)[0]
    marks = [(float(x), float(y)) for x, y in re.findall(r'<use href="#top1-\w+" x="([\d.]+)" y="([\d.]+)"', svg)]
    curve = sorted({mark for mark in marks if marks.count(mark) == 1 and mark[1] < 200})[-4:]
    heights = [y for _, y in curve]
    values = [20.1, 33.33, 60.44, 55.55]
    for height, value in zip(heights, values):
        share = (value - values[0]) / (values[2] - values[0])
        assert (height - heights[0]) / (heights[2] - heights[0]) == pytest.approx(share, abs=1e-3)


def test_nothing_is_fetched_and_all_is_escaped(one, two):
    for whole in (one[1], two.read_text(encoding="utf-8")):
        text = re.sub(r"base64,[\w+/=]+", "base64,", whole)
        assert not re.search(r"https?:|//\w|<script|<link|@import|url\((?!#)", text)
        assert set(re.findall(r'(?:src|href)="([^"#]{5})', text)) <= {"data:"}
        assert "<b>" not in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
        identifiers = re.findall(r' id="(.+?)"', text)
        assert len(identifiers) == len(set(identifiers))
    assert html.escape(NASTY.replace("/", "∕"), quote=False).replace('"', "&#34;") in one[1]


def test_two_runs_are_compared(two):
    text = two.read_text(encoding="utf-8")
    other = f"{NASTY.replace('/', '')} $x_1$"
    assert table(text, "Differences")[1:] == [
        ["model.tokens", "2(50%)+4", "2(25%)+fused"],
        ["optimizer.lr", "0.001", "0.5"],
    ]
    results = {row[0]: row[1:] for row in table(text, "Results")}
    assert results[""] == ["finished", other]
    assert results["Epochs done"] == ["5 of 5", "4 of 5 not finished"]
    assert results["Final top-1"] == ["55.55%", "60.44% +4.89 points"]
    assert results["Final top-5"][1] == "92.00% −1.00 points"
    assert results["Training throughput"][1] == "954 img/s −5.0%; median of epochs 3 to 4, 2(50%)+4"
    assert results["Final training loss"][1] == "–"
    assert text.count('<img src="data:image/') == 2
    assert text.count('stroke: var(--run-1)"/>') + text.count("stroke: var(--run-1);") > 4


def test_a_run_that_has_just_begun(make_run, tmp_path):
    for epochs, said in ((0, "No epoch is done yet."), (1, "2.3 in epoch 1"), (2, "2.1 in epoch 2")):
        run = make_run(f"begun{epochs}", epochs, best=False)
        write_report([str(run.path)], tmp_path / "r.html")
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert said in text
        assert "There is no best checkpoint yet." in text
        assert dict(table(text, "Results"))["Epochs done"] == f"{epochs} of 5 not finished"


def test_an_older_run_without_environment(make_run, tmp_path):
    run = make_run("older", 5)
    run.environment.unlink()
    write_report([str(run.path)], tmp_path / "r.html")
    assert "It was not noted when this run was trained." in (tmp_path / "r.html").read_text(encoding="utf-8")
    run.environment.write_text("{")
    assert run.read_environments() == []


def test_data_that_has_moved(make_run, images, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    run = make_run("moved", 5, f"data.root={moved}")
    shutil.rmtree(moved)
    write_report([str(run.path)], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"The picture cannot be drawn: data.root {moved} is not a folder" in text
    assert "<img" not in text
    assert "60.44%" in text
    report.main([str(run.path), f"data.root={images}"])
    assert run.report.read_text(encoding="utf-8").count("<img src=") == 1


def test_a_resume_elsewhere_is_another_column(make_run, tmp_path):
    run = make_run("elsewhere", 3)
    for hardware in ("A <machine>", "another"):
        run.note_environment({"hardware": hardware, "date": "2026-11-21"})
    assert [facts["from_epoch"] for facts in json.loads(run.environment.read_text())] == [1, 4, 4]
    write_report([str(run.path)], tmp_path / "r.html")
    first, *rows = table((tmp_path / "r.html").read_text(encoding="utf-8"), "Environment")
    assert first == ["", "elsewhere", "elsewhere, from epoch 4"]
    assert ["Hardware", "A <machine>", "another"] in rows


def test_a_report_that_fails_costs_no_training(make_run, caplog):
    run = make_run("costly", 1)
    run.metrics.write_text("epoch\none\n")
    session._report(run)
    assert "there is no report: UserError: " in caplog.text
    assert not run.report.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "run folder nowhere holds no config.yaml"),
        (["RUN", "nowhere"], "run folder nowhere holds no config.yaml"),
        (["RUN", "--output", "no/such/r.html"], "--output no/such/r.html: no/such is no folder"),
        (["RUN", "--output", "."], "--output .: is a folder; name another file"),
        (["RUN", "model.tokens=none"], "a report may only be given other data.*"),
        (["data.root=x"], "name the folder of a run"),
        ([], "name the folder of a run"),
    ],
)
def test_a_mistake_is_one_line(one, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        report.main([str(one[0].path) if argument == "RUN" else argument for argument in arguments])
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command(one, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "src.tools.report", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    done = run(one[0].path, "--output", tmp_path / "r.html")
    assert (done.returncode, done.stdout) == (0, f"report: {tmp_path / 'r.html'}\n"), done.stderr
    refused = run("nowhere")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: run folder nowhere holds no config.yaml")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: how a browser shows the report was not looked at")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=FLAGS)  # in a new, empty profile
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("number", [1, 2])
def test_a_browser_shows_it(browser, one, two, number, width, scheme):
    file = Path(one[0].report) if number == 1 else two
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("[...document.images].map(image => image.naturalWidth > 0)") == [True] * number
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue > 384) == (scheme == "light")
    page.close()
