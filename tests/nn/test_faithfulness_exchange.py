"""Row A20 of what was promised: experts of small weight are dropped, and what that costs is shown."""

import torch
from torch import nn
from torch.nn import functional

from expertise.nn import Experts, MoE, TopKRouter
from expertise.nn.exchange import prune


def trained() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A classifier of four clusters with eight experts, of which some learn to do little."""
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    y = (x[:, 0] > 0).long() * 2 + (x[:, 1] * x[:, 2] > 0).long()
    model = nn.Sequential(MoE(TopKRouter(6, 8, k=2), Experts(8, 6, 12, activation="relu")), nn.Linear(6, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def test_a20_pruning_keeps_the_loss_within_the_tolerance() -> None:
    model, x, y = trained()
    layer = model[0]
    assert isinstance(layer, MoE)
    _, routing = layer(x, return_routing=True)

    def loss(candidate: MoE) -> torch.Tensor:
        model[0] = candidate
        return functional.cross_entropy(model(x), y)

    before = loss(layer).item()
    experts_left = []
    for tolerance in (0.0, 0.02, 0.1, 0.5):
        smaller, report = prune(layer, routing, tolerance=tolerance, by="importance", loss=loss)
        # the model holds the pruned layer now, and what is reported is what it costs there
        assert model[0] is smaller
        after = functional.cross_entropy(model(x), y).item()
        assert report.loss_before == before
        assert report.loss_after == after
        assert report.loss_change == after - before <= tolerance
        # what was dropped had small weight: less than an equal share, all together
        dropped = sum(report.shares[e] for e in report.removed)
        assert dropped <= len(report.removed) / 8 + 1e-9
        experts_left.append(len(report.kept))
    assert experts_left[0] <= 8
    assert experts_left == sorted(experts_left, reverse=True)
    assert experts_left[-1] < 8


def test_a20_the_loss_change_of_a_given_size_is_shown() -> None:
    model, x, y = trained()
    layer = model[0]
    assert isinstance(layer, MoE)
    _, routing = layer(x, return_routing=True)

    def loss(candidate: MoE) -> torch.Tensor:
        model[0] = candidate
        return functional.cross_entropy(model(x), y)

    _, report = prune(layer, routing, keep=2, by="importance", loss=loss)
    assert len(report.kept) == 2
    assert report.loss_change is not None
    assert report.loss_change > 0.05
    assert f"({report.loss_change:+.3g})" in str(report)
