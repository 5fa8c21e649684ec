"""Every fit in these tests is watched: its penalised objective must never fall."""

from typing import Any

import numpy as np
import pytest

from expertise.mixture import em


@pytest.fixture(autouse=True)
def objective_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the history of every run of EM whose parts all maximise their likelihood."""
    real = em.maximise

    def watched(model: em.Model, *args: Any, **more: Any) -> em.Fit:
        fit = real(model, *args, **more)
        history = np.array(fit.history)
        if fit.model.is_additive:
            allowed = 1e-9 * (1 + np.abs(history[:-1]))
            assert (np.diff(history) >= -allowed).all(), f"the objective fell: {history}"
        return fit

    monkeypatch.setattr(em, "maximise", watched)
