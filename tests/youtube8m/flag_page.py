"""docs/youtube8m/flags.md, made from the flag table: `python tests/youtube8m/flag_page.py` writes it."""

from pathlib import Path

from expertise.youtube8m.flags import COMMANDS, ENTRIES, ROLES, Flags, default

PAGE = Path(__file__).resolve().parents[2] / "docs" / "youtube8m" / "flags.md"

HEAD = """# The flags

Names and defaults are google/youtube-8m's where it has the flag. A boolean may be given as
`--frame_features`, `--frame_features=True` or `--noframe_features`. From Python they are fields of `Flags`:

```python
from expertise.youtube8m import Flags

assert Flags(train_data_pattern="train*.tfrecord", model="MoeModel").batch_size == 1024
```

"Resumed" says what a run that goes on does with another value than before: **same** refuses it, **said**
takes it and says so, **free** takes it. This page is made from the table in
`src/expertise/youtube8m/flags.py`.
"""
TITLES = {"dataset": "Data", "model": "Model", "training": "Training", "other": "Everything else"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for role in ROLES:
        rows = ["| flag | default | read by | resumed | what it does |", "|---|---|---|---|---|"]
        for name, entry in ENTRIES.items():
            if entry.role != role:
                continue
            commands = ", ".join(command for command in COMMANDS if command in entry.commands)
            resumed = entry.resume if "train" in entry.commands else "-"
            rows.append(f"| `--{name}` | {_default(name)} | {commands} | {resumed} | {_help(name)} |")
        parts.append(f"## {TITLES[role]}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _default(name: str) -> str:
    common = _shown(getattr(Flags, name))
    others = [f"{command}: {_shown(default(name, command))}" for command in ENTRIES[name].defaults]
    return "; ".join([common, *others])


def _shown(value: object) -> str:
    return f"`{value}`" if value not in ("", None) else "none"


def _help(name: str) -> str:
    entry = ENTRIES[name]
    text = entry.help.replace("|", "\\|").replace("*", "\\*")
    return text + (f" One of {', '.join(entry.choices)}." if entry.choices else "")


if __name__ == "__main__":
    PAGE.write_text(page())
