"""The page of a fitted mixture says what its record says, whatever that is, and asks nobody."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise.report import _mixture_coefficients, _mixture_experts, _mixture_gate, _mixture_trust, figures
from expertise.report.mixtures import mixture_page, write_mixture_page
from expertise.report.page import Figure, Live, Page, Prose, Table, render
from expertise.report.record import Coefficients, Column, GateMap, MixtureRecord, Profile, Score
from report.mixture_making import EVIL, GATES, evaluate, make_record

RECORD = make_record()
CLASSES = make_record(link="softmax", v=6, k=2, seed=1)
SECTIONS = [
    "What was fitted, and how well",
    "Who decides where",
    "The experts",
    "Coefficients",
    "Can the numbers be trusted?",
    "How it was found",
    "What if?",
    "The most uncertain rows",
]


class Tags(HTMLParser):
    """Elements with their attributes, and the text that is no script and no style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._in = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data


def blocks(page: Page, section: int, kind: type) -> list[Any]:
    return [block for block in page.sections[section].blocks if isinstance(block, kind)]


def titles(page: Page, section: int) -> list[str]:
    return [block.title for block in page.sections[section].blocks if isinstance(block, Figure | Live)]


def prose(page: Page, section: int) -> str:
    return " ".join(text for block in blocks(page, section, Prose) for text in block.paragraphs)


def live(page: Page, script: str) -> Live:
    return next(b for s in page.sections for b in s.blocks if isinstance(b, Live) and b.script == script)


@pytest.fixture(scope="module")
def drawn() -> Page:
    return mixture_page(RECORD)


@pytest.fixture(scope="module")
def html(drawn: Page) -> str:
    return render(drawn)


@pytest.fixture(autouse=True)
def _words_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nearly all of a page's time: tests that look at words and data alone do without."""
    slow = request.node.get_closest_marker("slow") is not None
    if "drawn" not in request.fixturenames and not slow:
        monkeypatch.setattr(figures, "svg_of", lambda draw, height, over=None: "<svg></svg>")


# ---- the file


def test_sections_stand_in_order() -> None:
    assert [section.title for section in mixture_page(RECORD).sections] == SECTIONS
    assert [section.title for section in mixture_page(CLASSES).sections] == SECTIONS


def test_only_the_scripts_of_the_page_may_run(html: str) -> None:
    policy = next(a["content"] for t, a in Tags(html).found if a.get("http-equiv"))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    wanted = " ".join(f"'sha256-{one}'" for one in hashes)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {wanted}"
    assert not [name for _, a in Tags(html).found for name in a if name.startswith("on")]


def test_a_page_without_live_parts_may_run_nothing() -> None:
    html = render(mixture_page(replace(RECORD, frames=(), formula=None)))
    assert "<script" not in html
    assert "script-src" not in html
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html


def test_names_from_data_stay_text_and_data(html: str) -> None:
    page = Tags(html)
    assert page.text.count(EVIL) >= 8
    assert "b" not in {tag for tag, a in page.found if tag == "b" and "data-is" not in a}
    data = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(data) == 2
    assert not any("<" in one for one in data)
    levels = [c["levels"] for one in data for c in json.loads(one).get("formula", {}).get("columns", [])]
    assert EVIL in levels[1]


def test_the_page_asks_nobody(html: str) -> None:
    for tag, attributes in Tags(html).found:
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttp|import\(", html)


def test_ids_are_unique_and_references_have_targets(html: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', html)
    assert set(used) <= set(ids)


def test_every_figure_has_words_and_its_data(html: str, drawn: Page) -> None:
    found = Tags(html).found
    drawings = [a for _, a in found if a.get("role") == "img"]
    assert len(drawings) == [tag for tag, _ in found].count("figure") > 8
    assert all(a["aria-label"] for a in drawings)
    for section in drawn.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                assert block.table.rows, block.title
                assert block.alt.startswith(block.title)


def test_every_control_has_a_name(html: str) -> None:
    outside = re.sub(r"<label>.*?</label>", "", html, flags=re.DOTALL)
    for tag, attributes in Tags(outside).found:
        if tag in ("input", "select"):
            assert attributes.get("aria-label"), attributes


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert write_mixture_page(path, RECORD) == path
    before = path.read_bytes()
    with pytest.raises(ValueError, match="row_names must name the 120 rows of gate; got 0"):
        write_mixture_page(path, replace(RECORD, row_names=()))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_same_record_gives_the_same_bytes(html: str) -> None:
    assert render(mixture_page(make_record())) == html


def test_every_point_is_drawn_with_the_mark_of_its_expert(drawn: Page) -> None:
    part = live(drawn, "slider.js")
    assert part.figure is not None
    points = re.findall(r'<use href="#\w+?(circle|square|diamond)"', part.figure.svg)
    weights = np.array(part.data["weights"][-1]).reshape(-1, 3)
    assert points == [("circle", "square", "diamond")[k] for k in weights.argmax(1)]


@pytest.mark.slow
def test_two_thousand_rows_are_under_a_megabyte_and_a_half(tmp_path: Path) -> None:
    for name, options in {"a": {}, "b": {"link": "softmax", "v": 6}}.items():
        record = make_record(k=8, n=2000, n_frames=60, **options)  # type: ignore[arg-type]
        path = write_mixture_page(tmp_path / f"{name}.html", record)
        assert path.stat().st_size < 1_500_000


# ---- what it says


@pytest.mark.parametrize("helps", [True, False, None])
def test_the_verdict_is_said_also_where_the_mixture_loses(helps: bool | None) -> None:
    page = mixture_page(replace(RECORD, helps=helps, verdict="So it is."))
    assert page.lead == "So it is."
    assert page.tiles[0].value == {True: "yes", False: "no", None: "not compared"}[helps]
    said = prose(page, 0)
    assert ("Use the simpler model" in said) == (helps is False)
    assert ("cannot say whether the mixture helps" in said) == (helps is None)


def test_the_best_score_is_marked_in_its_direction() -> None:
    scores = (
        Score("mixture", {"RMSE": 2.0, "R2": 0.5, "coverage": 0.9}, is_mixture=True),
        Score("ridge", {"RMSE": 1.0, "R2": 0.5, "coverage": 0.8}),
        Score("boosting", {"RMSE": 3.0, "R2": None, "coverage": float("nan")}),
    )
    page = mixture_page(replace(RECORD, scores=scores))
    table = blocks(page, 0, Table)[0]
    assert [[cell.strong for cell in row[1:]] for row in table.cells] == [
        [False, True, False],
        [True, True, False],
        [False, False, False],
    ]
    assert page.tiles[0].note == "RMSE of the best other, ridge: 1"


def test_warnings_are_repeated() -> None:
    assert blocks(mixture_page(RECORD), 0, Prose)[-1].points == RECORD.warnings


NUMBER = Column("weight", "number", (), np.zeros(1), 0.0, 1.0, 1.0)
CATEGORY = Column("origin", "category", ("Europe", "Asia"), np.zeros(1), 0.0, 1.0, 1.0)
DATE = Column("built", "date", (), np.zeros(1), 0.0, 1.0, 1.0)


def profile(*weights: float, at: list[float] | None = None) -> Profile:
    gate = np.column_stack([weights, 1 - np.array(weights)])
    places = np.arange(float(len(gate))) if at is None else np.array(at)
    return Profile(0, places, gate, gate, gate[:, 0])


@pytest.mark.parametrize(
    ("weights", "title"),
    [
        ((0.9, 0.8, 0.1), "Expert 1 takes over from expert 0 near weight 1.5"),
        ((0.1, 0.8, 0.9), "Expert 0 takes over from expert 1 near weight 0.5"),
        ((0.9, 0.6), "Expert 0 leads whatever weight is; its mean weight goes from 0.90 to 0.60"),
        ((0.9, 0.1, 0.9), "The lead changes 2 times along weight: experts 0, 1, 0"),
        ((0.51, 0.49, 0.51, 0.49), "weight alone hardly moves the gate: no mean weight changes by 0.05"),
    ],
)
def test_the_title_of_a_profile_is_its_finding(weights: tuple[float, ...], title: str) -> None:
    figure = _mixture_gate.profile(NUMBER, profile(*weights))
    assert figure.title == title
    assert [row[1].value for row in figure.table.cells] == list(weights)


def test_levels_and_dates_are_named() -> None:
    title = _mixture_gate.profile(CATEGORY, profile(0.9, 0.2)).title
    assert title == "By origin: expert 0 leads at Europe, expert 1 at Asia"
    title = _mixture_gate.profile(CATEGORY, profile(0.9, 0.7)).title
    assert title == "Expert 0 leads whatever origin is; its mean weight goes from 0.70 to 0.90"
    title = _mixture_gate.profile(CATEGORY, profile(0.51, 0.49)).title
    assert title == "origin alone hardly moves the gate: no mean weight changes by 0.05"
    days = _mixture_gate.profile(DATE, profile(0.9, 0.2, at=[0.0, 86400.0 * 365]))
    assert days.title == "Expert 1 takes over from expert 0 by built 1971-01-01"
    assert [row[0].text for row in days.table.cells] == ["1970-01-01", "1971-01-01"]


def test_the_map_says_who_leads_where() -> None:
    gate = np.zeros((4, 4, 2))
    gate[..., 0] = np.array([0.9, 0.9, 0.6, 0.1])
    gate[..., 1] = 1 - gate[..., 0]
    found = GateMap(0, 1, np.arange(4.0), np.arange(4.0), gate)
    title = _mixture_gate.map_title(found, NUMBER, DATE)
    assert (
        title == "Expert 0 leads in 75 % of the map of weight and built, expert 1 in 25 %; 25 % is contested"
    )
    gate[...] = [0.95, 0.05]
    title = _mixture_gate.map_title(found, NUMBER, DATE)
    assert title == "Expert 0 leads in all of the map of weight and built; 0 % is contested"


def test_the_map_is_drawn_in_the_colours_of_those_who_lead(drawn: Page) -> None:
    figure = blocks(drawn, 1, Figure)[0]
    assert RECORD.gate_map is not None
    leaders = set(RECORD.gate_map.gate.argmax(-1).ravel().tolist())
    cells = figure.svg.split('shape-rendering="crispEdges">')[1].split("</g>")[0]
    assert {int(k) - 1 for k in re.findall(r"var\(--expert-(\d)\)", cells)} == leaders
    assert {int(k) for k in re.findall(r">(\d)</text>", figure.svg.split("crispEdges")[1])} == leaders


def test_specialists_are_told_from_others() -> None:
    lead = np.array([0, 0, 1, 1])
    found = _mixture_experts.matrix(np.array([[1.0, 10.0], [1.0, 10.0], [8.0, 2.0], [8.0, 2.0]]), lead)
    assert found.tolist() == [[1, 8], [10, 2]]
    assert _mixture_experts.ratio(found, lead) == pytest.approx(3 / 18)
    # a regime of one row hardly counts
    assert _mixture_experts.ratio(found, np.array([0] * 99 + [1])) == pytest.approx(101 / 998)
    y, gate = np.arange(120.0), np.tile([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], (40, 1))
    alike = replace(RECORD, experts=np.tile(y[:, None] + 1, 3), y=y, gate=gate, frames=())
    assert "by their errors they are not specialists" in prose(mixture_page(alike), 2)


def test_a_regime_without_rows_is_a_dash() -> None:
    gate = np.tile([0.7, 0.2, 0.1], (120, 1))
    tables = blocks(mixture_page(replace(RECORD, gate=gate, frames=())), 2, Table)
    assert [cell.text for cell in tables[1].cells[0][2:]] == ["–", "–"]
    assert "regime 1 (0 rows)" in tables[1].columns


def test_coefficients_of_opposite_sign_are_found() -> None:
    names, values = ("intercept", "a", "b"), np.array([[5.0, -5.0], [1.0, -1.0], [1.0, -1.0]])
    rows = np.array([1, 2])
    errors = np.array([[1.0, 1.0], [0.1, 0.1], [0.1, 9.0]])
    title = _mixture_coefficients.title(Coefficients("experts", names, values, errors), rows)
    assert title == "Experts: coefficients of clearly opposite sign for a"
    title = _mixture_coefficients.title(Coefficients("gate", names, values, 9 * errors[::-1]), rows)
    assert title == "Gate: 0 of 4 coefficients are clearly not 0"
    title = _mixture_coefficients.title(Coefficients("gate", names, values, np.full((3, 2), np.nan)), rows)
    assert title == "Gate: signs differ for 2 of 2 inputs (no standard errors)"


def test_the_expert_that_a_gate_compares_with_is_no_finding() -> None:
    values = np.array([[1.0, 2.0, 0.0], [1.0, -1.0, 0.0]])
    errors = np.array([[np.nan, np.nan, 0.0], [np.nan, np.nan, 0.0]])
    one = Coefficients("gate", ("intercept", "a"), values, errors, "log odds")
    assert _mixture_coefficients.title(one, np.array([1])).endswith(
        "signs differ for 1 of 1 inputs (no standard errors)"
    )
    page = mixture_page(replace(RECORD, coefficients=(one,)))
    assert "There are no standard errors for this part (gate)" in prose(page, 3)


def test_missing_standard_errors_are_said() -> None:
    page = mixture_page(RECORD)
    assert "There are no standard errors for expert 2 (experts)" in prose(page, 3)
    assert [cell.text for cell in blocks(page, 3, Table)[0].cells[1]][-1] == "–"
    assert "no coefficients" in prose(mixture_page(replace(RECORD, coefficients=())), 3)


@pytest.mark.parametrize(
    ("cdf", "said"),
    [
        ((np.arange(200) + 0.5) / 200, "shows no fault"),
        (np.concatenate([np.full(100, 0.02), np.full(100, 0.98)]), "too narrow"),
        (np.full(200, 0.5), "too wide"),
        (np.linspace(0.4, 1, 200), "Observed values are higher than foretold"),
        (np.linspace(0, 0.6, 200), "Observed values are lower than foretold"),
    ],
)
def test_the_distribution_is_judged(cdf: np.ndarray, said: str) -> None:
    assert said in _mixture_trust.pit(cdf).title


def test_uniform_probabilities_are_seldom_called_faulty() -> None:
    """Two tests of two standard errors: under a tenth of right distributions is blamed."""
    rng = np.random.default_rng(0)
    blamed = sum("no fault" not in _mixture_trust.pit_title(rng.random(300)) for _ in range(1000))
    assert 50 < blamed < 120


def test_coverage_names_too_few_and_too_many() -> None:
    for found, word in ((0.9, "as they should"), (0.7, "too few"), (1.0, "too many")):
        record = replace(RECORD, coverage=np.array([[0.5, 0.5], [0.9, found]]))
        assert titles(mixture_page(record), 4)[0].endswith(word)


def test_calibration_of_classes() -> None:
    prediction = np.tile([0.75, 0.25], (100, 1))
    y = (np.arange(100) < 45).astype(float)
    record = make_record(link="logistic", v=2, n=100)
    figure = _mixture_trust.reliability(replace(record, prediction=prediction, y=y), y)
    assert figure.title == "Stated probabilities are off by 20.0 points on average, and too low by 20.0"
    assert "Expected calibration error 0.200" in figure.note
    assert [[cell.value for cell in row] for row in figure.table.cells] == [[0.25, 0.45, 100]]


def test_starts_are_counted() -> None:
    assert titles(mixture_page(RECORD), 5)[:2] == [
        "1 of 2 continued starts reach the best objective within 1 nat; 1 of 5 starts are degenerate",
        "19 iterations gain 99.89 nats, 99 % of it in the first 13",
    ]
    table = blocks(mixture_page(RECORD), 5, Figure)[0].table
    assert [row[3].value for row in table.cells] == ["continued"] * 2 + ["screened only"] * 2 + ["degenerate"]
    assert table.cells[4][5].value == "expert 1: has one row"


def test_the_last_frame_is_the_fitted_mixture() -> None:
    data = live(mixture_page(RECORD), "slider.js").data
    columns = [RECORD.columns[j].values[RECORD.shown] for j in (0, 3)]
    there = RECORD.shown[np.isfinite(columns).all(0)]
    assert np.abs(np.array(data["weights"][-1]) / 1e4 - RECORD.gate[there].ravel()).max() <= 5e-5
    wrong = replace(RECORD, frames=RECORD.frames[:-1])
    with pytest.raises(ValueError, match="the last of frames must be the fitted mixture"):
        mixture_page(wrong)


def test_many_frames_are_thinned_with_both_ends() -> None:
    record = make_record(n_frames=200)
    data = live(mixture_page(record), "slider.js").data
    assert len(data["iterations"]) <= 40
    assert (data["iterations"][0], data["iterations"][-1]) == (0, record.frames[-1].iteration)


def test_uncertain_rows_are_listed_in_order() -> None:
    table = blocks(mixture_page(RECORD), 7, Table)[0]
    assert table.tall
    assert len(table.rows) == 100
    assert [row[0].value for row in table.cells][:3] == [RECORD.row_names[i] for i in RECORD.uncertain[:3]]
    first = RECORD.uncertain[0]
    assert [cell.value for cell in table.cells[0][2:5]] == RECORD.gate[first].tolist()


def test_names_of_many_levels_stay_apart_and_the_rest_is_said() -> None:
    levels = tuple(f"district number {i} of the county" for i in range(40))
    values = np.repeat(np.arange(40.0), np.arange(1, 41))
    column = Column("district", "category", levels, values, 0.0, 1.0, 1.0)
    weights = np.full(40, 0.9)
    figure = _mixture_gate.profile(column, profile(*weights))
    assert [row[0].value for row in figure.table.cells] == list(levels[16:])  # those that most rows have
    assert figure.note.endswith("The 24 most frequent of 40 levels.")
    names = figures.brief(levels, figures.MAX_NAME)
    assert len(set(names)) == 40
    assert names[7] == "…7 of the county"


# ---- records of every kind


def reduced(record: MixtureRecord) -> dict[str, MixtureRecord]:
    nothing = replace(
        record, y=None, responsibilities=None, cdf=None, coverage=None, scores=(), verdict="", helps=None
    )
    return {
        "no y": nothing,
        "no y, no map": replace(nothing, gate_map=None),
        "no frames": replace(record, frames=(), shown=np.zeros(0, np.intp)),
        "no map": replace(record, gate_map=None),
        "no intervals": replace(record, intervals=None, cdf=None, coverage=None),
        "nothing recorded": replace(record, frames=(), starts=(), history=np.zeros(0), coefficients=()),
        "no profiles": replace(record, profiles=(), gate_map=None),
        "no formula": replace(record, formula=None),
        "one row": replace(record, uncertain=record.uncertain[:1]),
    }


def check_words(page: Page) -> str:
    text = Tags(render(page)).text
    assert not {"nan", "None", "inf"} & set(re.findall(r"\w+", text))
    return text


@pytest.mark.parametrize("name", reduced(RECORD))
@pytest.mark.parametrize("record", [RECORD, CLASSES], ids=["numbers", "classes"])
def test_a_record_may_lack_parts(record: MixtureRecord, name: str) -> None:
    page = mixture_page(reduced(record)[name])
    assert [section.title for section in page.sections] == SECTIONS
    assert all(section.blocks or place == 0 for place, section in enumerate(page.sections))
    check_words(page)


@pytest.mark.slow
@pytest.mark.parametrize("name", reduced(RECORD))
def test_a_record_that_lacks_parts_is_drawn(name: str) -> None:
    for record in (RECORD, CLASSES):
        check_words(mixture_page(reduced(record)[name]))


OPTIONS: list[dict[str, Any]] = [
    {"k": 1},
    {"k": 8},
    {"k": 8, "link": "softmax", "v": 6},
    {"link": "logistic", "v": 2},
    {"link": "exp", "missing": False},
    {"link": "constant", "gate": "constant"},
    {"gate": "tree", "link": "constant classes", "v": 3},
    {"gate": "gaussian", "n": 7},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_mixture_of_any_kind_has_a_page(options: dict[str, Any]) -> None:
    page = mixture_page(make_record(**options))
    text = check_words(page)
    assert all(f"expert {k}" in text for k in range(options.get("k", 3)))
    if options.get("gate") == "constant":
        assert "The gate sees nothing" in prose(page, 1)
    if options.get("k") == 1:
        assert "There is one expert" in prose(page, 1)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_mixture_of_any_kind_is_drawn(options: dict[str, Any]) -> None:
    check_words(mixture_page(make_record(**options)))


def test_why_there_is_no_panel() -> None:
    assert "no formula that a page could compute" in prose(mixture_page(replace(RECORD, formula=None)), 6)


# ---- records that contradict themselves


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": np.ones((120, 3))}, "gate must have weights that sum to 1 in every row"),
        ({"gate": np.ones(3)}, r"gate must have the shape (n, K) with at least one row; got (3,)"),
        ({"experts": np.ones((120, 2))}, "experts must have the shape (120, 3); got (120, 2)"),
        ({"y": np.ones(4)}, "y must have the shape (120,); got (4,)"),
        ({"classes": ("a", "b")}, "got task 'regression' and 2 classes"),
        ({"uncertain": np.array([3, 120])}, "uncertain must be numbers of rows from 0 to 119; got 3 to 120"),
        ({"columns": RECORD.columns[:2]}, "profiles must be of columns 0 to 1; got column 2"),
        ({"columns": RECORD.columns[::-1]}, "columns of formula must be the columns of the record, in order"),
        ({"shown": np.arange(3)}, "weights of the frame of iteration 0 must have the shape (3, 3)"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mixture_page(replace(RECORD, **changes))


# ---- the twin


@pytest.mark.parametrize("gate", GATES)
def test_the_twin_mixes_what_the_experts_say(gate: str) -> None:
    record = make_record(gate, "softmax", k=4, v=3, n=20)
    assert record.formula is not None
    for i in range(20):
        weights, experts, said = evaluate(record.formula, [float(c.values[i]) for c in record.columns])
        assert weights.sum() == pytest.approx(1)
        assert said.sum() == pytest.approx(1)
        assert said == pytest.approx(weights @ experts)


def test_the_twin_by_hand() -> None:
    formula = {
        "columns": [
            {
                "kind": "number",
                "missing_level": None,
                "features": [{"kind": "value", "fill": 2.0}, {"kind": "missing"}],
            }
        ],
        "gate_columns": [1],
        "expert_columns": [0],
        "gate": {"kind": "softmax", "beta": [[0.0, 0.0], [math.log(3), 0.0]]},
        "experts": [{"link": "identity", "beta": [[1.0], [2.0]]}, {"link": "constant", "values": 1.0}],
        "classes": 0,
    }
    gate, experts, said = evaluate(formula, [math.nan])
    assert gate == pytest.approx([0.75, 0.25])
    assert experts.tolist() == [5.0, 1.0]
    assert said == pytest.approx(4.0)
    assert evaluate(formula, [3.0])[2] == pytest.approx(4.0)  # (7 + 1) / 2


# -- what a stranger misread


def test_tiles_speak_of_the_metric_of_the_verdict() -> None:
    scores = (
        Score("mixture", {"accuracy": 0.9, "log loss": 0.3}, True),
        Score("one expert", {"accuracy": 0.8, "log loss": 0.2}),
        Score("gradient boosting", {"accuracy": 0.95, "log loss": 0.4}),
    )
    said = replace(CLASSES, scores=scores, verdict="The mixture does not help: log loss 0.3 ...", helps=False)
    helps, error, *_ = mixture_page(said).tiles
    assert helps.note == "log loss of the best other, one expert: 0.2"
    assert (error.name, error.value) == ("Log loss", "0.3")
    assert helps.value == "no"
    assert mixture_page(replace(said, helps=True)).tiles[0].value == "over one expert"  # it is not the best
    helps, error, *_ = mixture_page(replace(said, verdict="It depends.")).tiles
    assert helps.note == "accuracy of the best other, gradient boosting: 0.95"
    assert error.name == "Accuracy"


def test_scores_of_other_rows_say_so(drawn: Page) -> None:
    other = mixture_page(replace(RECORD, measured="held-out rows of old.csv", caution="Beware of these."))
    assert blocks(other, 0, Table)[0].caption.startswith("On held-out rows of old.csv.")
    assert blocks(drawn, 0, Table)[0].caption.startswith(f"On {RECORD.source}.")
    assert prose(other, 4).startswith("Beware of these.")


def test_one_regime_shows_no_specialists() -> None:
    gate = np.tile([0.2, 0.7, 0.1], (len(RECORD.gate), 1))
    said = prose(mixture_page(replace(RECORD, gate=gate, frames=())), 2)
    assert "Expert 1 leads every row here: with one regime, no specialist can be seen." in said
    assert "specialists" not in said


def test_an_input_that_hardly_moves_the_gate_is_named_and_not_drawn() -> None:
    flat = tuple(replace(p, gate=np.tile([0.5, 0.3, 0.2], (len(p.at), 1))) for p in RECORD.profiles)
    page = mixture_page(replace(RECORD, profiles=flat, gate_map=None))
    assert titles(page, 1) == []
    assert "move no mean weight by 0.005: " in prose(page, 1)


def test_the_clearest_fault_of_the_distribution_is_named() -> None:
    middle = np.clip(np.random.default_rng(0).normal(0.53, 0.15, 400), 0, 1)  # a little high, far too wide
    assert _mixture_trust.pit_title(middle).startswith("The distribution is too wide")
    assert _mixture_trust.pit_title(np.linspace(0.2, 1, 400)).startswith("Observed values are higher")


def test_names_that_differ_at_their_end_stay_apart() -> None:
    names = ["Date: sin of the year", "Date: sin of the week", "Dividend", "Price"]
    found = figures.brief(names, 18)
    assert len(set(found)) == 4
    assert found[2:] == names[2:]
    assert max(map(len, found)) <= 18
