"""The picture of a dashboard, drawn from what a Prometheus would answer."""

import re
from xml.etree import ElementTree as ET

import pytest

from scripts import picture as command
from scripts.dashboards import FLEET
from scripts.drawing import WIDTH, Window
from scripts.panels import Dashboard, Panel, Query, Row
from scripts.picture import picture
from scripts.units import said, ticks

WINDOW = Window(1_700_000_040, 1_700_000_640, 60)
TIMES = range(1_700_000_040, 1_700_000_641, 60)
SVG = "{http://www.w3.org/2000/svg}"
PLACE = re.compile(r"([\d.]+) ([\d.]+)")


def answer(values, **labels):
    """A series of a result; None is a time at which there was nothing."""
    times = zip(TIMES, values, strict=True)
    return {"metric": labels, "values": [[at, str(v)] for at, v in times if v is not None]}


def drawn(*results, title="Lag", unit="none", legend="{{job}}", scrape=15, **panel):
    """A dashboard of one panel, with a query for each result."""
    queries = [Query(f"q{number}", legend, ()) for number in range(len(results))]
    dashboard = Dashboard("d", "D", [Row("R", [Panel(title, unit, queries, **panel)])])
    told = {query.expr: result for query, result in zip(queries, results, strict=True)}
    return ET.fromstring(picture(dashboard, told.__getitem__, WINDOW, scrape))


def texts(page):
    return [text.text for text in page.iter(f"{SVG}text")]


def paths(page, name):
    found = [path.get("d", "") for path in page.iter(f"{SVG}path") if path.get("class") == name]
    return [[(float(x), float(y)) for x, y in PLACE.findall(path)] for path in found]


def level(page, label):
    """The y of the line of the left axis that is called so."""
    [text] = [text for text in page.iter(f"{SVG}text") if text.text == label]
    return float(text.get("y", "")) - 4


def test_all_panels_of_the_fleet_are_there_with_what_was_told():
    asked = []

    def ask(expr):
        asked.append(expr)
        return [answer([1] * 11, job="worker", instance="worker-1")]

    page = ET.fromstring(picture(FLEET, ask, WINDOW, scrape=15))
    found = texts(page)
    assert [text for text in found if text in {row.title for row in FLEET.rows}] == [
        row.title for row in FLEET.rows
    ]
    titles = [text.text for text in page.iter(f"{SVG}text") if text.get("class") == "title"]
    assert titles == [panel.title for panel in FLEET.panels]
    assert "No data" not in found
    assert len(asked) == sum(len(panel.queries) for panel in FLEET.panels)
    assert not [expr for expr in asked if "$" in expr]


@pytest.mark.parametrize(("scrape", "over"), [(15, "75s"), (30, "120s")])
def test_rates_are_over_what_grafana_takes(scrape, over):
    query = Query("rate(x[$__rate_interval])", "", ())
    dashboard = Dashboard("d", "D", [Row("R", [Panel("P", "cps", [query])])])
    asked = []

    def ask(expr):
        asked.append(expr)
        return []

    picture(dashboard, ask, WINDOW, scrape)
    assert asked == [f"rate(x[{over}])"]


def test_values_are_where_the_axis_says():
    page = drawn([answer([0, *[50] * 4, *[100] * 5, 25], job="sink")])
    [line] = paths(page, "line")
    height = level(page, "0") - level(page, "100")
    assert line[0][1] == pytest.approx(level(page, "0"), abs=0.1)
    assert line[1][1] == pytest.approx(level(page, "50"), abs=0.1)
    assert line[3][1] == pytest.approx(level(page, "100"), abs=0.1)
    assert line[-1][1] == pytest.approx(level(page, "0") - height / 4, abs=0.1)
    start, second, end = line[0][0], line[1][0], line[-1][0]
    assert second - start == pytest.approx((end - start) / 10, abs=0.1)
    assert "sink  25" in texts(page)


def test_times_are_where_the_lower_axis_says():
    page = drawn([answer(range(11), job="sink")])
    [line] = paths(page, "line")
    clock = {t.text: float(t.get("x", "")) for t in page.iter(f"{SVG}text") if ":" in t.text[:3]}
    assert list(clock) == ["22:14", "22:16", "22:18", "22:20", "22:22", "22:24"]
    assert clock["22:14"] == line[0][0]
    assert clock["22:24"] == line[-1][0]


def test_a_gap_parts_a_line_and_what_is_no_number_is_one():
    values = [1, 1, None, 2, 3, float("nan"), 4, 5, 6, float("inf"), 7]
    page = drawn([answer(values, job="sink")])
    [path] = [path for path in page.iter(f"{SVG}path") if path.get("class") == "line"]
    pieces = path.get("d", "").split("M")[1:]
    assert [len(PLACE.findall(piece)) for piece in pieces] == [2, 2, 3, 1]
    assert pieces[-1].endswith("h0")


def test_stacked_series_stand_upon_each_other():
    page = drawn(
        [answer([*[10] * 10, 50], job="few"), answer([30] * 11, job="many")],
        unit="cps",
        stacked=True,
    )
    few, many = paths(page, "line")
    middle = (level(page, "20 c/s") + level(page, "40 c/s")) / 2
    assert many[0][1] == pytest.approx(middle, abs=0.1)
    assert few[0][1] == pytest.approx(level(page, "40 c/s"), abs=0.1)
    areas = paths(page, "area")
    assert {y for _, y in areas[0]} == {few[0][1], few[-1][1], many[0][1]}


def test_a_negative_value_stays_inside():
    page = drawn([answer([10, *[-10] * 10], job="sink")])
    [line] = paths(page, "line")
    assert line[-1][1] == pytest.approx(level(page, "0"), abs=0.1)


def test_a_number_is_the_last_that_there_was():
    page = drawn([answer([*[0.5] * 9, 0.975, None])], unit="percentunit", is_number=True)
    [number] = [t.text for t in page.iter(f"{SVG}text") if t.get("class") == "number"]
    assert number == "97.5%"


def test_a_panel_of_nothing_says_so():
    assert "No data" in texts(drawn([]))
    assert "No data" in texts(drawn([answer([None] * 11, job="sink")]))


def test_titles_and_labels_are_text_whatever_is_in_them():
    title, label = 'a < b & "c" \'</text>', "<script>&amp;"
    page = drawn([answer([1] * 11, job=label)], title=title)
    assert title in texts(page)
    assert f"{label}  1" in texts(page)


def test_a_series_without_a_legend_has_the_title():
    assert "Lag  3" in texts(drawn([answer([3] * 11)], legend=""))


def test_a_legend_keeps_inside_its_panel_and_counts_what_it_leaves_out():
    many = [answer([n] * 11, job=f"a-rather-long-name-{n}") for n in range(40)]
    page = drawn([*many, answer([99] * 11, job="x" * 300)])
    [panel] = [r for r in page.iter(f"{SVG}rect") if r.get("class") == "panel"]
    height = float(panel.get("height", ""))
    [group] = page.iter(f"{SVG}g")
    assert all(0 < float(t.get("y", "")) < height for t in group.iter(f"{SVG}text"))
    legend = [text for text in texts(page) if "  " in text]
    assert legend[0].startswith("xxx")
    assert legend[0].endswith("…  99")
    assert max(map(len, legend)) * 6 < WIDTH / 3
    assert f"and {41 - len(legend)} more" in texts(page)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "none", "0"),
        (52_715, "none", "52715"),
        (0.0528, "none", "0.0528"),
        (41.08, "cps", "41.1 c/s"),
        (1_234, "cps", "1.23 K c/s"),
        (0, "s", "0 s"),
        (0.0042, "s", "4.2 ms"),
        (90, "s", "1.5 min"),
        (700 * 2**20, "bytes", "700 MiB"),
        (2_500, "Bps", "2.5 kB/s"),
        (1, "percentunit", "100%"),
    ],
)
def test_values_are_written_as_grafana_writes_them(value, unit, text):
    assert said(value, unit) == text


@pytest.mark.parametrize(
    ("highest", "unit", "labels"),
    [
        (-5, "cps", ["0 c/s", "0.25 c/s", "0.5 c/s", "0.75 c/s", "1 c/s"]),
        (48, "none", ["0", "20", "40", "60"]),
        (1, "percentunit", ["0%", "25%", "50%", "75%", "100%"]),
        (300 * 2**20, "bytes", ["0 B", "100 MiB", "200 MiB", "300 MiB"]),
        (290, "s", ["0 s", "2 min", "4 min", "6 min"]),
        (0.02, "s", ["0 s", "5 ms", "10 ms", "15 ms", "20 ms"]),
    ],
)
def test_an_axis_has_round_numbers_up_to_the_highest_value(highest, unit, labels):
    lines = ticks(highest, unit)
    assert [said(line, unit, lines[1]) for line in lines] == labels
    assert lines[-1] >= highest


def test_where_no_prometheus_answers_it_says_so(tmp_path, monkeypatch, capsys):
    output = tmp_path / "x.svg"
    monkeypatch.setattr("sys.argv", ["picture.py", "http://127.0.0.1:1", str(output)])
    assert command.main() == 1
    assert capsys.readouterr().err.startswith("picture: ")
    assert not output.exists()
