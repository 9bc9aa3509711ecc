"""The report in a real browser: no errors, nothing asked of the network, controls that work, dark, print.

Needs the extra `browser` and a Chromium on the path; skipped where either is missing.
"""

import shutil

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.report import Sources, write
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser` (playwright)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
]
ARMS = {"bn": Arm(), "fast": Arm(speed=1.5), "control": Arm(speed=1.2), "div": Arm(diverges_at=900)}
SHOWN = "chart => CHARTS[chart].plot.data.map(trace => trace.name)"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    grid = SimulatedGrid(ARMS, seeds=range(4), controls={"fast": ["control"]})
    write_runs(grid.records(), folder)
    return write(Sources(Comparison(load_grid_runs(grid, folder))), folder / "report.html")


@pytest.fixture
def page(browser, report):
    """The report, opened from disk in the light theme, its first chart drawn; whatever goes wrong fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("request", lambda request: request.url.startswith("http") and wrong.append(request.url))
    page.goto(report.as_uri())
    page.locator("#convergence").scroll_into_view_if_needed()
    page.wait_for_function("CHARTS[0].plot.data")
    yield page
    context.close()
    assert not wrong


def settle(page):
    page.wait_for_timeout(50)
    page.wait_for_function("drawing === null")


def choose(page, chart, control, value):
    page.locator(f"#{chart} select[name={control}]").select_option(value)
    settle(page)


def test_charts_draw_when_they_come_into_view(page):
    assert page.evaluate("CHARTS.length") == 3
    for name in ("thresholds", "survival"):
        page.locator(f"#{name} .chart").scroll_into_view_if_needed()
        page.wait_for_function(f"document.querySelector('#{name} .plotly-chart').data")
        assert page.locator(f"#{name} .main-svg").count() > 0
    assert "Nothing was recorded" in page.locator("#layers").inner_text()


def test_an_arm_goes_and_comes_back(page):
    assert {"bn", "fast", "fast band", "control", "div", "div cut"} <= set(page.evaluate(SHOWN, 0))
    page.get_by_role("checkbox", name="fast").uncheck()
    settle(page)
    assert not {"fast", "fast band"} & set(page.evaluate(SHOWN, 0))
    assert page.locator("#convergence .legend button").all_inner_texts() == ["bn", "control", "div"]
    page.get_by_role("checkbox", name="fast").check()
    settle(page)
    assert "fast" in page.evaluate(SHOWN, 0)
    page.locator("#convergence .legend button", has_text="div").click()
    settle(page)
    assert "div" not in page.evaluate(SHOWN, 0)
    assert not page.get_by_role("checkbox", name="div").is_checked()


def test_filter_all_none_only_and_without_controls(page):
    page.locator("[data-arms=none]").click()
    settle(page)
    assert page.evaluate(SHOWN, 0) == []
    page.get_by_label("Only fast").focus()
    page.keyboard.press("Enter")
    settle(page)
    assert {"bn", "fast"} == {name.removesuffix(" band") for name in page.evaluate(SHOWN, 0)}
    page.locator("#arm-filter").fill("CONT")
    assert page.locator("#arm-list li:visible").all_inner_texts() == ["control\nonly"]
    page.locator("[data-arms=all]").click()
    assert "3 of 4 shown" in page.locator("#arms-hint").inner_text()
    page.locator("#arm-filter").fill("")
    page.locator("[data-arms=own]").click()
    settle(page)
    assert "control" not in page.evaluate(SHOWN, 0)


def test_axes_measures_and_differences(page):
    last = "() => { const t = CHARTS[0].plot.data.find(t => t.name === 'bn'); return t.x.at(-1); }"
    for axis, end in (("updates", 2000), ("epochs", 20), ("images", 256_000), ("seconds", 20)):
        choose(page, "convergence", "axis", axis)
        assert page.evaluate(last) == pytest.approx(end)
    choose(page, "convergence", "axis", "updates")
    choose(page, "convergence", "scale", "linear")
    assert page.evaluate("CHARTS[0].plot.layout.xaxis.type") == "linear"
    choose(page, "convergence", "view", "difference")
    assert "bn" not in page.evaluate(SHOWN, 0)
    mean = page.evaluate("() => [CHARTS[0].plot.data.find(t => t.name === 'fast').y, DATA]")
    wanted = mean[1]["settings"][0]["differences"]["updates"]["val_accuracy"]["fast"]["mean"]
    assert mean[0] == pytest.approx([100 * value for value in wanted])
    choose(page, "convergence", "measure", "val_loss")  # a loss has no difference view: back to the mean
    assert page.evaluate("CHARTS[0].plot.layout.yaxis.type") == "log"
    assert page.locator("#convergence select[name=view]").input_value() == "value"


def test_hover_tells_the_values(page):
    plot = page.locator("#convergence .plotly-chart")
    plot.hover(position={"x": 400, "y": 200})
    page.wait_for_selector("#convergence .hoverlayer .legendtext, #convergence .hoverlayer .hovertext")
    text = page.locator("#convergence .hoverlayer").text_content()
    assert "n = 4" in text
    assert "updates" in text


def test_no_button_uploads_a_chart(page):
    titles = page.locator("#convergence .modebar-btn").evaluate_all(
        "all => all.map(one => one.dataset.title)"
    )
    assert sorted(titles) == ["Download plot", "Pan", "Reset axes", "Zoom", "Zoom in", "Zoom out"]


def test_tables_sort_and_return(page):
    table = page.locator("table.sortable").nth(1)
    names = "table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent)"
    before = table.evaluate(names)
    head = table.locator("thead button").nth(1)
    head.click()
    values = table.evaluate(
        "table => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent))"
    )
    known = [value for value in values if value == value]
    assert known == sorted(known, reverse=True)
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "descending"
    head.click()
    head.click()
    assert table.evaluate(names) == before


def test_dark_recolors_page_and_charts(page):
    line = "CHARTS[0].plot.data.find(trace => trace.name === 'fast').line.color"
    colors = f"() => [getComputedStyle(document.body).backgroundColor, {line}]"
    light = page.evaluate(colors)
    page.locator("#theme").click()
    settle(page)
    dark = page.evaluate(colors)
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_it_prints_light_with_every_chart(page):
    page.locator("#theme").click()
    settle(page)
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    assert page.evaluate("CHARTS.every(chart => chart.plot.data)")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"  # given back afterwards


def test_a_narrow_screen_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not page.locator("#arm-list").is_visible()
    page.locator("#menu").click()
    assert page.locator("#arm-list").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#arm-list").is_visible()
