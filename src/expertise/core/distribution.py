"""The predictive mixture: the distribution of y for each row, from the gate and the experts' own."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.core import _checks
from expertise.core._drawing import Generator, as_generator, draw_columns
from expertise.core._logs import add_logs, logsumexp, safe_log
from expertise.core._roots import bracketed_root, smallest_whole

Floats = npt.NDArray[np.float64]


def is_discrete(distribution: Any) -> bool:
    """Whether a frozen distribution has a mass function, not a density."""
    return callable(getattr(distribution, "logpmf", None))


def log_density(distribution: Any, y: Floats) -> Floats:
    """Give log p(y) of each row, (n,); of y (n, m) the sum over the outputs.

    Raises
    ------
    ValueError : y has not the shape of what the distribution predicts.
    """
    log_p = distribution.logpmf if is_discrete(distribution) else distribution.logpdf
    try:
        value = np.asarray(log_p(y), dtype=np.float64)
    except ValueError as error:
        raise _wrong_shape(distribution, y) from error
    if y.ndim == 1 and value.shape == y.shape:
        return value
    # a distribution of shape (n,) spreads over y (n, n) without a word, so the mean is asked for its shape
    if y.ndim == 2 and value.shape == y.shape and np.ndim(distribution.mean()) != 1:
        return np.asarray(value.sum(axis=1))
    raise _wrong_shape(distribution, y)


def _wrong_shape(distribution: Any, y: Floats) -> ValueError:
    return ValueError(
        f"y must have the shape that is predicted, {np.shape(distribution.mean())}; got {y.shape}"
    )


class MixtureDistribution:
    """p(y | x) = sum_k g_k(x) p_k(y | x), for n rows at once.

    The experts' distributions have the shape (n,), or (n, m) of several outputs, which are independent
    given the expert. Then `logpdf` is the joint density of a row, (n,), and all else is by output, (n, m).
    Discrete experts take whole numbers; ``pdf`` and ``logpdf`` are then the mass function.

    Parameters
    ----------
    weights : (n, K) gate probabilities, rows that sum to 1.
    experts : K frozen distributions: of scipy.stats, or with logpdf or logpmf, cdf, ppf, mean, var and
        rvs(random_state=).

    Raises
    ------
    ValueError : weights that do not fit the experts or are no probabilities; discrete and continuous experts.

    >>> from scipy.stats import norm
    >>> half = MixtureDistribution(np.array([[0.5, 0.5]]), [norm([-1.0], 1.0), norm([1.0], 1.0)])
    >>> half.mean(), half.var(), half.cdf(0.0)
    (array([0.]), array([2.]), array([0.5]))
    """

    def __init__(self, weights: npt.ArrayLike, experts: Sequence[Any]) -> None:
        self.weights = np.asarray(weights, dtype=np.float64)
        self.experts = list(experts)
        if self.weights.ndim != 2 or not self.experts or self.weights.shape[1] != len(self.experts):
            raise ValueError(
                f"weights must have the shape (rows, {len(self.experts)}), a column for each expert; "
                f"got {self.weights.shape}"
            )
        sums = self.weights.sum(axis=1)
        good = (self.weights >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-6)
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                "weights must be probabilities that sum to 1 in each row; "
                f"got {self.weights[row].tolist()} in row {row}"
            )
        self.weights = self.weights / sums[:, None]
        kinds = {is_discrete(expert) for expert in self.experts}
        if len(kinds) > 1:
            raise ValueError("experts must be all discrete or all continuous; got both kinds")
        self.discrete = kinds.pop()

    @cached_property
    def _means(self) -> list[Floats]:
        """The experts' means, all of the same shape; inf where there is none."""
        means = [np.asarray(expert.mean(), dtype=np.float64) for expert in self.experts]
        n = len(self.weights)
        rows = (n,) if max(mean.ndim for mean in means) < 2 else (n, 1)
        shape = np.broadcast_shapes(rows, *(mean.shape for mean in means))
        return [np.where(np.isnan(mean), np.inf, np.broadcast_to(mean, shape)) for mean in means]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,), or (n, m) of several outputs."""
        return self._means[0].shape

    def _weight(self, k: int) -> Floats:
        """The weight of expert k, in a shape that goes with the outputs."""
        return self.weights[:, k] if len(self.shape) == 1 else self.weights[:, k, None]

    def _average(self, values: Sequence[Floats]) -> Floats:
        """Average over the experts; one of weight 0 does not count, even at inf."""
        total = np.zeros(self.shape)
        for k, value in enumerate(values):
            weight = self._weight(k)
            total = total + np.where(weight > 0, weight, 0.0) * np.where(weight > 0, value, 0.0)
        return total

    def _full(self, y: npt.ArrayLike) -> Floats:
        """Bring y, a number or one for each row (and output), to the shape of the outputs."""
        array = np.asarray(y, dtype=np.float64)
        if array.ndim and array.shape != self.shape:
            raise ValueError(f"y must be one number or have the shape {self.shape}; got {array.shape}")
        return np.broadcast_to(array, self.shape)

    def logpdf(self, y: npt.ArrayLike) -> Floats:
        """Give log p(y | x) of each row, (n,), of several outputs the joint one.

        Parameters
        ----------
        y : one number for all rows, or (n,), or (n, m) of several outputs.
        """
        full = self._full(y)
        logs = np.stack([log_density(expert, full) for expert in self.experts], axis=1)
        return logsumexp(add_logs(safe_log(self.weights), logs))

    def pdf(self, y: npt.ArrayLike) -> Floats:
        """Give p(y | x) of each row, (n,), as `logpdf`."""
        return np.asarray(np.exp(self.logpdf(y)))

    def cdf(self, y: npt.ArrayLike) -> Floats:
        """Give P(Y <= y | x), (n,) or by output (n, m); y as in `logpdf`."""
        return self._cdf(self._full(y))

    def _cdf(self, y: Floats) -> Floats:
        return self._average([np.asarray(expert.cdf(y)) for expert in self.experts])

    def ppf(self, q: npt.ArrayLike) -> Floats:
        """Give the quantile of probability q: where the cdf is q; discrete: the smallest y where it is >= q.

        Found by a bracketed search of the cdf, between the experts' own quantiles; 0 and 1 give the ends of
        the support.

        Parameters
        ----------
        q : one probability for all rows, or of the shape of the outputs.

        Returns
        -------
        (n,), or by output (n, m).

        Raises
        ------
        ValueError : a q outside 0 to 1.
        """
        wanted = _checks.check_probability("q", q)
        if wanted.ndim and wanted.shape != self.shape:
            raise ValueError(f"q must be one number or have the shape {self.shape}; got {wanted.shape}")
        wanted = np.broadcast_to(wanted, self.shape)
        low, high = self._bracket(wanted)
        inside = (wanted > 0) & (wanted < 1)
        ends = np.where(wanted > 0, high, low)
        low, high = np.where(inside, low, 0.0), np.where(inside, high, 0.0)
        if self.discrete:
            found = smallest_whole(lambda y: self._cdf(y) >= wanted, low, high)
        else:
            found = bracketed_root(lambda y: self._cdf(y) - wanted, low, high)
        return np.where(inside, found, ends)

    def _bracket(self, q: Floats) -> tuple[Floats, Floats]:
        """Give the smallest and largest quantile of the experts that count: the mixture's lies between."""
        low, high = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)
        for k, expert in enumerate(self.experts):
            counts = self._weight(k) > 0
            own = np.asarray(expert.ppf(q), dtype=np.float64)
            if self.discrete:  # at 0, scipy.stats says the number before the first one
                own = np.where(q > 0, own, _first(expert, own))
            low = np.where(counts, np.minimum(low, own), low)
            high = np.where(counts, np.maximum(high, own), high)
        return low, high

    def mean(self) -> Floats:
        """Give sum_k g_k mu_k, (n,) or (n, m); inf where an expert that counts has none."""
        return self._finite_or_inf(self._average, self._means)

    def var(self) -> Floats:
        """Give the variance, sum_k g_k (s_k^2 + (mu_k - mean)^2), (n,) or (n, m); inf where there is none."""
        mean = self.mean()
        with np.errstate(invalid="ignore"):
            parts = [
                np.asarray(expert.var()) + (own - mean) ** 2
                for expert, own in zip(self.experts, self._means, strict=True)
            ]
        return self._finite_or_inf(self._average, parts)

    @staticmethod
    def _finite_or_inf(average: Callable[[Sequence[Floats]], Floats], values: Sequence[Floats]) -> Floats:
        with np.errstate(invalid="ignore"):
            total = average(values)
        return np.where(np.isnan(total), np.inf, total)

    def std(self) -> Floats:
        """Give the standard deviation, (n,) or (n, m)."""
        return np.sqrt(self.var())

    def interval(self, coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Give the ends of the central interval that holds y with probability ``coverage``.

        Raises
        ------
        ValueError : a coverage that is not over 0 and up to 1.
        """
        tail = (1 - _checks.check_coverage(coverage)) / 2
        return self.ppf(tail), self.ppf(1 - tail)

    def rvs(self, size: int | None = None, random_state: Any = None) -> Floats:
        """Draw y: an expert by the weights, then y of it; all outputs of a row from the same expert.

        Parameters
        ----------
        size : how many draws of all rows; None is one without an axis of its own.
        random_state : None, a whole number or a generator of NumPy.

        Returns
        -------
        (n,) or (n, m); with ``size`` (size, n) or (size, n, m).
        """
        rng = as_generator(random_state)
        if size is None:
            return self._draw(rng)
        return np.stack([self._draw(rng) for _ in range(size)]) if size else np.empty((0, *self.shape))

    def _draw(self, rng: Generator) -> Floats:
        chosen = draw_columns(self.weights, rng)
        result = np.empty(self.shape)
        for k, expert in enumerate(self.experts):
            every = np.asarray(expert.rvs(random_state=rng), dtype=np.float64)
            if every.shape != self.shape:  # parameters that all rows share must not give all the same draw
                every = np.asarray(expert.rvs(size=self.shape, random_state=rng), dtype=np.float64)
            result[chosen == k] = every[chosen == k]
        return result


def _first(expert: Any, otherwise: Floats) -> Floats:
    """The smallest value of a discrete distribution, where it tells."""
    support = getattr(expert, "support", None)
    return otherwise if support is None else np.asarray(support()[0], dtype=np.float64)
