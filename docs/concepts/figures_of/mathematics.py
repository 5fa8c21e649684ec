"""The figures of mathematics.md."""

import numpy as np
from matplotlib.figure import Figure

from expertise import MixtureOfExpertsRegressor
from figures_of.shared import BLUE, EXPERTS, GREY, INK, PALE, Array, Drawing, Numbers, curve, fitted, rmse

OBJECTIVES = ("cooperative", "expected", "likelihood")


def objectives() -> tuple[Numbers, Drawing]:
    """300 rows of a sine, four linear experts, a linear gate; medians of 5 seeds, on 2,000 new rows."""
    from expertise import NeuralMixtureRegressor  # torch is slow to load, and one figure alone needs it

    def draw(n: int, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-2, 2, n)
        return x[:, None], np.sin(2 * x) + rng.normal(0, 0.1, n)

    (X, y), (new, target) = draw(300, 0), draw(2000, 1)
    numbers, shown = {}, {}
    for objective in OBJECTIVES:
        values = []
        for seed in range(5):
            model = NeuralMixtureRegressor(
                4,
                expert_hidden=(),
                objective=objective,
                epochs=300,
                batch_size=50,
                learning_rate=0.05,
                random_state=seed,
            ).fit(X, y)
            gate, said = model.gate_proba(new), model.predict_experts(new)
            drawn = np.sqrt((gate * (said - target[:, None]) ** 2).sum(axis=1).mean())
            entropy = -(gate * np.log(np.maximum(gate, 1e-300))).sum(axis=1).mean()
            best = np.sqrt(((said - target[:, None]) ** 2).min(axis=1).mean())
            values.append((rmse(model.predict(new), target), drawn, best, entropy))
            if seed == 0:
                shown[objective] = model
        blend, drawn, best, entropy = np.median(values, axis=0).tolist()
        numbers[objective] = {
            "blend": blend,
            "one expert": drawn,
            "best expert of each case": best,
            "entropy": entropy,
            "one expert / blend": drawn / blend,
        }
    grid = np.linspace(-2, 2, 161)[:, None]

    def drawing(figure: Figure) -> None:
        for axes, (objective, model) in zip(figure.subplots(1, 3, sharey=True), shown.items(), strict=True):
            axes.scatter(X[:150, 0], y[:150], s=5, color=PALE, linewidths=0)
            gate, said = model.gate_proba(grid), model.predict_experts(grid)
            for k, colour in enumerate(EXPERTS):
                axes.plot(grid, said[:, k], color=colour, linewidth=0.8, linestyle=":")
                trusted = np.where(gate[:, k] > 0.25, said[:, k], np.nan)
                axes.plot(grid, trusted, color=colour, linewidth=2.2)
            axes.plot(grid, model.predict(grid), color=INK, linewidth=1)
            axes.set(title=objective, xlabel="x", ylim=(-3, 3))
        figure.axes[0].set_ylabel("y")

    return numbers, drawing


def climbs() -> tuple[Numbers, Drawing]:
    """Five lines to 200 rows of a curve, from 12 random starts: the log-likelihood a row by iteration."""
    X, y, _ = curve(200, 0)
    runs = []
    for seed in range(12):
        model = MixtureOfExpertsRegressor(5, n_init=1, starts=("random",), random_state=seed)
        runs.append(np.asarray(fitted(model, X, y).objective_history_) / len(X))
    ends = np.array([run[-1] for run in runs])
    numbers = {
        "12 starts": {
            "steps": float(sum(len(run) - 1 for run in runs)),
            "steps that fell": float(sum((np.diff(run) < -1e-9).sum() for run in runs)),
            "best end": float(ends.max()),
            "worst end": float(ends.min()),
            "starts at the best end": float((ends > ends.max() - 1e-3).sum()),
        }
    }

    def drawing(figure: Figure) -> None:
        whole, close = figure.subplots(1, 2)
        for run in runs:
            best = run[-1] > ends.max() - 1e-3
            for axes in (whole, close):
                axes.plot(run, color=BLUE if best else GREY, linewidth=2 if best else 0.8)
        last = max(map(len, runs))
        whole.set(title="all iterations", xlabel="iteration", ylabel="log-likelihood a row")
        close.set(title="the same, close up", xlabel="iteration", xlim=(20, last), ylim=(-0.3, -0.12))

    return numbers, drawing
