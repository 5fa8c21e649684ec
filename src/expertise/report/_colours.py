"""The colours of a page: one name each, one shade on white and one on black.

Figures and style sheet use only these names. Text reaches a contrast of 4.5 on its background (WCAG AA),
marks reach 3, and the series of one family stay apart under red- and green-blindness; a test measures all
three.
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
    "nobody": "#767d88",
}
SERIES = tuple(name for name in LIGHT if name.startswith("series-"))
EXPERTS = tuple(name for name in LIGHT if name.startswith("expert-"))


def expert_colour(index: int) -> str:
    """Colour of expert ``index`` (0, 1, ...); the colours repeat after the last one."""
    return EXPERTS[index % len(EXPERTS)]


def series_colour(index: int) -> str:
    """Colour of series ``index`` (0, 1, ...); the colours repeat after the last one."""
    return SERIES[index % len(SERIES)]
