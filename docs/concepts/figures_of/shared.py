"""What the figures of the concept pages share: colours, errors, a tree that is tuned."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeRegressor

Array = npt.NDArray[np.float64]
Numbers = dict[str, dict[str, float]]  # row -> column -> value: what a page may quote
Drawing = Callable[[Figure], None]

# told apart by all common kinds of colour vision (Okabe & Ito 2008)
BLUE, RED, GREEN, PINK, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
INK, GREY, PALE = "#222222", "#767676", "#bdbdbd"
EXPERTS = (BLUE, RED, GREEN, PINK)
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "concepts",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",  # a white ground, so that dark pages show it too
    "savefig.facecolor": "white",
}


def rmse(predicted: Array, truth: Array) -> float:
    """Give the root mean squared error."""
    return float(np.sqrt(((predicted - truth) ** 2).mean()))


def fitted(model: Any, X: Array, y: Array) -> Any:
    """Fit without warnings: here it is the point that some models have too few rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y)


def chosen_tree() -> GridSearchCV:
    """Make a decision tree whose pruning and leaf size are chosen inside the training rows."""
    grid = {"ccp_alpha": [0, 1e-4, 1e-3, 1e-2], "min_samples_leaf": [1, 5, 20]}
    return GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=5)


def curve(n: int, seed: int) -> tuple[Array, Array, Array]:
    """Draw x (n, 1), y (n,) and the law without noise (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 4, n)
    law = np.sin(x * x / 2) + 0.3 * x
    return x[:, None], law + rng.normal(0, 0.3, n), law
