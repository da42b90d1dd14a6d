"""Comparisons: the right order, the right verdicts, and files whatever the points are like."""

import csv
import re
import warnings

import numpy as np
import pytest
from scipy import stats

from experiments.comparison import comparison, page, ranking, significance, terminal
from experiments.comparison.importance import importance
from experiments.comparison.points import Point, latest, swept_keys
from experiments.config.command_line import Command
from experiments.config.keys import key_labels

ACCURACY = "val/accuracy"


def point(value=None, status="finished", reason="", name=None, epochs=3, seconds=None, **settings):
    """A run whose second epoch was the best one; keywords are settings, `__` for a dot."""
    settings = {key.replace("__", "."): str(setting) for key, setting in settings.items()}
    history, metrics = {}, {}
    if value is not None:
        accuracies = [value - 0.1, value, *[value - 0.05] * (epochs - 2)]
        history = {ACCURACY: accuracies, "val/loss": [1 - each for each in accuracies], "epoch_seconds": [1.5] * epochs}
    if value is not None and status == "finished":
        metrics = {"best/epoch": 2.0, "parameters": 1000.0, "seconds": seconds or 5.0}
    name = " ".join(f"{key}={setting}" for key, setting in settings.items()) if name is None else name
    return Point("0123456789", name, status, settings, history, metrics, reason)


def grid(values, seeds=(1, 2, 3)):
    """{filters: an accuracy per seed} -> points."""
    return [
        point(value, filters=filters, seed=seed)
        for filters, row in values.items()
        for seed, value in zip(seeds, row)
        if value is not None
    ]


def compared(points, objectives=(ACCURACY,), **changes):
    return comparison.Comparison(
        points=points, objectives=objectives, **{"title": "t", "command": Command(("c",)), **changes}
    )


def test_of_points_run_again_the_latest_counts_and_names_are_distinct():
    def run(run_id, lr, filters):
        settings = {"optimizer.lr": lr, "model.filters": filters, "tracking.uri": run_id}
        return Point(run_id, f"lr={lr}", "finished", settings, {}, {})

    old, other, wider, new = run("1", "0.1", "8"), run("2", "0.2", "8"), run("3", "0.1", "16"), run("4", "0.1", "8")
    assert [point.run_id for point in latest([old, other, new])] == ["4", "2"]
    assert [point.name for point in latest([old, other])] == ["lr=0.1", "lr=0.2"]
    assert {point.name for point in latest([old, wider, new])} == {"filters=8", "filters=16"}


def written(folder, points, objectives=(ACCURACY,), **changes):
    """The page, made without a single warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.write(folder, compared(points, objectives, **changes))
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_best_is_first_and_what_has_no_rank_is_last():
    points = [
        point(status="failed", reason="it broke", a=1),
        point(0.7, status="pruned", a=2),
        point(0.8, a=3),
        point(float("nan"), a=4),
        point(0.9, a=5),
        point(0.75, status="pruned", a=6),
        point(status="killed", a=7),
        point(0.8, a=3, name="an equal"),
    ]
    rows = ranking.table(points, [ACCURACY])
    assert rows["a"].tolist() == ["5", "3", "3", "4", "6", "2", "7", "1"]
    assert rows["place"].tolist()[:3] == [1, 2, 3] and rows["place"].isna().sum() == 5
    assert rows["name"].tolist()[1:3] == ["a=3", "an equal"]
    assert rows[ACCURACY].tolist()[:3] == [0.9, 0.8, 0.8] and rows[ACCURACY].tolist()[4:6] == [0.75, 0.7]
    assert rows.loc[0, ["best epoch", "epochs", "parameters", "seconds"]].tolist() == [2, 3, 1000, 5.0]
    assert rows["seconds"].tolist()[4] == 4.5  # it has no sum: its epochs
    assert rows["reason"].tolist()[-1] == "it broke"


def test_it_states_how_predictions_were_made():
    def statement(*ways):
        return compared([point(0.9, **{"evaluation.tta": way}) for way in ways]).statement

    assert statement("flip", "flip").endswith("Every prediction is the mean over 2 views of its picture.")
    assert "views" not in statement("none") + statement("flip", "none")


def test_lower_cost_is_better():
    points = [point(0.5, a=1, seconds=9), point(0.5, a=2, seconds=3), point(0.5, a=3, seconds=float("inf"))]
    assert ranking.table(points, ["seconds"])["a"].tolist() == ["2", "1", "3"]
    assert ranking.table([point(0.5, a=1), point(0.9, a=2)], ["val/loss"])["a"].tolist() == ["2", "1"]


def test_groups_over_seeds():
    rows = significance.over_seeds(grid({8: [0.5, 0.6, 0.7], 16: [0.8, 0.9, None], 32: [0.55, None, None]}), ACCURACY)
    assert rows["group"].tolist() == ["filters=16", "filters=8", "filters=32"]
    assert rows["n"].tolist() == [2, 3, 1]
    assert rows["mean"].tolist() == pytest.approx([0.85, 0.6, 0.55])
    assert rows["sd"].tolist() == pytest.approx([0.1 / 2**0.5, 0.1, np.nan], nan_ok=True)
    # quantiles of t from a printed table: 12.706 for one degree of freedom, 4.303 for two
    assert rows["low"].tolist() == pytest.approx(
        [0.85 - 12.706 * 0.05, 0.6 - 4.303 * 0.1 / 3**0.5, np.nan], 1e-3, nan_ok=True
    )
    assert rows["high"].tolist()[1] == pytest.approx(0.6 + 4.303 * 0.1 / 3**0.5, 1e-3)


def test_without_seeds_nothing_is_tested():
    points = [point(0.5, filters=8, seed=1), point(0.6, filters=16, seed=2)]
    assert significance.over_seeds(points, ACCURACY) is None and significance.differences(points, ACCURACY) is None


def test_differences_are_paired_by_seed_and_corrected():
    values = {8: [0.60, 0.70, 0.80, 0.75], 16: [0.62, 0.725, 0.82, 0.773], 32: [0.59, 0.74, 0.78, 0.80]}
    rows = significance.differences(grid(values, seeds=(1, 2, 3, 4)), ACCURACY)
    pairs = [(16, 32), (16, 8), (32, 8)]  # by mean
    assert list(zip(rows["first"], rows["second"])) == [(f"filters={a}", f"filters={b}") for a, b in pairs]
    raw = []
    for row, (first, second) in enumerate(pairs):
        apart = np.subtract(values[first], values[second])
        error = apart.std(ddof=1) / 2
        raw.append(2 * stats.t.sf(abs(apart.mean()) / error, 3))
        assert rows["difference"][row] == pytest.approx(apart.mean())
        assert rows["high"][row] - rows["low"][row] == pytest.approx(2 * 3.1824463 * error, 1e-6)
    small, middle, large = sorted(raw)
    expected = {small: 3 * small, middle: max(3 * small, 2 * middle), large: max(3 * small, 2 * middle, large)}
    assert rows["p"].tolist() == pytest.approx([min(expected[p], 1) for p in raw])
    assert rows["verdict"].tolist() == [
        significance.NOT_SIGNIFICANT,
        significance.SIGNIFICANT,
        significance.NOT_SIGNIFICANT,
    ]


def test_the_correction_is_holms():
    # Holm by hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, never below the one before
    assert significance.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm(np.array([0.9, np.nan, 0.8])) == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_only_shared_seeds_count():
    rows = significance.differences(
        grid({8: [None, 0.5, 0.6, 0.7], 16: [0.1, 0.7, 0.9, None]}, seeds=(1, 2, 3, 4)), ACCURACY
    )
    assert rows["first"].tolist() == ["filters=8"] and rows["seeds"].tolist() == [2]
    assert rows["difference"].tolist() == pytest.approx([-0.25])


def test_no_variance_is_no_proof(tmp_path):
    points = grid({8: [0.5, 0.6, 0.7], 16: [0.5, 0.6, 0.7], 32: [0.6, 0.7, 0.8]})
    rows = significance.differences(points, ACCURACY).set_index(["first", "second"])
    assert rows.loc[("filters=16", "filters=8"), ["p", "verdict"]].tolist() == [1, significance.NOT_SIGNIFICANT]
    assert rows.loc[("filters=32", "filters=8"), "verdict"] == significance.UNTESTABLE
    page = written(tmp_path, points)
    assert significance.UNTESTABLE in page and "nan" not in page.split("Is the difference")[1].split("<svg")[0]


def test_many_groups_are_compared_with_the_best():
    rng = np.random.default_rng(0)
    rows = significance.differences(grid({filters: rng.random(3) for filters in range(9)}), ACCURACY)
    assert len(rows) == 8 and rows["first"].nunique() == 1
    assert len(significance.differences(grid({filters: rng.random(3) for filters in range(8)}), ACCURACY)) == 28


def test_pareto_front():
    values = [(0.9, 10), (0.8, 5), (0.8, 6), (0.7, 5), (0.6, 1), (0.95, 30), (0.5, float("inf"))]
    points = [point(accuracy, a=place, seconds=seconds) for place, (accuracy, seconds) in enumerate(values)]
    front = ranking.pareto([*points, point(status="failed", a=9)], [ACCURACY, "seconds"])
    assert [each.name for each in front] == ["a=5", "a=0", "a=1", "a=4"]


def test_the_important_setting_is_found():
    pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    rows = [(10 ** rng.uniform(-5, -1), rng.random(), rng.choice(["adam", "sgd"])) for _ in range(40)]
    # half of all learning rates by their logarithm, but a hundredth of their range, are too low
    points = [
        point(0.6 + 0.1 * (rate > 1e-3) + 0.05 * rest, lr=rate, dropout=rest, kind=kind) for rate, rest, kind in rows
    ]
    fractions = importance(points, ACCURACY)
    assert next(iter(fractions)) == "lr" and fractions["lr"] > 0.8 and sum(fractions.values()) == pytest.approx(1)
    assert fractions == importance(points, ACCURACY)


def test_too_few_points_have_no_importance():
    points = [point(0.5 + 0.1 * a, a=a, b=a % 2) for a in range(4)]
    assert importance(points[:3], ACCURACY) is None
    assert importance([point(0.5 + 0.1 * a, a=a) for a in range(6)], ACCURACY) is None
    assert importance([point(0.5, a=a, b=a % 2) for a in range(6)], ACCURACY) is None


def test_what_a_choice_implies_is_not_a_swept_setting():
    adam, sgd = (
        {"optimizer__name": "adam", "optimizer__epsilon": 1e-8},
        {"optimizer__name": "sgd", "optimizer__momentum": 0.9},
    )
    points = [point(0.5, **choice, optimizer__lr=lr) for choice in (adam, sgd) for lr in (0.1, 0.01)]
    assert swept_keys(points) == ["optimizer.name", "optimizer.lr"]
    assert key_labels(["optimizer.name", "data.name", "a.lr", "b.lr", "model._target_"]) == {
        "optimizer.name": "optimizer",
        "data.name": "data",
        "a.lr": "a.lr",
        "b.lr": "b.lr",
        "model._target_": "model",
    }
    assert {"optimizer.momentum", "optimizer.epsilon"} <= set(ranking.table(points, [ACCURACY]))


def test_the_page_shows_what_was_found(tmp_path):
    points = [
        *grid({8: [0.60, 0.70, 0.80], 16: [0.65, 0.751, 0.849]}),
        point(status="failed", reason="no memory", filters=32),
    ]
    page = written(tmp_path, points)
    assert "84.9 %</b><span>best val/accuracy" in page and "6 of 7</b><span>points finished; 1 failed" in page
    assert "<b>filters=16 seed=3</b>" in page and "no memory" in page
    assert "0.7500 ± 0.0995" in page and f'verdict yes">{significance.SIGNIFICANT}</td>' in page
    body = page.split('id="ranking"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", body)]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6", "failed"]
    assert rows[0][1:4] == ["16", "3", "0.8490"]
    with (tmp_path / "ranking.csv").open(encoding="utf-8") as file:
        first, *_ = csv.DictReader(file)
    assert first["place"] == "1" and first["filters"] == "16" and first["run_id"] == "0123456789"
    assert (tmp_path / "groups.csv").exists() and (tmp_path / "differences.csv").exists()
    assert {file.stem for file in tmp_path.glob("figures/*.png")} - {"importance"} == {"curves", "progress", "cost"}


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
    points = [point(0.5 + 0.01 * n, filters=n, seed=seed) for n in range(12) for seed in (1, 2)]
    terminal.show_comparison(
        compared([*points, point(status="failed", reason="no [memory]", filters=99)]), "open [there]"
    )
    out = capsys.readouterr().out
    rows = [line.split()[:4] for line in out.splitlines() if re.match(r"\d+ {2,}", line)]
    assert rows[0] == ["1", "filters=11", "seed=1", "0.6100"] and [row[0] for row in rows] == [
        str(n) for n in range(1, 11)
    ]
    assert "and 15 more: report.html" in out and "and 2 more: report.html" in out
    assert "filters=99: no [memory]" in out and "open [there]" in out and "python train.py" in out
