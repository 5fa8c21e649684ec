"""The names of the classes: a csv with the columns Index and Name, as YouTube-8M publishes it."""

import csv
from pathlib import Path


def read_vocabulary(path: str | Path) -> tuple[str, ...]:
    """Read the class names; their number is the number of classes.

    Raises
    ------
    ValueError : the file is missing, lacks a column, or its indices are not 0, 1, ... each once.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"--vocabulary={path}: there is no such file; give a csv with the columns Index and Name"
        )
    names: dict[int, str] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        missing = {"Index", "Name"} - set(table.fieldnames or ())
        if missing:
            absent = " and ".join(sorted(missing))
            raise ValueError(f"--vocabulary={path}: no column {absent}; there are {table.fieldnames}")
        for row in table:
            try:
                index = int(row["Index"])
            except (TypeError, ValueError):
                where = f"--vocabulary={path}, line {table.line_num}"
                raise ValueError(f"{where}: Index is {row['Index']!r}, not a whole number") from None
            if index in names:
                raise ValueError(
                    f"--vocabulary={path}, line {table.line_num}: Index {index} stands there twice"
                )
            names[index] = row["Name"] or f"class {index}"
    if not names or set(names) != set(range(len(names))):
        gap = min(set(range(len(names) + 1)) - set(names))
        raise ValueError(
            f"--vocabulary={path}: {len(names)} classes, but Index {gap} is missing; they count from 0"
        )
    return tuple(names[index] for index in range(len(names)))
