"""The report: its numbers, its curves, its escapes, runs in every state, and how a browser shows it."""

import base64
import html
import json
import re
import shutil

import pytest

from src import commands
from src.runs.metrics import COLUMNS
from src.visuals.report import curves, write_report
from src.visuals.report.runs import read_runs
from tests.visuals.runs import NASTY, ROWS, write_images, write_run


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def make_run(images, tmp_path_factory):
    """A function of a run's name and epochs that writes its folder."""
    return lambda name, *given, **options: write_run(tmp_path_factory.mktemp("runs") / name, images, *given, **options)


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


def pictures(text):
    """The curves of a page: for each, its words and its SVG for a light and for a dark scheme."""
    found = re.findall(
        r'<picture><source media="screen and \(prefers-color-scheme: dark\)" srcset="data:image/svg\+xml;base64,(.*?)">'
        r'<img src="data:image/svg\+xml;base64,(.*?)" alt="(.*?)"></picture>', text,
    )  # fmt: skip
    assert len(found) == text.count("<picture") == text.count("svg+xml") / 2
    return [(html.unescape(alt), _decoded(light), _decoded(dark)) for dark, light, alt in found]


def _decoded(base64_text):
    return base64.b64decode(base64_text).decode("utf-8")


def sheets(text):
    """How many pictures of tokens a page has."""
    return len(re.findall(r'<img src="data:image/(?:png|jpeg);', text))


def test_numbers_are_those_of_the_metrics(one):
    _, text = one
    assert table(text, "Epochs of finished") == [list(COLUMNS), *[list(row.cells) for row in ROWS]]
    assert ROWS[3].cells == ("4", "2", "2(50%)+4", "", "2.000000e-04", "60.4400", "92.0000", "1004.00", "6.40", "")
    results = dict(table(text, "Results"))
    assert results["Schedule"] == "2(50%)+4"
    assert results["Training throughput"] == "1004 img/s median of epochs 3 to 5, 2(50%)+4"
    assert results["Epochs done"] == "5 of 5"
    assert results["Best top-1"] == "60.44% epoch 4"
    assert (results["Final top-1"], results["Final top-5"]) == ("55.55%", "93.00%")
    assert results["Final training loss"] == "1.5000"
    (run,) = read_runs([str(one[0].path)])
    assert results["Ideal gain over dense"] == f"{100 * run.plan.ideal_gain:+.1f}%"
    assert results["Parameters"] == f"{run.geometry.parameters:,}"
    assert "finished: 2.3 in epoch 1, 1.5 in epoch 5" in text
    assert dict(table(text, "Environment"))["Hardware"] == "A <machine>"


def test_curves_pass_through_the_values(one):
    """The marks of top-1 stand as far from each other, vertically, as the values."""
    values = [20.1, 33.33, 60.44, 55.55]
    ((_, *schemes),) = [each for each in pictures(one[1]) if each[0].startswith("Top-1")]
    for svg in schemes:
        marks = [(float(x), float(y)) for x, y in re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', svg)]
        curve = sorted({mark for mark in marks if marks.count(mark) == 1 and mark[1] < 200})[-4:]
        heights = [y for _, y in curve]
        for height, value in zip(heights, values):
            share = (value - values[0]) / (values[2] - values[0])
            assert (height - heights[0]) / (heights[2] - heights[0]) == pytest.approx(share, abs=1e-3)


def test_curves_are_drawn_in_the_colours_of_either_scheme(two):
    drawn = pictures(two.read_text(encoding="utf-8"))
    assert [words.split(" by epoch. ")[0] for words, *_ in drawn] == [metric.title for metric in curves.METRICS]
    for _, *svgs in drawn:
        for svg, own, other in zip(svgs, (curves.LIGHT, curves.DARK), (curves.DARK, curves.LIGHT)):
            for colour in (own.ink, own.muted, own.line, *own.runs[:2]):
                assert colour in svg
            assert not [colour for colour in (other.ink, other.muted, other.line, *other.runs) if colour in svg]
            assert svg.count(f"stroke: {own.runs[1]}") > 1  # a line, and marks or dashes
            assert "stroke-dasharray: " in svg
            assert ">epoch</text>" in svg


def test_a_curve_names_the_schedules_and_is_the_same_each_time(one):
    (run,) = read_runs([str(one[0].path)])
    first, again = (curves.draw(curves.METRICS[0], [run]) for _ in range(2))
    assert first == again
    svg = base64.b64decode(first.light.split(",")[1]).decode()
    for phase in run.phases:
        assert f">{phase.tokens}</text>" in svg
    assert "date" not in svg.lower()


def test_nothing_is_fetched_and_all_is_escaped(one, two):
    for whole in (one[1], two.read_text(encoding="utf-8")):
        for _, *svgs in pictures(whole):
            for svg in svgs:
                bare = re.sub(r'<!DOCTYPE.*?>|xmlns(:xlink)?="(.*?)"', "", svg, flags=re.S)
                assert not re.search(r'https?:|<script|@import|href="(?!#)|url\((?!#)', bare)
        text = re.sub(r"base64,[\w+/=]+", "base64,", whole)
        assert not re.search(r"https?:|//\w|<script|<link|@import|url\((?!#)", text)
        assert set(re.findall(r'(?:src|srcset|href)="([^"#]{5})', text)) <= {"data:"}
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
    assert sheets(text) == 2
    assert text.count('stroke: var(--run-1)"/>') == 1  # of the legend; the curves are drawn in its colours


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
    assert sheets(text) == 0
    assert text.count("<img") == len(pictures(text)) == 4
    assert "60.44%" in text
    write_report([str(run.path)], run.report, {"data.root": str(images)})
    assert sheets(run.report.read_text(encoding="utf-8")) == 1


def test_a_resume_elsewhere_is_another_column(make_run, tmp_path):
    run = make_run("elsewhere", 3)
    for hardware in ("A <machine>", "another"):
        run.add_environment({"hardware": hardware, "date": "2026-11-21"})
    assert [facts["from_epoch"] for facts in json.loads(run.environment.read_text())] == [1, 4, 4]
    write_report([str(run.path)], tmp_path / "r.html")
    first, *rows = table((tmp_path / "r.html").read_text(encoding="utf-8"), "Environment")
    assert first == ["", "elsewhere", "elsewhere, from epoch 4"]
    assert ["Hardware", "A <machine>", "another"] in rows


def test_a_report_that_fails_costs_no_training(make_run, caplog):
    run = make_run("costly", 1)
    run.metrics.write_text("epoch\none\n")
    commands._report(run)
    assert "there is no report: UserError: " in caplog.text
    assert not run.report.exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_browser_shows_it(browser, one, two, number, width, scheme):
    file = one[0].report if number == 1 else two
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("[...document.images].map(image => image.naturalWidth > 0)") == [True] * (4 + number)
    shown = page.evaluate("[...document.querySelectorAll('picture img')].map(image => image.currentSrc)")
    ink = {"light": curves.LIGHT, "dark": curves.DARK}[scheme].ink
    assert [ink in base64.b64decode(uri.split(",")[1]).decode() for uri in shown] == [True] * 4
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue > 384) == (scheme == "light")
    page.close()
