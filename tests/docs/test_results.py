"""The evidence: what docs/results.md and the READMEs say is what the files of results say."""

import csv
import re
import statistics

import numpy as np
import pytest
from scipy import stats

from src.experiments.paired import Rule, margin, not_worse
from src.experiments.results import read_results, summarise
from src.experiments.table import accuracy, difference, label, table, verdict
from src.schedules import parse
from tests.helpers.commands import ROOT

FILES = {path.stem: path for path in (ROOT / "docs" / "results").glob("*.csv")}
RECORDS = ROOT / "records"
RULE = Rule(pairs=6)  # of configs/tables/evidence.yaml
DOCUMENT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def summaries(file):
    return summarise(read_results(file))


def evidence():
    """The rows of the evidence, by their label."""
    return {label(variant): own for variant, own in summaries(RECORDS / "2026-11-27-evidence/results.csv").items()}


def line(*cells):
    """A row of a table, or a part of it, in Markdown."""
    return squeezed(f"| {' | '.join(cells)} |")


def squeezed(text):
    """Rows whose empty cells are a space."""
    return re.sub(r"\|  (?=\|)", "| ", text)


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_document_has_the_table_of_the_results(name):
    assert table(summaries(FILES[name])) in DOCUMENT


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_results_are_of_whole_trainings(name):
    results = read_results(FILES[name])
    assert len({(result.variant, result.seed) for result in results}) == len(results)
    assert len({result.epochs for result in results}) == 1
    for result in results:
        assert str(parse(result.tokens)) == result.tokens
        assert 0 < result.top1 <= result.best_top1 <= 100


def test_digits_are_all_rows_with_five_seeds():
    assert {found.seeds for found in summaries(FILES["digits"]).values()} == {5}


@pytest.mark.parametrize("readme", ["README.md", "README_CN.md"])
def test_the_readme_shows_the_evidence(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    found = summaries(RECORDS / "2026-11-27-evidence/results.csv")
    assert len(found) == 13
    for variant, own in found.items():
        cells = [label(variant), str(own.seeds), f"{own.cost:.2f}", accuracy(own), difference(own), verdict(own, RULE)]
        assert line(*cells) in text


@pytest.mark.parametrize(
    ("name", "trainings", "seeds"),
    [("phases", "*-metrics.csv", [4] * 6), ("evidence", "*/seed*/metrics.csv", [6, 6, 6, 3, 6, *[3] * 4, 6, 3, 3, 6])],
)
def test_the_document_has_the_table_of_a_record(name, trainings, seeds):
    folder = RECORDS / f"2026-11-27-{name}"
    written = (folder / "table.md").read_text(encoding="utf-8").strip().split("\n\n")
    for part in written:
        assert part in DOCUMENT
    found = summaries(folder / "results.csv")
    assert [summary.seeds for summary in found.values()] == seeds
    assert len(list(folder.glob(trainings))) == sum(seeds)
    for variant, summary in found.items():
        row = next(row for row in written[0].splitlines() if row.startswith(f"| {label(variant)} |"))
        assert line(accuracy(summary), difference(summary)) in squeezed(row)


def test_the_document_says_what_six_pairs_show():
    found = evidence()
    six = [own for own in found.values() if own.seeds == RULE.pairs and own.differences]
    claim, other, chance, growth, tail = six
    p = [f"{not_worse(own.differences, RULE.allowed).p:.2g}" for own in six]
    before, after = (-statistics.mean(three) for three in (growth.differences[:3], growth.differences[3:]))
    ahead = [first - second for first, second in zip(chance.differences, claim.differences)]
    mean, bound = statistics.mean(ahead), margin(ahead)
    apart = f"{abs(mean):.2f} points {'above' if mean > 0 else 'below'} attention's"
    interval = f"({mean - bound:+.2f} to {mean + bound:+.2f})"
    said = " ".join(DOCUMENT.split())
    for words in (
        f"`6(55%)+11` {difference(claim)}, p = {p[0]};",
        f"`4,7(30%,30%)+11` {difference(other)}, p = {p[1]};",
        f"under a random ranking {difference(chance)}, p = {p[2]};",
        f"ending dense {difference(tail)}, p = {p[4]}: all four lose less than a point",
        f"tokens that grow, {difference(growth)}, p = {p[3]};",
        f"two drops, {difference(other)}, the random ranking, {difference(chance)}, and the dense tail,",
        f"the dense tail, {difference(tail)}, p = {p[1]}, {p[2]} and {p[4]}.",
        f"The growing share of tokens does not: {difference(growth)}, p = {p[3]}.",
        f"{before:.2f} points below dense in the three pairs that it was chosen for, and {after:.2f} below in",
        f"The random ranking ends {apart} {interval}",
    ):
        assert words in said
    assert f"end {apart} {interval}" in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    chinese = (ROOT / "README_CN.md").read_text(encoding="utf-8")
    assert f"{'高' if mean > 0 else '低'} {abs(mean):.2f} 个百分点（{interval[1:-1]}）" in chinese
    for readme in ("README.md", "README_CN.md"):
        assert all(f"p = {value}" in (ROOT / readme).read_text(encoding="utf-8") for value in (p[1], p[3], p[4]))


def test_the_document_says_what_three_pairs_show():
    found = evidence()
    three = {name: own for name, own in found.items() if own.seeds == 3}
    means = {name: statistics.mean(own.differences) for name, own in three.items()}
    bounds = {name: margin(own.differences) for name, own in three.items()}
    assert [name for name, mean in means.items() if abs(mean) > bounds[name]] == ["random route"]
    lost = sorted(-mean for name, mean in means.items() if "random " not in name)
    spread = [statistics.stdev(own.differences) for own in found.values() if own.differences]
    sizes, both = three["sizes"], three["sizes and skip"]
    said = " ".join(DOCUMENT.split())
    for words in (
        difference(found["random route"]),
        f"blocks 2 to 11 it is {means['random blocks']:.2f}, with",
        f"in the mean, by {lost[0]:.2f} to {lost[-1]:.2f} points",
        f"end {-means['sizes']:.2f} and {-means['sizes and skip']:.2f} below it here,",
        f"at {sizes.cost:.2f} and {both.cost:.2f} of the multiplications",
        f"standard deviations of a difference are {min(spread):.2f} to {max(spread):.2f} points",
    ):
        assert words in said
    for readme in ("README.md", "README_CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert f"{-means['sizes and skip']:.2f}" in text
        assert difference(both).split(" ", 1)[1] in text


@pytest.mark.parametrize("trained", ["dense", "skip", "random"])
def test_the_document_says_what_rankings_are_worth(trained):
    """Of three seeds' networks, each under four rankings and four shares: means, and McNemar's test of sums."""
    folders = sorted(RECORDS.glob(f"2026-11-27-shares/{trained}-*"))
    assert len(folders) == 3
    rows = list(worth(folders))
    assert all(row in DOCUMENT for row in rows)
    names = {"dense": "dense", "skip": "under `6(55%)+11`", "random": "under `6(55%,random)+11`"}
    assert line(names[trained], *(f"{lead(folder):+.2f}" for folder in folders)) in DOCUMENT
    if trained == "random":
        worst = [f"{-min(map(float, row.split('|')[2:6])):.1f}" for row in rows[2:]]
        assert f"at 55%\nthey lose {worst[0]} points at the worst, at 75% {worst[1]}." in DOCUMENT
    if trained == "dense":
        return
    for readme in ("README.md", "README_CN.md"):
        (said,) = re.findall(r"^3\. .*?(?=^4\. )", (ROOT / readme).read_text(encoding="utf-8"), re.M | re.S)
        numbers = re.findall(r"\d\.\d\d", said)
        assert (numbers[:4] if trained == "skip" else numbers[4:]) == re.findall(r"\d\.\d\d", rows[2])[:4]


def lead(folder):
    """Points of top-1 by which attention's ranking is ahead of chance, of the network of a folder, at 55%."""
    top1 = {row["tokens"]: float(row["top1"]) for row in rows_of(folder / "evaluation.csv")}
    return top1["6(55%)+11"] - top1["6(55%,random)+11"]


def worth(folders):
    """A row for each share: what rankings lose, and attention against others; points of top-1, means of networks."""
    top1, alone, images = {}, {}, 0
    for folder in folders:
        for row in rows_of(folder / "evaluation.csv"):
            top1[row["tokens"]] = top1.get(row["tokens"], 0) + float(row["top1"]) / len(folders)
        images += int(row["images"])
        for row in rows_of(folder / "pairs.csv"):
            before, pair = alone.get((row["first"], row["second"]), (0, 0)), (row["first_alone"], row["second_alone"])
            alone[row["first"], row["second"]] = tuple(old + int(new) for old, new in zip(before, pair))
    for share in (25, 40, 55, 75):
        attention, *others = (f"6({share}%{ranking})+11" for ranking in ("", ",random", ",norm", ",lowest"))
        cells = [f"{share}%", *(f"{top1[spec] - top1['none']:+.2f}" for spec in (attention, *others))]
        for other in others:
            better, worse = alone[attention, other]
            p = stats.binomtest(better, better + worse).pvalue
            cells.append(f"{100 * (better - worse) / images:+.2f} ({f'p = {p:.2g}' if p >= 0.001 else 'p < 0.001'})")
        yield line(*cells)


def test_the_document_says_what_leaving_early_costs():
    """What it says in words of 17 cells of each of two networks, ranked by attention and by chance."""
    lost, ahead, p = ({2: [], 4: [], 6: []} for _ in range(3))  # of the cells of a start, those of 8 with those of 6
    for folder in (RECORDS / "2026-11-27-distance/dense-0", RECORDS / "2026-11-27-distance/skip-0"):
        top1 = {row["tokens"]: float(row["top1"]) for row in rows_of(folder / "evaluation.csv")}
        pairs = {(row["first"], row["second"]): float(row["p"]) for row in rows_of(folder / "pairs.csv")}
        dense = top1.pop("none")
        for spec, other in by_ranking(top1):
            start = min(int(spec[0]), 6)
            lost[start].append(dense - top1[spec])
            ahead[start].append(top1[spec] - top1[other])
            p[start].append(pairs[spec, other])
    said = " ".join(DOCUMENT.split())
    assert f"attention loses {min(lost[2]):.1f} to {max(lost[2]):.1f} points" in said
    assert f"points, {-max(ahead[2]):.1f} to {-min(ahead[2]):.1f} more than chance" in said
    assert f"in nine of ten cells, by up to {-min(ahead[4]):.1f} points" in said
    assert f"attention loses at most {max(lost[6]):.1f} points there" in said
    assert f"at most {sorted(lost[6])[10]:.1f} in eleven of fourteen cells" in said
    assert len(p[2]) == 10
    assert max(p[2]) < 0.001
    assert [sum(value > 0 for value in ahead[start]) for start in (4, 6)] == [1, 9]


def by_ranking(specs):
    """Each schedule that ranks by attention, and its twin that ranks by chance."""
    return [(spec, spec.replace("%)", "%,random)")) for spec in specs if "random" not in spec]


def test_the_document_says_what_trained_cells_show():
    folder = RECORDS / "2026-11-27-distance/trained"
    top1 = {row["tokens"]: float(row["top1"]) for row in rows_of(folder / "results.csv")}
    dense = top1.pop("none")
    ends = [value - dense for value in top1.values()]
    pairs = [(top1[spec], top1[other]) for spec, other in by_ranking(top1)]
    said = " ".join(DOCUMENT.split())
    for words in (
        f"the dense network ends at {dense:.2f}%",
        f"The {len(ends)} cells end between {min(ends):+.2f} and {max(ends):+.2f} points of dense",
        f"with a standard deviation of {statistics.stdev(ends):.2f};",
        f"(correlation {np.corrcoef(np.transpose(pairs))[0, 1]:+.2f} over {len(pairs)} cells)",
    ):
        assert words in said
    assert len(list(folder.glob("*/seed0/metrics.csv"))) == len(ends) + 1


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_document_has_the_table_of_the_systems():
    folder = RECORDS / "2026-11-27-systems"
    found = summaries(folder / "results.csv")
    assert [summary.seeds for summary in found.values()] == [2] * 6
    assert len(list(folder.glob("*/seed*/metrics.csv"))) == 12
    for variant, own in found.items():
        assert line(label(variant), f"{own.cost:.2f}", accuracy(own), difference(own)) in DOCUMENT
