"""The page in a real browser: at phone and desktop width, light and dark, by keyboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from expertise.report import _colours
from expertise.report.videos import write_video_page
from report.browser import Browser, chromium
from report.making import make_decision, make_run, make_use

pytestmark = pytest.mark.slow
SMALLEST_TEXT = 9.0  # CSS pixels


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [
        make_run("LogisticModel", 0.6),
        make_run("LogisticModel + products", 0.9),
        make_run("MoeModel", 0.8),
    ]
    return write_video_page(
        tmp_path_factory.mktemp("page") / "page.html",
        runs,
        make_use(),
        [make_decision(), make_decision(regime="day")],
        about=["What this is about."],
        settings={"a_flag_with_a_very_long_name": "a/very/long/path" * 20},
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_opens_clean_and_fits(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme=scheme)
    assert browser.problems() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("innerWidth") == width  # a page that is wider is zoomed out on a phone
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    wanted = (_colours.LIGHT if scheme == "light" else _colours.DARK)["page"]
    assert colour == f"rgb({', '.join(str(int(wanted[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("width", [390, 1200])
def test_the_text_of_figures_is_readable_and_whole(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    texts = browser.evaluate(
        """[...document.querySelectorAll('.drawing svg text')].map(text => {
            const svg = text.ownerSVGElement;
            const box = text.getBoundingClientRect(), all = svg.getBoundingClientRect();
            const scale = all.width / svg.viewBox.baseVal.width;
            return {text: text.textContent, size: parseFloat(getComputedStyle(text).fontSize) * scale,
                    out: Math.max(all.left - box.left, box.right - all.right,
                                  all.top - box.top, box.bottom - all.bottom)};
        })"""
    )
    assert len(texts) > 50
    assert min(one["size"] for one in texts) >= SMALLEST_TEXT
    assert [one for one in texts if one["out"] > 2] == []


def test_names_and_roles_reach_assistive_technology(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    images = [name for role, name in found if role in ("image", "img")]
    assert len(images) == browser.evaluate("document.querySelectorAll('figure, article img').length") == 8
    assert all(images)
    assert {"main", "navigation", "contentinfo"} <= {role for role, _ in found}
    assert all(name for role, name in found if role in ("region", "link", "heading"))


def test_everything_can_be_reached_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)
    reached = []
    for _ in range(200):
        browser.press("Tab", 9)
        where = browser.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if where[0] == "BODY":
            break
        reached.append(where)
    tags = [tag for tag, _ in reached]
    assert tags[0] == "A"  # skips to the content
    assert tags.count("SUMMARY") == 6
    assert {outline for _, outline in reached} == {"solid"}, "the focus is always seen"


def test_the_data_are_behind_one_key(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    browser.evaluate("document.querySelector('summary').focus()")
    is_open = "document.querySelector('details').open"
    assert browser.evaluate(is_open) is False
    browser.press("Enter", 13)
    assert browser.evaluate(is_open) is True
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_prints(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page, 1200, scheme="dark")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = (
        "[...document.querySelectorAll('details, nav')].every(one => getComputedStyle(one).display == 'none')"
    )
    assert browser.evaluate(hidden)
    browser.call("Emulation.setEmulatedMedia", media="")
