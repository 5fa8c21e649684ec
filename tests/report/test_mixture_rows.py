"""The section on single rows: its titles say who decided and what moved them, its data are the effects."""

import dataclasses

import numpy as np

from expertise.report.mixtures import mixture_page
from expertise.report.page import Figure
from expertise.report.record import Explained
from report.mixture_making import make_record


def figures_of(record: object) -> list[Figure]:
    page = mixture_page(record)  # type: ignore[arg-type]
    (section,) = (one for one in page.sections if one.title == "Why: some rows")
    return [block for block in section.blocks if isinstance(block, Figure)]


def test_titles_say_who_decided_and_what_moved_them_most() -> None:
    record = make_record()
    n = len(record.columns)
    gate, expert = np.zeros(n), np.zeros(n)
    gate[1], expert[0] = -0.4, 2.5
    chosen = int(record.gate[3].argmax())
    one = Explained(3, chosen, gate, expert)
    of_gate, of_expert = figures_of(dataclasses.replace(record, explained=(one,)))
    assert of_gate.title.startswith(f"{record.row_names[3]}: expert {chosen} decides with a weight of")
    assert of_gate.title.endswith(f"; {record.columns[1].name} moves it most")
    assert of_expert.title.endswith(f"; {record.columns[0].name} moves what it says most")
    assert of_gate.table.cells[0][1].value == -0.4
    assert of_expert.table.cells[0][1].value == 2.5


def test_a_row_that_no_input_moves_says_so_and_names_the_class() -> None:
    record = make_record(link="softmax", v=3)
    still = np.zeros(len(record.columns))
    one = Explained(0, int(record.gate[0].argmax()), still, still, record.classes[1])
    of_gate, of_expert = figures_of(dataclasses.replace(record, explained=(one,)))
    assert of_gate.title.endswith("; no input alone matters")
    assert f"for {record.classes[1]}" in of_expert.title


def test_without_explained_rows_there_is_no_such_section() -> None:
    assert "Why: some rows" not in [one.title for one in mixture_page(make_record()).sections]
