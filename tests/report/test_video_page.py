"""The page of YouTube-8M runs says who wins and who decided, whoever that is."""

import re
from pathlib import Path

import numpy as np
import pytest

from expertise.report.page import Card, Figure, Page, Table, render
from expertise.report.videos import ExpertUse, Run, video_page, write_video_page
from report.making import CLASSES, EVIL, make_decision, make_run, make_use


def page_of(*runs: Run) -> Page:
    return video_page(runs, make_use(), [make_decision()], about=["What this is."], settings={"seed": 0})


def titles(page: Page) -> list[str]:
    return [block.title for section in page.sections for block in section.blocks if isinstance(block, Figure)]


def points(page: Page) -> str:
    return " ".join(text for s in page.sections for b in s.blocks for text in getattr(b, "points", ()))


@pytest.mark.parametrize("winner", [0, 1])
def test_the_winner_is_named_whoever_it_is(winner: int) -> None:
    gaps = [0.8, 0.6] if winner == 0 else [0.6, 0.8]
    names = ["LogisticModel", "MoeModel"]
    best, worse = names[winner], names[1 - winner]
    page = page_of(*(make_run(name, gap) for name, gap in zip(names, gaps, strict=True)))
    assert page.lead == f"{best} wins with GAP 0.800 on 1,000 videos; {worse} 0.600."
    assert titles(page) == [
        f"{best} ends with the lowest loss, 1.300; {worse} 1.500",
        f"{best} ends with the highest GAP, 0.800; {worse} 0.600",
        f"{best} ends with the highest mAP, 0.800; {worse} 0.600",
        f"{best} ends with the highest Hit@1, 0.800; {worse} 0.600",
        f"{best} is best in 3 of 3 classes; {worse} in none",
        "In 3 of 4 classes the leading expert changes from day to night videos",
    ]


def test_equal_runs_have_no_winner() -> None:
    page = page_of(make_run("A", 0.7), make_run("B", 0.70004), make_run("C", 0.5))
    assert page.lead.startswith("No winner: B and A both reach GAP 0.700 on 1,000 videos")
    assert "B and A end level, with GAP 0.700; C 0.500" in titles(page)
    assert titles(page)[4] == "A is best in 3 of 3 classes; B in 3, C in none (ties count for both)"
    assert "B and A are level: GAP 0.700 against 0.700" in points(page)


def test_parameters_and_steps_are_compared_honestly() -> None:
    page = page_of(
        make_run("A", 0.9, parameters=500),
        make_run("B", 0.8, parameters=500),
        make_run("C", 0.7, parameters=100),
    )
    said = points(page)
    assert "With the same steps and exactly as many parameters, A beats B: GAP 0.900 against 0.800." in said
    assert "With the same steps and 5.0 times as many parameters, A beats C: GAP 0.900 against 0.700." in said
    page = page_of(make_run("A", 0.9, parameters=100, steps=200), make_run("B", 0.8, parameters=300))
    assert "After 200 and 100 steps and 3.0 times fewer parameters, A beats B" in points(page)
    page = page_of(make_run("A", 0.9, parameters=None), make_run("B", 0.8))
    assert "With the same steps, A beats B" in points(page)


def test_the_table_of_results() -> None:
    page = page_of(make_run("A", 0.9), make_run("B", 0.8))
    table = next(block for block in page.sections[0].blocks if isinstance(block, Table))
    assert table.columns == ("model", "parameters", "steps", "GAP", "mAP", "PERR", "Hit@1", "Loss")
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["A", "100", "100", "0.900", "0.900", "0.900", "0.900", "1.200"],
        ["B", "100", "100", "0.800", "0.800", "0.800", "0.800", "1.300"],
    ]
    assert [[cell.strong for cell in row[3:]] for row in table.cells] == [[True] * 5, [False] * 5]


def test_one_run_alone_is_not_compared() -> None:
    page = video_page([make_run("A", 0.9)])
    assert page.lead == "A reaches GAP 0.900 on 1,000 videos."
    assert titles(page)[0] == "A ends with loss 1.200"
    assert titles(page)[-1] == f"A is best at dog (0.800) and worst at {CLASSES[3]} (0.600)"
    assert [section.title for section in page.sections] == ["Who wins", "How they learned", "Class by class"]
    assert "best" not in render(page).split("<table>")[1].split("</table>")[0]


def test_a_run_that_has_only_begun() -> None:
    log = ({"kind": "train", "step": 10, "loss": 2.0, "gap": 0.1},)
    page = video_page([Run("A", None, log)])
    assert page.lead == "Training has begun; nothing is evaluated yet."
    assert titles(page) == ["A ends with loss 2.000", "A ends with GAP 0.100"]
    assert video_page([Run("A", None)]).sections == ()
    render(page)


def test_classes_are_the_most_frequent_that_occur() -> None:
    figure = next(
        block
        for section in page_of(make_run("A", 0.9), make_run("B", 0.8)).sections
        for block in section.blocks
        if isinstance(block, Figure) and block.table.columns[0] == "class"
    )
    assert [row[0] for row in figure.table.rows] == [CLASSES[3], EVIL, "dog"]  # nobody has a cat
    assert figure.table.columns == ("class", "A", "B", "by chance")
    assert [row[3].text for row in figure.table.cells] == ["0.030", "0.020", "0.010"]


def test_many_classes_are_cut_and_that_is_said() -> None:
    run = make_run("A", 0.9)
    assert run.evaluation is not None
    many = [{"index": i, "name": f"c{i}", "positives": 1 + i, "average_precision": 0.5} for i in range(3862)]
    page = video_page([Run("A", 1, run.log, {**run.evaluation, "classes": many})])
    figure = page.sections[-1].blocks[0]
    assert isinstance(figure, Figure)
    assert len(figure.table.rows) == 24
    assert figure.table.rows[0][0] == "c3861"
    assert "The 24 most frequent of 3862 classes." in figure.note


def test_use_of_experts() -> None:
    same = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    use = [ExpertUse("cat", ("day", "night"), same)]
    assert "In none of 1 classes does the leading expert change from day to night videos" in titles(
        video_page([make_run("A", 0.9)], use)
    )
    use = [ExpertUse("cat", ("a", "b", "c"), np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]]))]
    assert titles(video_page([make_run("A", 0.9)], use))[-1].endswith("changes with the regime")


@pytest.mark.parametrize(
    ("changes", "who", "tag"),
    [
        ({}, "Expert 1 decides: the gate trusts it with 0.80, and it says 0.90.", "answer right"),
        (
            {"gate_weights": np.array([0.3, 0.5, 0.2]), "score": 0.3},
            "Expert 2 has the most to say: the gate trusts it with 0.50, and it says 0.10.",
            "answer wrong",
        ),
        (  # shown as 0.39 both: the one that adds more
            {"gate_weights": np.array([0.388, 0.391, 0.221]), "score": 0.39},
            "Expert 1 has the most to say: the gate trusts it with 0.39, and it says 0.90.",
            "answer wrong",
        ),
        (
            {"gate_weights": np.array([0.1, 0.1, 0.8]), "score": 0.1, "truth": ()},
            "The gate vetoes: it gives 0.80 to nobody, whatever the experts say.",
            "answer right",
        ),
        (
            {"class_name": "dog"},
            "Expert 1 decides: the gate trusts it with 0.80, and it says 0.90.",
            "answer wrong",
        ),
    ],
)
def test_who_decided(changes: dict[str, object], who: str, tag: str) -> None:
    page = video_page([make_run("A", 0.9)], [], [make_decision(**changes)])
    card = page.sections[-1].blocks[1]
    assert isinstance(card, Card)
    assert card.lines[0] == who
    assert card.tags == ("night", tag, "video ab<b>")


def test_the_experts_add_up_to_the_score() -> None:
    card = video_page([make_run("A", 0.9)], [], [make_decision()]).sections[-1].blocks[1]
    assert isinstance(card, Card)
    assert [[cell.text for cell in row] for row in card.table.cells] == [
        ["expert 1", "0.80", "0.90", "0.72"],
        ["expert 2", "0.10", "0.10", "0.01"],
        ["nobody", "0.10", "0.00", "0.00"],
        ["score", "", "", "0.73"],
    ]


def test_evil_names_stay_text(tmp_path: Path) -> None:
    path = write_video_page(
        tmp_path / "page.html",
        [make_run(EVIL, 0.8), make_run("B", 0.7)],
        make_use(),
        [make_decision(regime=EVIL, class_name=EVIL)],
        title=EVIL,
        about=[EVIL],
        settings={EVIL: EVIL},
    )
    html = path.read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 20
    assert html == render(
        video_page(
            [make_run(EVIL, 0.8), make_run("B", 0.7)],
            make_use(),
            [make_decision(regime=EVIL, class_name=EVIL)],
            title=EVIL,
            about=[EVIL],
            settings={EVIL: EVIL},
        )
    )


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("each with a name of its own; got the names ['A', 'A']")):
        video_page([make_run("A", 0.9), make_run("A", 0.8)])
    with pytest.raises(ValueError, match="runs must be at least one"):
        video_page([])
    with pytest.raises(ValueError, match=r"weights of class 'cat' have the shape \(1, 3\).*with 2 regimes"):
        ExpertUse("cat", ("day", "night"), np.zeros((1, 3)))
    with pytest.raises(
        ValueError, match=r"video 'ab<b>': gate_weights have the shape \(2,\).*must be \(3,\)"
    ):
        make_decision(gate_weights=np.zeros(2))
    use = [ExpertUse("cat", ("a",), np.zeros((1, 3))), ExpertUse("dog", ("b",), np.zeros((1, 3)))]
    with pytest.raises(ValueError, match="expert_use of class 'dog' has regimes"):
        video_page([make_run("A", 0.9)], use)
