"""The evidence: what docs/results.md and the READMEs say is what the files of results say."""

import pytest

from src.experiments.results import read_results, summarise
from src.experiments.table import accuracy, difference, label, table
from src.schedules import parse
from tests.helpers.commands import ROOT

FILES = {path.stem: path for path in (ROOT / "docs" / "results").glob("*.csv")}
DOCUMENT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def summaries(name):
    return summarise(read_results(FILES[name]))


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_document_has_the_table_of_the_results(name):
    assert table(summaries(name)) in DOCUMENT


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_results_are_of_whole_trainings(name):
    results = read_results(FILES[name])
    assert len({(result.variant, result.seed) for result in results}) == len(results)
    assert len({result.epochs for result in results}) == 1
    for result in results:
        assert str(parse(result.tokens)) == result.tokens
        assert 0 < result.top1 <= result.best_top1 <= 100


def test_digits_are_all_rows_with_five_seeds():
    assert {found.seeds for found in summaries("digits").values()} == {5}


@pytest.mark.parametrize("readme", ["README.md", "README_CN.md"])
def test_the_readme_shows_the_evidence(readme):
    """Its rows are those without other settings; docs/results.md has all."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    digits, cifar = summaries("digits"), summaries("cifar10")
    shown = [variant for variant in cifar if not variant.overrides]
    assert len(shown) == 5
    for variant in shown:
        cells = [label(variant)]
        for found in (digits[variant], cifar[variant]):
            cells += [accuracy(found), difference(found)]
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in text


def test_the_document_has_the_table_of_the_relatives():
    folder = ROOT / "records" / "2026-11-27-phases"
    written = (folder / "table.md").read_text(encoding="utf-8").strip().split("\n\n")
    for part in written:
        assert part in DOCUMENT
    found = summarise(read_results(folder / "results.csv"))
    assert {summary.seeds for summary in found.values()} == {4}
    assert len(list(folder.glob("*-metrics.csv"))) == 24
    for variant, summary in found.items():
        row = next(line for line in written[0].splitlines() if line.startswith(f"| {label(variant)} |"))
        assert f"| {accuracy(summary)} | {difference(summary)} |".replace("|  |", "| |") in row.replace("|  |", "| |")


def test_the_document_has_the_table_of_the_systems():
    folder = ROOT / "records" / "2026-11-27-systems"
    found = summarise(read_results(folder / "results.csv"))
    assert [summary.seeds for summary in found.values()] == [2] * 6
    assert len(list(folder.glob("*/seed*/metrics.csv"))) == 12
    for variant, own in found.items():
        row = f"| {label(variant)} | {own.cost:.2f} | {accuracy(own)} | {difference(own)} |"
        assert row.replace("|  |", "| |") in DOCUMENT
