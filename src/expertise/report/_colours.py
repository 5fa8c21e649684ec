"""The colours of a page: one name each, one shade on white and one on black.

Figures and style sheet use only these names. Text reaches a contrast of 4.5 on its background (WCAG AA),
marks reach 3, and the series of one family stay apart under red- and green-blindness; a test measures all
three. Marks stand here too: more experts than a family has safe colours are told apart by shape and label.
"""

LIGHT = {
    "page": "#ffffff",
    "panel": "#f5f7f9",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "rule": "#d5dae0",
    "link": "#0a58a8",
    "series-1": "#02467e",
    "series-2": "#e05a06",
    "series-3": "#1f9672",
    "series-4": "#c22ec2",
    "expert-1": "#9d5cf0",
    "expert-2": "#a87400",
    "expert-3": "#0b4b50",
    "expert-4": "#7a0c3a",
    "expert-5": "#0609f9",
    "expert-6": "#ac7353",
    "expert-7": "#443b92",
    "expert-8": "#7e82c0",
    "nobody": "#8a8f96",
}
DARK = {
    "page": "#14171c",
    "panel": "#1d2127",
    "ink": "#e8eaed",
    "muted": "#a3acb8",
    "rule": "#3a414b",
    "link": "#7cb7ff",
    "series-1": "#a4d3f7",
    "series-2": "#d0703a",
    "series-3": "#2fe0a0",
    "series-4": "#d04fd0",
    "expert-1": "#a884f0",
    "expert-2": "#ecc878",
    "expert-3": "#5fe6f2",
    "expert-4": "#d0483a",
    "expert-5": "#efe805",
    "expert-6": "#5cb281",
    "expert-7": "#fc5f13",
    "expert-8": "#7ef8d0",
    "nobody": "#767d88",
}
SERIES = tuple(name for name in LIGHT if name.startswith("series-"))
EXPERTS = tuple(name for name in LIGHT if name.startswith("expert-"))

# How the marks of a figure look in its legend, in a box of 26 by 12. The figures draw the same ones.
MARKS = {
    "line": '<path d="M1 6H25" fill="none" stroke="{c}" stroke-width="2.5"/>',
    "dashed": '<path d="M1 6H25" fill="none" stroke="{c}" stroke-width="2.5" stroke-dasharray="6 3"/>',
    "dotted": '<path d="M1 6H25" fill="none" stroke="{c}" stroke-width="2.5" stroke-dasharray="2 3"/>',
    "circle": '<circle cx="13" cy="6" r="5" fill="{c}"/>',
    "square": '<path d="M8.5 1.5h9v9h-9z" fill="{c}"/>',
    "diamond": '<path d="M13 0L19 6L13 12L7 6z" fill="{c}"/>',
    "triangle": '<path d="M13 .5L19 11.5H7z" fill="{c}"/>',
    "down": '<path d="M7 .5H19L13 11.5z" fill="{c}"/>',
    "plus": '<path d="M11 0h4v4h4v4h-4v4h-4V8H7V4h4z" fill="{c}"/>',
    "cross": '<path d="M8 1L10 0L13 4L16 0L18 1L15 6L18 11L16 12L13 8L10 12L8 11L11 6z" fill="{c}"/>',
    "star": '<path d="M13 0L14.7 4.3H19L15.6 7.2L17 12L13 9.2L9 12L10.4 7.2L7 4.3H11.3z" fill="{c}"/>',
    "tick": '<path d="M13 0V12" stroke="{c}" stroke-width="2.5"/>',
    "box": '<path d="M4 1h18v10H4z" fill="{c}"/>',
}
EXPERT_MARKS = ("circle", "square", "diamond", "triangle", "down", "plus", "cross", "star")


def expert_colour(index: int) -> str:
    """Colour of expert ``index`` (0, 1, ...); the colours repeat after the last one."""
    return EXPERTS[index % len(EXPERTS)]


def series_colour(index: int) -> str:
    """Colour of series ``index`` (0, 1, ...); the colours repeat after the last one."""
    return SERIES[index % len(SERIES)]


def expert_mark(index: int) -> str:
    """Mark of expert ``index`` among points: a shape of its own for each of the first eight."""
    return EXPERT_MARKS[index % len(EXPERT_MARKS)]


def expert_line(index: int) -> str:
    """How the line of expert ``index`` is drawn: the second half of the colours is dashed."""
    return "line" if index % len(EXPERTS) < len(EXPERTS) // 2 else "dashed"
