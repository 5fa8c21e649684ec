"""Linear regression with Gaussian noise: y ~ N(b + w'x, sigma^2), one noise width an output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from expertise.mixture.experts._abstract import solve_spd
from expertise.mixture.experts._linear import AbstractLinearExpert
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.sums import Statistics, Sums

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class GaussianExpert(AbstractLinearExpert):
    """Linear regression with Gaussian noise.

    Weighted least squares, and sigma^2 = sum h r^2 / sum h (Jordan & Jacobs 1994, section 4.3). With a ridge
    alpha, the penalised log-likelihood subtracts alpha |w|^2 / (2 sigma^2), which makes the mean that of
    scikit-learn's ``Ridge(alpha)`` on standardised columns when there is one expert.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    variance_floor : smallest variance, as a share of y's; the mixture's if None.
    beta : (q, m) intercept first, then a coefficient a column.
    sigma : (m,) noise widths.
    """

    name = "gaussian"

    @property
    def n_parameters(self) -> int:
        """Coefficients and noise widths."""
        return int(self._beta.size + self._sigma.size)

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i): (n, len(experts))."""
        beta = np.stack([expert._beta for expert in experts], axis=2)  # (q, m, K)
        sigma = np.stack([expert._sigma for expert in experts], axis=1)  # (m, K)
        total = np.zeros((len(rows), len(experts)), order="F")
        target = rows.z
        for j in range(beta.shape[1]):
            residual = rows.expert.times(beta[:, j] / sigma[j])
            residual -= target[:, [j]] / sigma[j]
            np.square(residual, out=residual)
            total += residual
        total *= -0.5
        total -= np.log(sigma).sum(axis=0) + 0.5 * LOG_2PI * len(sigma) + rows.log_scale
        return total

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum h x x', h x y, h y^2 and h."""
        gram = rows.expert.gram(resp)
        target = rows.z
        cross = [rows.expert.cross(resp * target[:, [j]]) for j in range(target.shape[1])]  # m of (q, K)
        square = (target**2).T @ resp  # (m, K)
        count = resp.sum(axis=0)
        return [
            Sums(
                gram=gram[k], cross=np.stack([c[:, k] for c in cross], 1), square=square[:, k], count=count[k]
            )
            for k in range(len(experts))
        ]

    def update(self, statistics: Statistics) -> Self:
        """Solve the weighted normal equations."""
        assert isinstance(statistics, Sums)
        count, gram, cross = float(statistics["count"]), statistics["gram"], statistics["cross"]
        if count <= 1e-100:  # nobody: keep what there was
            return (
                self
                if self.is_fitted
                else replace(self, beta=np.zeros_like(cross), sigma=np.ones(cross.shape[1]))
            )
        ridge = self._ridge(len(gram))
        beta = solve_spd(gram + np.diag(ridge), cross)
        # r'Hr = y'Hy - 2 b'X'Hy + b'X'HX b, and the penalty's share of the noise
        rest = statistics["square"] - 2 * (beta * cross).sum(axis=0) + (beta * (gram @ beta)).sum(axis=0)
        rest += (ridge[:, None] * beta**2).sum(axis=0)
        variance = np.maximum(rest / count, self._floor)
        return replace(self, beta=beta, sigma=np.sqrt(variance))

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the normal distribution of every row."""
        from scipy import stats

        scale = self._sigma[0] if len(self._sigma) == 1 else self._sigma
        return stats.norm(loc=self.predict(design, offset), scale=scale)

    @property
    def parameters(self) -> Array:
        """Coefficients, then logs of the noise widths."""
        return np.concatenate([self._beta.ravel(), np.log(self._sigma)])

    def with_parameters(self, vector: Array) -> Self:
        """Set coefficients and noise widths."""
        size = self._beta.size
        return replace(self, beta=vector[:size].reshape(self._beta.shape), sigma=np.exp(vector[size:]))

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: x r / sigma^2 for coefficients, r^2 / sigma^2 - 1 for log sigma."""
        residual = (rows.z - rows.expert.times(self._beta)) / self._sigma
        by_beta = rows.expert.cross(resp[:, None] * residual) / self._sigma
        return np.concatenate([by_beta.ravel(), resp @ (residual**2 - 1)])
