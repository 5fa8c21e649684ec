"""The page of a mixture in a real browser: it fits, can be read and reached, and its panel computes right."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise.report import figures
from expertise.report._mixture_drawing import opacity_of
from expertise.report.mixtures import write_mixture_page
from expertise.report.record import MixtureRecord
from report.browser import Browser, chromium
from report.mixture_making import GATES, LINKS, evaluate, make_record

pytestmark = pytest.mark.slow
SMALLEST_TEXT = {320: 8.0, 390: 9.0, 1200: 11.0}  # CSS pixels
RECORDS: dict[str, dict[str, Any]] = {"numbers": {}, "classes": {"link": "softmax", "v": 6, "k": 8}}

VALUES = """(tried => tried.map(values => {
    const part = document.querySelector('.live[data-live="whatif.js"]');
    const day = seconds => new Date(1000 * seconds).toISOString().slice(0, 10);
    const numbers = row => [...row.cells].filter(cell => "value" in cell.dataset)
        .map(cell => Number(cell.dataset.value));
    const use = (control, name, value) => {
        control[name] = value;
        control.dispatchEvent(new Event("input", {bubbles: true}));
    };
    values.forEach((value, j) => {
        const field = part.querySelector(`fieldset[data-column="${j}"]`);
        const missing = field.querySelector('[data-is="missing"]');
        if (missing && missing.checked !== (value === null)) use(missing, "checked", value === null);
        if (value === null) return;
        const control = field.querySelector('[data-is="value"]');
        if (control.type === "checkbox") use(control, "checked", value !== 0);
        else if (control.type === "date") use(control, "value", day(value));
        else use(control, "value", String(value));
    });
    return [...part.querySelectorAll("tbody tr")].map(numbers);
}))"""

# every visible text with its colour, and the first background behind it that is not transparent
CONTRAST = """(() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = element => {
        for (let one = element; one; one = one.parentElement) {
            const found = numbers(getComputedStyle(one).backgroundColor);
            if (found.length === 3 || found[3] > 0) return found;
        }
        return [255, 255, 255];
    };
    const ratio = (a, b) => {
        const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
        return (x + .05) / (y + .05);
    };
    const unseen = ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || unseen.includes(element.tagName)) continue;
        if (!element.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(element);
        const ink = numbers(element.ownerSVGElement ? style.fill : style.color);
        found.push([ratio(ink, behind(element)), walker.currentNode.textContent.trim().slice(0, 40)]);
    }
    const root = getComputedStyle(document.documentElement);
    const hex = name => {
        const text = root.getPropertyValue(name).trim();
        return [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16));
    };
    const marks = [1, 2, 3, 4, 5, 6, 7, 8].map(k => `--expert-${k}`).concat(["--series-1", "--series-2"]);
    const behindMarks = ["--page", "--panel"];
    return {texts: found, marks: marks.flatMap(name => behindMarks.map(b => ratio(hex(name), hex(b))))};
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def records() -> dict[str, MixtureRecord]:
    return {name: make_record(**options) for name, options in RECORDS.items()}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, records: dict[str, MixtureRecord]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    return {name: write_mixture_page(folder / f"{name}.html", record) for name, record in records.items()}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_opens_clean_and_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page = pages[name]
    browser.open(page, width, scheme=scheme)
    assert browser.problems() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    found = browser.evaluate(CONTRAST)
    assert len(found["texts"]) > 300
    assert [one for one in found["texts"] if one[0] < 4.5] == []
    assert min(found["marks"]) >= 3
    sizes = browser.evaluate(
        """[...document.querySelectorAll('body *')].filter(one => one.checkVisibility()
            && [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
            const svg = one.ownerSVGElement;
            const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
            return parseFloat(getComputedStyle(one).fontSize) * scale;
        })"""
    )
    assert min(sizes) >= SMALLEST_TEXT[width]


@pytest.mark.parametrize("name", RECORDS)
def test_the_text_of_figures_is_whole(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], 390)
    out = browser.evaluate(
        """[...document.querySelectorAll('.drawing svg text')].map(text => {
            const all = text.ownerSVGElement.getBoundingClientRect(), box = text.getBoundingClientRect();
            return [text.textContent, Math.max(all.left - box.left, box.right - all.right,
                                              all.top - box.top, box.bottom - all.bottom)];
        }).filter(one => one[1] > 2)"""
    )
    assert out == []


# ---- what if


@pytest.mark.parametrize(
    ("gate", "link"), [*((gate, "identity") for gate in GATES), *(("softmax", link) for link in LINKS[1:])]
)
def test_the_panel_computes_what_the_formula_says(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str, link: str
) -> None:
    monkeypatch.setattr(figures, "svg_of", lambda draw, height, over=None: "<svg></svg>")
    v = {"logistic": 2, "softmax": 4, "constant classes": 3}.get(link, 0)
    record = make_record(gate, link, k=4, v=v, n=30, n_frames=0)
    page = write_mixture_page(tmp_path / "page.html", record)
    browser.open(page, 1200)
    rng = np.random.default_rng(1)
    tried = [one_input(rng) for _ in range(20)]
    asked = json.dumps([[None if math.isnan(value) else value for value in row] for row in tried])
    answers = browser.evaluate(f"{VALUES}({asked})")
    assert browser.problems() == []
    assert record.formula is not None
    for row, answer in zip(tried, answers, strict=True):
        weights, experts, mixture = evaluate(record.formula, row)
        wanted = [[weight, *np.atleast_1d(said)] for weight, said in zip(weights, experts, strict=True)]
        for shown, right in zip(answer, [*wanted, np.atleast_1d(mixture)], strict=True):
            assert shown == pytest.approx(list(right), rel=1e-6, abs=1e-6)


def one_input(rng: np.random.Generator) -> list[float]:
    """Values inside and outside of what was seen; some are missing."""
    row = [
        round(float(rng.uniform(500, 3500)), 3),
        float(rng.integers(3)),
        float(rng.integers(2)),
        float(rng.integers(-2000, 12000)) * 86400.0,
    ]
    return [math.nan if j != 2 and rng.random() < 0.15 else value for j, value in enumerate(row)]


def test_the_panel_starts_from_rows_of_the_page(
    browser: Browser, pages: dict[str, Path], records: dict[str, MixtureRecord]
) -> None:
    browser.open(pages["numbers"], 1200)
    record = records["numbers"]
    said = """[...document.querySelectorAll('.answer tbody tr')].map(row =>
        [...row.cells].filter(one => "value" in one.dataset).map(one => Number(one.dataset.value)))"""
    assert record.formula is not None
    typical = evaluate(record.formula, [column.typical for column in record.columns])
    assert browser.evaluate(said)[-1] == pytest.approx([typical[2]], rel=1e-6)
    for place, row in enumerate(record.uncertain[:20].tolist(), start=1):
        browser.evaluate(
            f"""(() => {{ const one = document.querySelector('[data-is="start"]'); one.value = {place};
            one.dispatchEvent(new Event("input", {{bubbles: true}})); }})()"""
        )
        shown = browser.evaluate(said)
        assert [one[0] for one in shown[:-1]] == pytest.approx(record.gate[row].tolist(), abs=1e-6)
        assert shown[-1] == pytest.approx([record.prediction[row]], rel=1e-6)


def test_slider_and_number_box_agree_and_the_answer_is_spoken(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["numbers"], 390)
    before = browser.evaluate("document.querySelector('.said').textContent")
    slider = "document.querySelector('fieldset[data-column=\"0\"] input[type=range]')"
    box = "document.querySelector('fieldset[data-column=\"0\"] input[type=number]')"
    browser.evaluate(f"{slider}.focus()")
    browser.press("Home", 36)
    low = float(browser.evaluate(f"{slider}.min"))
    assert float(browser.evaluate(f"{box}.value")) == pytest.approx(low)
    after = browser.evaluate("document.querySelector('.said').textContent")
    assert before != after
    assert re.match(r"The mixture predicts \S+ for mpg \(miles a gallon\): expert \d has the largest", after)
    assert browser.evaluate("document.querySelector('.said').getAttribute('aria-live')") == "polite"
    browser.evaluate(f"{box}.value = '99999'; {box}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert browser.evaluate("document.querySelectorAll('.outside').length") == 1


def test_a_long_name_does_not_widen_the_page(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["numbers"], 390)
    browser.evaluate("document.querySelector('legend').textContent = 'a_very_long_name_'.repeat(12)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


# ---- the slider of iterations

POINTS = """[...document.querySelectorAll('.live .points use')].map(one =>
    [one.getAttribute("href").replace(/^#f\\d+/, ""), Number(getComputedStyle(one).fillOpacity)])"""


def drawn_points(weights: np.ndarray) -> list[list[Any]]:
    marks = np.array(["circle", "square", "diamond"])[weights.argmax(1)]
    return [list(one) for one in zip(marks.tolist(), opacity_of(weights.max(1)).tolist(), strict=True)]


def test_the_slider_moves_by_keyboard_and_ends_at_the_fitted_mixture(
    browser: Browser, pages: dict[str, Path], records: dict[str, MixtureRecord]
) -> None:
    record = records["numbers"]
    known = [record.columns[j].values[record.shown] for j in (0, 3)]
    there = np.flatnonzero(np.isfinite(known).all(0))
    browser.open(pages["numbers"], 390)
    last = len(record.frames) - 1
    browser.evaluate("document.querySelector('.play input').focus()")
    keys = [("Home", 36, 0), ("ArrowRight", 39, 1), ("End", 35, last), ("ArrowLeft", 37, last - 1)]
    bars = "[...document.querySelectorAll('.bars .figure')].map(one => Number(one.textContent))"
    for key, code, frame in keys:
        browser.press(key, code)
        assert browser.evaluate("Number(document.querySelector('.play input').value)") == frame
        shown = record.frames[frame]
        iteration = browser.evaluate("document.querySelector('[data-is=\"iteration\"]').textContent")
        assert iteration == str(shown.iteration)
        same_points(browser.evaluate(POINTS), drawn_points(shown.weights[there]))
        errors = browser.evaluate(bars)
        assert errors == pytest.approx(shown.errors.tolist(), abs=5.1e-4)
    browser.press("End", 35)
    same_points(browser.evaluate(POINTS), drawn_points(record.gate[record.shown[there]]))


def same_points(found: list[list[Any]], wanted: list[list[Any]]) -> None:
    assert [one[0] for one in found] == [one[0] for one in wanted]
    assert [one[1] for one in found] == pytest.approx([one[1] for one in wanted], abs=6e-3)


def test_playing_begins_anew_and_stops_at_the_end(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["numbers"], 1200)
    browser.evaluate("document.querySelector('.play button').click()")
    assert browser.evaluate("document.querySelector('.play input').value") == "0"
    assert browser.evaluate("document.querySelector('.play button').textContent") == "Pause"
    ended = """new Promise(done => {
        const wait = () => document.querySelector('.play button').textContent === "Play"
            ? done(document.querySelector('.play input').value) : setTimeout(wait, 50);
        wait(); })"""
    assert browser.evaluate(ended) == "5"


def test_who_wants_no_motion_gets_none(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["numbers"], 1200)
    assert browser.evaluate("document.querySelector('.play button').checkVisibility()")
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}]
    )
    hidden = """new Promise(done => setTimeout(
        () => done(!document.querySelector('.play button').checkVisibility()), 100))"""
    assert browser.evaluate(hidden)
    assert browser.evaluate("document.querySelector('.play input').checkVisibility()")


def test_without_scripts_the_fitted_mixture_stands_there(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """The scripts are taken out of the file: what is left must be right and say what is missing."""
    html = re.sub(r"<script>.*?</script>", "", pages["numbers"].read_text(), flags=re.DOTALL)
    page = tmp_path / "still.html"
    page.write_text(html)
    browser.open(page, 390)
    points = browser.evaluate(POINTS)
    browser.open(pages["numbers"], 390)
    assert points == browser.evaluate(POINTS)
    assert html.count("<noscript>") == 2
    browser.open(page, 390)
    assert not browser.evaluate("document.querySelector('.play').checkVisibility()")
    assert not browser.evaluate("document.querySelector('.whatif').checkVisibility()")


# ---- reaching and printing


def test_everything_can_be_reached_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["numbers"], 1200)
    count = browser.evaluate(
        """(() => { const all = [...document.querySelectorAll(
            'a[href], button, input, select, summary, [tabindex="0"]')].filter(one => one.checkVisibility());
            all.forEach((one, i) => { one.dataset.stop = i; }); return all.length; })()"""
    )
    reached, outlines = set(), set()
    for _ in range(3 * count):
        browser.press("Tab", 9)
        stop, outline, tag = browser.evaluate(
            """(one => [one.dataset.stop ?? "", getComputedStyle(one).outlineStyle, one.tagName])(
                document.activeElement)"""
        )
        if tag == "BODY":
            break
        reached.add(stop)
        outlines.add(outline)
    assert reached == {str(i) for i in range(count)}
    assert outlines == {"solid"}, "the focus is always seen"


def test_names_and_roles_reach_assistive_technology(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["numbers"], 1200)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    named = ("image", "region", "link", "heading", "slider", "spinbutton", "combobox", "checkbox", "button")
    roles = {role for role, _ in found}
    assert {"main", "navigation", "slider", "spinbutton", "combobox", "checkbox", "button"} <= roles
    assert [one for one in found if one[0] in named and not one[1]] == []


def test_it_prints(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["numbers"], 1200, scheme="dark")
    browser.pdf(tmp_path / "page.pdf")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 25
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for unwanted in ("nav", "details", ".play", ".whatif form"):
        assert not browser.evaluate(f"document.querySelector('{unwanted}').checkVisibility()")
    assert browser.evaluate("document.querySelector('.answer').checkVisibility()")
    browser.call("Emulation.setEmulatedMedia", media="")
