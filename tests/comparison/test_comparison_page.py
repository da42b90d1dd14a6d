"""The page, files and printed output of a comparison, whatever the points are like."""

import csv
import dataclasses
import re

import numpy as np
import pytest
from sample_points import ACCURACY, compared, grid, point, written

from experiments.comparison import significance, terminal


def test_the_page_shows_what_was_found(tmp_path):
    points = [
        *grid({8: [0.60, 0.70, 0.80], 16: [0.65, 0.751, 0.849]}),
        point(status="failed", reason="no memory", filters=32),
    ]
    page = written(tmp_path, points)
    assert "75.0 %</b><span>best mean val/accuracy" in page and "6 of 7</b><span>points finished; 1 failed" in page
    assert "<b>filters=16</b>" in page and "no memory" in page
    assert f'verdict yes">{significance.SIGNIFICANT}</td>' in page
    assert [row[:4] for row in table_in(page, "ranking")] == [
        ["1", "16", "3", "0.7500 ± 0.0995"],
        ["2", "8", "3", "0.7000 ± 0.1000"],
    ]
    rows = table_in(page, "points")
    assert [row[0] for row in rows] == ["1", "1", "1", "2", "2", "2", "failed"]
    assert [row[1:4] for row in rows[:3]] == [["16", "3", "0.8490"], ["16", "2", "0.7510"], ["16", "1", "0.6500"]]
    with (tmp_path / "ranking.csv").open(encoding="utf-8") as file:
        first, *_ = csv.DictReader(file)
    assert first["place"] == "1" and first["filters"] == "16" and first["run_id"] == "0123456789"
    assert (tmp_path / "groups.csv").exists() and (tmp_path / "differences.csv").exists()
    assert {file.stem for file in tmp_path.glob("figures/*.png")} - {"importance"} == {"curves", "progress", "cost"}


def table_in(page, name):
    """The cells of a table of the page, as text."""
    body = page.split(f'id="{name}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", body)]


def test_without_repetitions_the_ranking_has_the_points(tmp_path, capsys):
    points = [point(value, filters=filters) for filters, value in ((8, 0.6), (16, 0.7), (32, 0.65))]
    page = written(tmp_path, points)
    assert [row[:3] for row in table_in(page, "ranking")] == [
        ["1", "16", "0.7000"],
        ["2", "32", "0.6500"],
        ["3", "8", "0.6000"],
    ]
    assert "70.0 %</b><span>best val/accuracy" in page and "best point" in page
    assert "onfiguration" not in page.split("<body>")[1] and not (tmp_path / "groups.csv").exists()
    terminal.show_comparison(compared(points), "")
    out = capsys.readouterr().out
    assert re.search(r"^ +point +val/accuracy +kept epoch +epochs +seconds", out, re.M) and "onfiguration" not in out


def test_it_is_one_file_that_loads_nothing(tmp_path):
    page = written(tmp_path, [point(0.1 * a, a=a, b=b) for a in range(1, 5) for b in (1, 2)])
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    assert "default-src 'none'" in page
    assert {"heatmap", "parallel"} <= {file.stem for file in tmp_path.glob("figures/*.png")}


def test_a_random_search_has_no_heatmap_and_many_settings_have_few_axes(tmp_path):
    rng = np.random.default_rng(0)
    written(tmp_path, [point(x, a=x, b=y) for x, y in rng.random((6, 2))])
    assert {"parallel"} == {"heatmap", "parallel"} & {file.stem for file in tmp_path.glob("figures/*.png")}
    page = written(tmp_path, [point(row[0], **dict(zip("abcdefghi", row))) for row in rng.random((4, 9))])
    figure = page.split("Settings and objective")[1].split("</svg>")[0]
    assert len(re.findall(r">[a-i]</text>", figure)) == 8


def test_what_pruning_saved(tmp_path):
    pruned = [point(0.3, "pruned", a=a, training__epochs=20) for a in (1, 2)]
    page = written(tmp_path, [*pruned, point(0.9, a=3, training__epochs=20)])
    assert "<b>34</b><span>epochs saved" in page and "<b>9</b><span>epochs run" in page


def test_two_objectives_have_a_front(tmp_path, capsys):
    points = [point(0.9, a=1, seconds=20), point(0.8, a=2, seconds=10), point(0.7, a=3, seconds=15)]
    page = written(tmp_path, points, (ACCURACY, "seconds"))
    front = page.split("Pareto-optimal points")[1].split("</table>")[0]
    assert "a=1" in front and "a=2" in front and "a=3" not in front
    assert (tmp_path / "figures" / "pareto.png").exists()
    terminal.show_comparison(compared(points, (ACCURACY, "seconds")), "")
    assert "Pareto-optimal in val/accuracy and seconds: 1, 2\n" in capsys.readouterr().out


STRANGE = "<script>alert(1)</script> & $x$ $ ü 猫"


CASES = {
    "none": [],
    "one": [point(0.5, a=1)],
    "all failed": [point(status="failed", a=a) for a in (1, 2)],
    "none finished": [point(0.5, "pruned", a=1), point(0.6, "running", a=2)],
    "not a number": [point(float("nan"), a=1, b=1), point(float("nan"), a=2, b=1), point(a=1, b=2), point(a=2)],
    "infinite": [
        point(value, a=a, b=a % 2) for a, value in enumerate((0.5, float("inf"), float("-inf"), 0.7, 0.6, 0.5))
    ],
    "all alike": [point(0.5, a=a, b=b, seed=s) for a in (1, 2) for b in (1, 2) for s in (1, 2)],
    "strange, and missing settings": [
        point(0.5 + 0.01 * n, name=STRANGE, **{"model__a$": STRANGE if n % 2 else "<b>"}, **({"b": n} if n else {}))
        for n in range(6)
    ],
    "only seeds, one twice": [point(0.5, seed=1), *(point(0.5 + 0.01 * seed, seed=seed) for seed in range(4))],
    "a setting and seeds": [point(0.5 + 0.01 * seed, a=a, seed=seed) for seed in range(3) for a in (1, 2)],
}


@pytest.mark.parametrize("points", CASES.values(), ids=CASES.keys())
def test_any_points_make_a_page(tmp_path, points, capsys):
    objectives = (ACCURACY, "seconds")
    page = written(tmp_path, points, objectives, title=STRANGE)
    with (tmp_path / "ranking.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(points)
    assert "<script>alert" not in page and page.count("<h1>") == 1 and page.rstrip().endswith("</html>")
    assert not re.search(r">\s*(nan|None|&lt;NA&gt;)\s*<", page.split("<svg")[0])
    terminal.show_comparison(compared(points, objectives), "open report.html")
    assert "open report.html" in capsys.readouterr().out


def test_a_page_of_fewer_points_leaves_nothing_of_an_earlier_one(tmp_path):
    written(tmp_path, grid({8: [0.5, 0.6, 0.7], 16: [0.6, 0.65, 0.8]}))
    written(tmp_path, [point(0.5, a=1)])
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"ranking.csv", "report.html", "figures/curves.png"}


def test_the_terminal_shows_the_best_ten_and_why_others_failed(capsys):
    points = [point(0.5 + 0.01 * n, model__filters=n, seed=seed) for n in range(12) for seed in (1, 2)]
    terminal.show_comparison(
        compared([*points, point(status="failed", reason="no [memory]", model__filters=99)]), "open [there]"
    )
    out = capsys.readouterr().out
    rows = [line.split()[:4] for line in out.splitlines() if re.match(r"\d+ {2,}", line)]
    assert [row[0] for row in rows] == [str(n) for n in range(1, 11)]
    assert rows[0] == ["1", "filters=11", "2", "0.6100"] and "and 2 more: report.html" in out
    assert "filters=99: no [memory]" in out and "open [there]" in out and "no command does today" in out
    terminal.show_comparison(compared([point(0.5, seed=3)]), "open [there]")
    assert "no command does today" in capsys.readouterr().out  # the point has another seed than its (empty) overrides
    terminal.show_comparison(compared([dataclasses.replace(point(0.5, seed=3), overrides=["seed=3"])]), "open [there]")
    out = capsys.readouterr().out
    assert "train it:     python train.py seed=3\n" in out and "The test set was not used." in out


def test_only_runs_with_a_report_are_links(tmp_path):
    (tmp_path / "a b.html").touch()
    links = {"1" * 8: str(tmp_path / "a b.html"), "2" * 8: str(tmp_path / "none.html"), "3" * 8: "http://x/#/runs/3"}
    points = [
        dataclasses.replace(point(0.5, a=a), run_id=run_id, link=link) for a, (run_id, link) in enumerate(links.items())
    ]
    addresses = re.findall(r'<a href="(.*?)"><code>(\d)', written(tmp_path / "report", points))
    assert sorted(addresses) == [("../a%20b.html", "1"), ("http://x/#/runs/3", "3")]
