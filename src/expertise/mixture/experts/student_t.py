"""Linear regression with Student-t noise: y = b + w'x + sigma t_nu, which outliers do not bend."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, gammaln

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings, solve_spd
from expertise.mixture.experts._linear import AbstractLinearExpert
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.sums import Statistics, Sums

SMALLEST_NU = 0.2
START_NU = 10.0  # of the first M-step
JUMPS = np.array([0.01, 0.1, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 10.0, 100.0])  # of nu, tried in every update


@dataclass(frozen=True, eq=False)
class StudentTExpert(AbstractLinearExpert):
    """Linear regression with Student-t noise; its degrees of freedom nu are learned, one for all outputs.

    A t is a normal whose precision is itself gamma distributed, so that EM has a closed form (Lange, Little
    & Taylor 1989): u = (nu + 1) / (nu + r^2 / sigma^2) weighs each row, beta is weighted least squares with
    h u, sigma^2 = sum h u r^2 / sum h, and nu solves
    log(nu/2) - digamma(nu/2) + 1 + mean(log u - u) + digamma((nu' + 1)/2) - log((nu' + 1)/2) = 0
    with nu' from before the step. This moves nu slowly where it is large. So the likelihoods of a few other
    nu are summed too, and where the best of them is above the present one, nu goes there (Liu & Rubin 1994
    maximise the likelihood over nu in the same way). Either direction leads up, so a step in which the
    objective fell is shortened. With a ridge alpha the penalised log-likelihood subtracts
    alpha |w|^2 / (2 sigma^2), as that of the Gaussian expert does.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    variance_floor : smallest sigma^2, as a share of y's variance; the mixture's if None.
    max_nu : ceiling of the degrees of freedom. Against Gaussian noise, n (3 - kurtosis) / (4 max_nu) of the
        log-likelihood is lost there, where the residuals' tails are shorter than Gaussian.
    fixed_nu : degrees of freedom, where they are not to be learned.
    beta : (q, m) intercept first, then a coefficient a column.
    sigma : (m,) noise widths: the noise is sigma times a t variable.
    nu : degrees of freedom, between 0.2 and max_nu.
    """

    max_nu: float = 1e5
    fixed_nu: float | None = None
    nu: float | None = None

    name = "student_t"
    closed_form = False

    @classmethod
    def like_gaussian(cls, gaussian: AbstractExpert, max_nu: float = 1e5) -> Self:
        """Give the expert that is the fitted Gaussian one, up to nu = max_nu: a start that is nested."""
        names = ("frozen", "settings", "alpha", "variance_floor", "beta", "sigma")
        return cls(**{name: getattr(gaussian, name) for name in names}, max_nu=max_nu, nu=max_nu)

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        for name, value in {"max_nu": self.max_nu, "fixed_nu": self.fixed_nu}.items():
            if value is not None and not value >= SMALLEST_NU:
                raise ValueError(
                    f"{name} must be at least {SMALLEST_NU}, got {value}; 1 is the Cauchy distribution"
                )
        return super().bound(settings)

    @property
    def n_parameters(self) -> int:
        """Coefficients, noise widths, and the degrees of freedom if they are learned."""
        return int(self._beta.size + self._sigma.size) + (self.fixed_nu is None)

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i): (n, len(experts))."""
        nu = np.array([expert._nu for expert in experts])
        sigma = np.stack([expert._sigma for expert in experts], axis=1)  # (m, K)
        total = np.zeros((len(rows), len(experts)), order="F")
        for square in cls._squares(experts, rows):
            total += np.log1p(square / nu)
        total *= -0.5 * (nu + 1)
        total += len(sigma) * _log_height(nu) - np.log(sigma).sum(axis=0) - rows.log_scale
        return total

    @classmethod
    def _squares(cls, experts: Sequence[Self], rows: Rows) -> list[Array]:
        """Compute r^2 / sigma^2 of each output: m of (n, len(experts))."""
        beta = np.stack([expert._beta for expert in experts], axis=2)  # (q, m, K)
        sigma = np.stack([expert._sigma for expert in experts], axis=1)  # (m, K)
        squares = []
        for j in range(beta.shape[1]):
            residual = rows.expert.times(beta[:, j] / sigma[j])
            residual -= rows.z[:, [j]] / sigma[j]
            squares.append(np.square(residual, out=residual))
        return squares

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum h u x x', h u x y, h u y^2, h (log u - u), h, and the gains of the `JUMPS` of nu."""
        # u; 1 for experts that have no parameters
        shares = np.ones((rows.z.shape[1], len(rows), len(experts)))
        gains = np.zeros((len(experts), len(JUMPS)))
        for k, expert in enumerate(experts):
            if expert.is_fitted:
                for j, distance in enumerate(cls._squares([expert], rows)):
                    shares[j, :, k] = (expert._nu + 1) / (expert._nu + distance[:, 0])
                    gains[k] += expert._gains(distance[:, 0], resp[:, k])
        gram: list[Array] = []
        cross: list[Array] = []
        square: list[Array] = []
        tails = np.zeros(len(experts))
        for j, share in enumerate(shares):
            weights = resp * share
            gram.append(rows.expert.gram(weights))
            cross.append(rows.expert.cross(weights * rows.z[:, [j]]))
            square.append(rows.z[:, j] ** 2 @ weights)
            tails += (resp * (np.log(share) - share)).sum(axis=0)
        count = resp.sum(axis=0)
        return [
            Sums(
                gram=np.stack([g[k] for g in gram]),
                cross=np.stack([c[:, k] for c in cross], axis=1),
                square=np.array([s[k] for s in square]),
                tails=tails[k],
                gains=gains[k],
                count=count[k],
            )
            for k in range(len(experts))
        ]

    def update(self, statistics: Statistics) -> Self:
        """Solve the weighted normal equations, and the equation for nu."""
        assert isinstance(statistics, Sums)
        count, gram, cross = float(statistics["count"]), statistics["gram"], statistics["cross"]
        if count <= 1e-100:  # nobody: keep what there was
            return self if self.is_fitted else replace(self, **self._blank(cross))
        ridge = self._ridge(len(cross))
        systems = zip(gram + np.diag(ridge), cross.T, strict=True)
        beta = np.column_stack([solve_spd(matrix, right[:, None]) for matrix, right in systems])
        # r'HUr = y'HUy - 2 b'X'HUy + b'X'HUX b, and the penalty's share of the noise
        fitted = np.einsum("qm,mqr,rm->m", beta, gram, beta)
        rest = statistics["square"] - 2 * (beta * cross).sum(axis=0) + fitted
        rest += (ridge[:, None] * beta**2).sum(axis=0)
        variance = np.maximum(rest / count, self._floor)
        if self.is_fitted:
            nu = self._next_nu(float(statistics["tails"]) / (count * cross.shape[1]))
            best = int(np.argmax(statistics["gains"]))
            if statistics["gains"][best] > 1e-10 * count:
                nu = float(self._candidates[best])
        else:
            nu = self.fixed_nu or min(START_NU, self.max_nu)
            # the variance of t is above 1
            variance = np.maximum(variance * max(1 - 2 / nu, 0.2), self._floor)
        return replace(self, beta=beta, sigma=np.sqrt(variance), nu=nu)

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``: coefficients, and logs of sigma and nu."""
        if not self.is_fitted:
            return other
        return replace(
            other,
            beta=self._beta + share * (other._beta - self._beta),
            sigma=self._sigma * (other._sigma / self._sigma) ** share,
            nu=self._nu * (other._nu / self._nu) ** share,
        )

    @property
    def _candidates(self) -> Array:
        """Give the other nu that an update may jump to: (len(JUMPS),)."""
        return np.clip(self._nu * JUMPS, SMALLEST_NU, self.max_nu)

    def _gains(self, square: Array, resp: Array) -> Array:
        """Sum h log p at the candidates for nu, less that at nu; from r^2 / sigma^2 (n,)."""
        if self.fixed_nu is not None:
            return np.zeros(len(JUMPS))
        tries = np.append(self._candidates, self._nu)
        logs = np.array([resp @ np.log1p(square / nu) for nu in tries])
        values = resp.sum() * _log_height(tries) - 0.5 * (tries + 1) * logs
        return values[:-1] - values[-1]  # type: ignore[no-any-return]

    def _next_nu(self, tails: float) -> float:
        """Solve for nu, given the mean of log u - u."""
        if self.fixed_nu is not None:
            return self.fixed_nu
        half = (self._nu + 1) / 2
        constant = 1 + tails + float(digamma(half)) - np.log(half)

        def slope(nu: float) -> float:
            return float(np.log(nu / 2) - digamma(nu / 2) + constant)  # falls in nu

        if slope(self.max_nu) >= 0:
            return self.max_nu
        if slope(SMALLEST_NU) <= 0:
            return SMALLEST_NU
        return float(brentq(slope, SMALLEST_NU, self.max_nu, xtol=1e-10))

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the t distribution of every row."""
        from scipy import stats

        scale = self._sigma[0] if len(self._sigma) == 1 else self._sigma
        return stats.t(self._nu, loc=self.predict(design, offset), scale=scale)

    @property
    def parameters(self) -> Array:
        """Coefficients, logs of the noise widths, then the log of nu if it is learned."""
        both = np.concatenate([self._beta.ravel(), np.log(self._sigma)])
        return both if self.fixed_nu is not None else np.append(both, np.log(self._nu))

    def with_parameters(self, vector: Array) -> Self:
        """Set coefficients, noise widths and nu."""
        size, m = self._beta.size, len(self._sigma)
        sigma = np.exp(vector[size : size + m])
        nu = self._nu
        if self.fixed_nu is None:
            nu = float(np.clip(np.exp(vector[-1]), SMALLEST_NU, self.max_nu))
        return replace(self, beta=vector[:size].reshape(self._beta.shape), sigma=sigma, nu=nu)

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: x u r / sigma^2 for coefficients, u r^2 / sigma^2 - 1 for log sigma, and log nu."""
        nu = self._nu
        residual = (rows.z - rows.expert.times(self._beta)) / self._sigma
        share = (nu + 1) / (nu + residual**2)
        by_beta = rows.expert.cross(resp[:, None] * share * residual) / self._sigma
        both = np.concatenate([by_beta.ravel(), resp @ (share * residual**2 - 1)])
        if self.fixed_nu is not None:
            return both
        flat = digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu
        by_nu = flat - np.log1p(residual**2 / nu) + share * residual**2 / nu
        return np.append(both, 0.5 * nu * (resp @ by_nu).sum())

    def _blank(self, cross: Array) -> dict[str, Any]:
        nu = self.fixed_nu or min(START_NU, self.max_nu)
        return {"beta": np.zeros_like(cross), "sigma": np.ones(cross.shape[1]), "nu": nu}

    @property
    def _nu(self) -> float:
        assert self.nu is not None
        return self.nu


def _log_height(nu: Array) -> Array:
    """Give the log of the density of t at 0.

    >>> round(float(np.exp(_log_height(np.array([1.0])))[0] * np.pi), 12)  # Cauchy: 1 / pi
    1.0
    """
    exact = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    # for large nu the difference loses its digits; its expansion at infinity does not
    series = -0.5 * np.log(2 * np.pi) - 1 / (4 * nu) + 1 / (24 * nu**3) - 1 / (20 * nu**5)
    height: Array = np.where(nu > 100, series, exact)
    return height
