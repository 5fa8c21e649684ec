"""DbofModel: a deep bag of frames. The reference's frame_level_models.DbofModel."""

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractFrameModel, AbstractVideoModel, ClassifierOf
from expertise.youtube8m.models._batch_norm import EPSILON, BatchNorm, sum_over_processes
from expertise.youtube8m.models._frame_sums import (
    at_least_one_frame,
    extremes,
    extremes_and_squares,
    normal_,
    standard_product,
)

# Each with the root mean square of what it makes of a normalised value. None ever falls: the largest
# activation is the activation of the largest value.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "sigmoid": (torch.sigmoid, 0.54),
    "relu": (F.relu, 0.71),
    "relu6": (F.relu6, 0.71),
    "tanh": (torch.tanh, 0.63),
}
POOLINGS = ("max", "average")


class DbofModel(AbstractFrameModel):
    """Sampled frames are assigned to clusters, the clusters pooled over the frames, then a hidden layer.

    f(BN(x) A) for each frame, its maximum or mean over the frames, f(BN(. H)), and a video-level model
    (Abu-El-Haija et al. 2016, arXiv:1609.08675, section 5.1.2, and the published code).

    In training the frames are drawn by torch's global generator. In evaluation they lie evenly over the
    video, a function of its length alone, where the reference draws there too. A video of fewer frames
    repeats some; one of none has 0 for all clusters.

    Letters of shapes: B batch, L frames, I sampled frames (L where all are taken), D features, K clusters,
    H hidden units.

    Parameters
    ----------
    classifier : the video-level model of H values.
    input_size, cluster_size, hidden_size : D, K and H.
    iterations : I; 0: all frames.
    random_frames : draw single frames, with replacement; otherwise a run of consecutive ones.
    batch_norm : normalise frames, clusters and hidden units; otherwise the last two have biases.
    pooling : max or average.
    activation : f, one of ACTIVATIONS.
    random_evaluation : draw frames in evaluation too, as the reference.

    Raises
    ------
    ValueError : pooling or activation is none of these.

    The largest value over the frames is taken before the batch normalisation, which is a straight line for
    each cluster: where it rises the largest value stays the largest, and where it falls the smallest becomes
    so. The values of all frames (B, I, K), by far the model's largest array, are thus read twice and written
    once more, by their gradient.
    """

    def __init__(
        self,
        classifier: AbstractVideoModel,
        input_size: int,
        *,
        cluster_size: int = 8192,
        hidden_size: int = 1024,
        iterations: int = 30,
        random_frames: bool = True,
        batch_norm: bool = True,
        pooling: str = "max",
        activation: str = "sigmoid",
        random_evaluation: bool = False,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} is not known; give {' or '.join(POOLINGS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is not known; give {' or '.join(ACTIVATIONS)}")
        super().__init__()
        self.classifier, self.num_classes = classifier, classifier.num_classes
        self.input_size, self.iterations = input_size, iterations
        self.random_frames, self.random_evaluation = random_frames, random_evaluation
        self.pooling, self.activation = pooling, ACTIVATIONS[activation][0]
        self.cluster_KD = nn.Parameter(torch.zeros(cluster_size, input_size))
        self.hidden_HK = nn.Parameter(torch.zeros(hidden_size, cluster_size))
        self.norms: _Norms | None = None
        self.biases: _Biases | None = None
        if batch_norm:
            self.norms = _Norms(input_size, cluster_size, hidden_size)
        else:
            self.biases = _Biases(cluster_size, hidden_size)

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            classifier_of(options.dbof_hidden_size, ACTIVATIONS[options.dbof_activation][1]),
            flags.input_size,
            cluster_size=options.dbof_cluster_size,
            hidden_size=options.dbof_hidden_size,
            iterations=options.iterations,
            random_frames=options.sample_random_frames,
            batch_norm=options.dbof_add_batch_norm,
            pooling=options.dbof_pooling_method,
            activation=options.dbof_activation,
            random_evaluation=options.dbof_random_evaluation,
        )

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the hidden units (B, H)."""
        x_BID, keep_BI = self._bag(at_least_one_frame(x_BLD), lengths_B)
        pooled_BK = self._largest(x_BID, keep_BI) if self.pooling == "max" else self._mean(x_BID, keep_BI)
        pooled_BK = pooled_BK * (lengths_B > 0).unsqueeze(1)
        hidden_BH = F.linear(pooled_BK, self.hidden_HK)
        if self.norms is not None:
            return self.activation(self.norms.hidden(hidden_BH))
        assert self.biases is not None
        return self.activation(hidden_BH + self.biases.hidden_H)

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the weights anew, from N(0, 1 / D) for the clusters and N(0, 1 / K) for the hidden units.

        Biases are drawn as the reference's: N(0, 1 / D) and N(0, .01^2).
        """
        K, D = self.cluster_KD.shape
        normal_(self.cluster_KD, 1.0 / math.sqrt(D), generator)
        normal_(self.hidden_HK, 1.0 / math.sqrt(K), generator)
        if self.norms is not None:
            for norm in (self.norms.input, self.norms.cluster, self.norms.hidden):
                norm.reset()
        if self.biases is not None:
            normal_(self.biases.cluster_K, 1.0 / math.sqrt(D), generator)
            normal_(self.biases.hidden_H, 0.01, generator)

    def _bag(self, x_BLD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Give the frames that are looked at, (B, I, D), and which of them are real, (B, I)."""
        B, L, D = x_BLD.shape
        if self.iterations == 0:
            return x_BLD, frame_mask(lengths_B, L)
        frames_BI = self._choice(lengths_B)
        rows_BI = frames_BI + L * torch.arange(B, device=x_BLD.device).unsqueeze(1)
        x_BID = x_BLD.reshape(-1, D).index_select(0, rows_BI.flatten()).unflatten(0, rows_BI.shape)
        return x_BID, (lengths_B > 0).unsqueeze(1).expand(rows_BI.shape)

    def _choice(self, lengths_B: Tensor) -> Tensor:
        """Choose `iterations` frames of each video, (B, I); frame 0 where there is none."""
        steps_I = torch.arange(self.iterations, device=lengths_B.device)
        lengths_B1 = lengths_B.unsqueeze(1)
        if not (self.training or self.random_evaluation):
            return (2 * steps_I + 1) * lengths_B1 // (2 * self.iterations)  # the middles of I equal parts
        draws = torch.rand(len(lengths_B), self.iterations if self.random_frames else 1)
        draws = draws.to(lengths_B.device)  # drawn on the CPU: the same frames on every device
        if self.random_frames:
            frames_BI = (draws * lengths_B1).long()
        else:
            starts_B1 = (draws * ((lengths_B1 - self.iterations).clamp_min(0) + 1)).long()
            frames_BI = starts_B1 + steps_I  # a run, which stays at the last frame of a short video
        return torch.minimum(frames_BI, lengths_B1 - 1).clamp_min(0)

    def _largest(self, x_BID: Tensor, keep_BI: Tensor) -> Tensor:
        """Give the largest activation of each cluster (B, K)."""
        counted_BI = keep_BI if self.iterations == 0 else None  # of sampled frames all are real, or none
        if self.norms is not None:
            return self.activation(self._normalized_extremes(self.norms, x_BID, keep_BI, counted_BI))
        assert self.biases is not None
        a_BIK = F.linear(x_BID, self.cluster_KD)
        most_BK = extremes_and_squares(a_BIK, counted_BI)[0] if self.training else extremes(a_BIK, counted_BI)
        return self.activation(most_BK + self.biases.cluster_K)

    def _normalized_extremes(
        self, norms: "_Norms", x_BID: Tensor, keep_BI: Tensor, counted_BI: Tensor | None
    ) -> Tensor:
        """Give the largest of BN(BN(x) A) over the frames (B, K)."""
        cluster = norms.cluster
        falling_K = cluster.weight < 0
        if not self.training:
            a_BIK = F.linear(norms.input(x_BID, keep_BI), self.cluster_KD)
            scale_K, shift_K = cluster.scale_and_shift(cluster.running_mean, cluster.running_variance)
            return extremes(a_BIK, counted_BI, falling_K) * scale_K + shift_K
        a_BIK = standard_product(
            self._standardized(norms.input, x_BID, keep_BI),
            norms.input.weight,
            norms.input.bias,
            self.cluster_KD,
        )
        # frames have mean 0 over the real ones of all processes and are 0 elsewhere: so are their products
        extreme_BK, squares_K = extremes_and_squares(a_BIK, counted_BI, falling_K)
        count = sum_over_processes(keep_BI.sum().to(squares_K.dtype))
        variance_K = sum_over_processes(squares_K) / count.clamp_min(1.0)
        with torch.no_grad(), torch.autocast(x_BID.device.type, enabled=False):
            cluster.follow(self.cluster_KD @ norms.input.bias, variance_K, count)
        return extreme_BK * (cluster.weight * torch.rsqrt(variance_K + EPSILON)) + cluster.bias

    def _mean(self, x_BID: Tensor, keep_BI: Tensor) -> Tensor:
        """Give the mean activation of each cluster (B, K)."""
        if self.norms is None:
            assert self.biases is not None
            a_BIK = F.linear(x_BID, self.cluster_KD, self.biases.cluster_K)
        else:
            norm = self.norms.input
            z_BID = self._standardized(norm, x_BID, keep_BI)
            a_BIK = F.linear(z_BID, self.cluster_KD * norm.weight, self.cluster_KD @ norm.bias)
            a_BIK = self.norms.cluster(a_BIK, keep_BI)
        seen_BIK = self.activation(a_BIK) * keep_BI.unsqueeze(-1)
        counts_B1 = keep_BI.sum(dim=1, keepdim=True).clamp_min(1)
        return seen_BIK.sum(dim=1, dtype=torch.promote_types(seen_BIK.dtype, torch.float32)) / counts_B1

    @staticmethod
    def _standardized(norm: BatchNorm, x_BID: Tensor, keep_BI: Tensor) -> Tensor:
        """Give the frames with mean 0 and variance 1, padding 0: without the norm's weight and bias.

        These two are put into the product behind, which then needs no gradient of its input.
        """
        mean_D, variance_D = norm.moments(x_BID, keep_BI)
        return (x_BID - mean_D) * (torch.rsqrt(variance_D + EPSILON) * keep_BI.unsqueeze(-1))


class _Norms(nn.Module):
    """The batch normalisations of a DbofModel that has them."""

    def __init__(self, input_size: int, cluster_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input = BatchNorm(input_size)
        self.cluster = BatchNorm(cluster_size)
        self.hidden = BatchNorm(hidden_size)


class _Biases(nn.Module):
    """The biases of a DbofModel without batch normalisation."""

    def __init__(self, cluster_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cluster_K = nn.Parameter(torch.zeros(cluster_size))
        self.hidden_H = nn.Parameter(torch.zeros(hidden_size))
