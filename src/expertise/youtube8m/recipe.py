"""What keeps training from overshooting on little data: --recipe=stable, the default.

The reference's settings are made for 3.9 million videos. On fewer, thousands of classes overshoot to p = 1,
because weights and biases start far from where they belong: a class that one video in 10,000 has needs a
logit of -9, and l2-normalised inputs of 1,152 values are about .03 each, so that weights must grow large to
matter. The recipe changes where training starts and how the learning rate moves; the model and the loss stay
the same.

- The biases start at the log-odds of the classes' rates.
- The inputs are scaled by sqrt(D), the size that weights are made for, times a constant that suits Adam at
  the default learning rate of .01.
- MoeModel looks at the features through a projection to `moe_rank` values, started from a ridge regression of
  the labels: directions that tell classes apart come first, and frequent classes teach rare ones.
- The learning rate warms up over the first tenth of the run, and falls to zero by half a cosine.
- Adam's epsilon is 5e-6, so that classes with tiny gradients, the rare ones, move less.

`benchmarks/quality.py --choose` measures what each of these is worth.

Letters of shapes: D features, C classes, R rank, N videos.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.models import VIDEO_MODELS, AbstractModel, AbstractVideoModel, l2_normalize
from expertise.youtube8m.models._abstract import Projection
from expertise.youtube8m.models._seen import KAPPA
from expertise.youtube8m.optimizers import TensorFlowAdam
from expertise.youtube8m.readers import VideoSource

EPSILON = 5e-6
WARM_UP = 0.1  # share of the run
RIDGE = 1.0  # times the mean square of an input
RATE_POWER = 0.25  # labels are divided by rate^.25: between counting videos and counting classes
START_VIDEOS = 65_536  # that the start looks at, at most


class Scales(NamedTuple):
    """Rank of the model (0: full), and what its inputs are scaled by; see `ModelFlags`."""

    rank: int
    input_scale: float
    value_scale: float


def scales(flags: Flags, input_size: int) -> Scales:
    """Give rank and scales of the model of these flags, for so many features."""
    if flags.recipe == "reference":
        return Scales(0, 1.0, 0.0)
    if flags.frame_features:
        return Scales(0, 1.0, KAPPA)
    # What is projected is KAPPA, and so is the projection's share in it: Adam moves both factors of a weight.
    if VIDEO_MODELS[flags.model].low_rank and 0 < flags.moe_rank < input_size:
        return Scales(flags.moe_rank, math.sqrt(input_size) * KAPPA**2, 0.0)
    return Scales(0, math.sqrt(input_size) * KAPPA, 0.0)


def rate_factor(flags: Flags, examples: int, total: int) -> float:
    """Give the factor on the learning rate after so many of all the run's examples.

    >>> [round(rate_factor(Flags(), n, 1000), 3) for n in (0, 50, 100, 550, 1000)]
    [0.01, 0.5, 1.0, 0.5, 0.0]
    """
    if flags.recipe == "reference" or total <= 0:
        return 1.0
    done = min(examples / total, 1.0)
    if done < WARM_UP:
        return max(done / WARM_UP, 0.01)
    return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))


def begin(
    flags: Flags, model: AbstractModel, optimizer: torch.optim.Optimizer, source: VideoSource | None
) -> None:
    """Draw the first weights (``source``: the videos to train on), or only set up the optimizer (None)."""
    if flags.recipe == "stable" and isinstance(optimizer, TensorFlowAdam):
        optimizer.epsilon_hat = EPSILON
    if source is None:
        return
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(flags.seed)
    model.to("cpu")  # the same draw on every device
    if flags.recipe == "reference":
        model.reset(generator)
    else:
        model.reset(generator, scale=0.1 / KAPPA)
        rates_C = _rates(source)
        model.start_at_rates(rates_C)
        projection = model.projection() if isinstance(model, AbstractVideoModel) else None
        if projection is not None:
            assert isinstance(model, AbstractVideoModel)
            start_RD = _ridge_projection(source, model, projection, rates_C, flags.seed, generator)
            with torch.no_grad():
                projection.weight_RD.copy_(start_RD)
    model.to(device)


def remember(model: AbstractModel, source: VideoSource, flags: Flags) -> None:
    """Let a model that has a memory remember videos of the training data, drawn by the seed."""
    if not (isinstance(model, AbstractVideoModel) and model.memory_size):
        return
    device = next(model.parameters()).device
    batches = source.batches(4096, shuffle=source.default_shuffle(), seed=flags.seed)
    model.remember((l2_normalize(batch.features.to(device)), batch.labels.to(device)) for batch in batches)


def _rates(source: VideoSource) -> Tensor:
    """Give the share of videos (of those rated) that each class has, never 0 (C,)."""
    counts = torch.from_numpy(np.asarray(source.label_counts, dtype=np.float32))
    rated = torch.from_numpy(np.asarray(source.rated_counts, dtype=np.float32))
    return (counts + 1.0) / (rated + 10.0)


def _ridge_projection(
    source: VideoSource,
    model: AbstractVideoModel,
    projection: Projection,
    rates_C: Tensor,
    seed: int,
    generator: torch.Generator,
) -> Tensor:
    """Give R directions (R, D) of the features, in which a ridge regression of the labels is large.

    With W (D, C) the ridge weights of (y - rate) / rate^.25, and Q, s the eigenvectors and -values of W W':
    the R largest, each direction times s^(1/4), turned by a random rotation so that every row sees them all
    (where the model asks for it), and scaled so that what it gives for a video is as large as the model says.
    """
    D, rank = source.spec.total, len(projection.weight_RD)
    gram_DD, cross_DC, seen = torch.zeros(D, D), torch.zeros(D, source.num_classes), 0
    power = 0.0
    for batch in source.batches(4096, shuffle=source.default_shuffle(), seed=seed):
        x_BD = model.projection_inputs(l2_normalize(batch.features))
        gram_DD += x_BD.T @ x_BD
        cross_DC += x_BD.T @ ((batch.labels.float() - rates_C) / rates_C**RATE_POWER)
        power += float(x_BD.square().sum())
        seen += len(batch.ids)
        if seen >= START_VIDEOS:
            break
    if power == 0.0:
        raise FlagError(
            "every feature of every video is 0; are --feature_names and the files the right ones?"
        )
    ridge = RIDGE * power / (seen * D)
    weights_DC = torch.linalg.solve(gram_DD / seen + ridge * torch.eye(D), cross_DC / seen)
    values, vectors = torch.linalg.eigh(weights_DC @ weights_DC.T)  # ascending
    projection_RD = (vectors[:, -rank:] * values[-rank:].clamp_min(1e-9) ** 0.25).T
    if projection.rotated:
        rotation_RR = torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0]
        projection_RD = rotation_RR @ projection_RD
    mean_square = torch.einsum("rd,de,re->", projection_RD, gram_DD / seen, projection_RD) / rank
    scaled: Tensor = projection_RD * (projection.size / mean_square.sqrt())
    return scaled
