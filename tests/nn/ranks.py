"""What each rank does in the tests with several processes; a process imports it from here."""

from pathlib import Path

import torch
from torch import Tensor, distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel

from expertise.nn import Experts, MoE, TopKRouter
from expertise.nn.balance import load_balance_loss
from expertise.nn.loss_free import LossFreeBias
from expertise.nn.picking import only_picked

RANKS, E, D = 2, 4, 4


def layer_of(k: int = 1) -> MoE:
    torch.manual_seed(0)
    router = TopKRouter(D, E, k=k, activation="sigmoid", selection_bias=True)
    with torch.no_grad():
        router.weight_ED.copy_(3 * torch.eye(E))
    return MoE(router, Experts(E, D, 6))


def batch_of(rank: int | None, tokens: int = 12) -> Tensor:
    """Rank 0 sees tokens for experts 0 and 1, rank 1 for 2 and 3; None: both batches, one after the other."""
    if rank is None:
        return torch.cat([batch_of(one, tokens) for one in range(RANKS)])
    generator = torch.Generator().manual_seed(rank)
    x = 0.2 * torch.randn(tokens, D, generator=generator)
    x[torch.arange(tokens), torch.arange(tokens) % 2 + 2 * rank] += 1
    return x


def mask_of(rank: int | None) -> Tensor:
    """Rank 0 has 12 real tokens, rank 1 only 5."""
    if rank is None:
        return torch.cat([mask_of(one) for one in range(RANKS)])
    return torch.arange(12) < (12 if rank == 0 else 5)


def report(rank: int, folder: str) -> None:
    """Do everything once and save what came out."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    try:
        found = {**_balance(rank), **_loss_free(rank), **_picking(rank)}
    finally:
        distributed.destroy_process_group()
    torch.save(found, Path(folder) / f"rank{rank}.pt")


def _balance(rank: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, group in (("local", None), ("global", True), ("group", distributed.new_group([0, 1]))):
        model = DistributedDataParallel(layer_of(k=2))
        y, routing = model(batch_of(rank), mask=mask_of(rank), return_routing=True)
        loss = load_balance_loss([routing, routing], group=group)
        (loss + 0 * y.sum()).backward()  # gradients are exchanged once all parameters have theirs
        found[name] = loss.item(), model.module.router.weight_ED.grad.clone()
    routing = layer_of()(batch_of(rank), return_routing=True)[1]
    found["even"] = load_balance_loss(routing).item(), load_balance_loss(routing, group=True).item()
    return found


def _loss_free(rank: int) -> dict[str, object]:
    """Two passes a step, the first without an exchange of gradients, as in accumulation."""
    model = DistributedDataParallel(layer_of())
    bias = LossFreeBias(model, rate=0.01, group=True)
    for _ in range(2):
        with model.no_sync():
            model(batch_of(rank))
        model(batch_of(rank, tokens=3))
        bias.step()
    return {"bias": model.module.router.selection_bias_E.clone()}


def _picking(rank: int) -> dict[str, object]:
    """Expert 3 is picked by nobody, expert 2 by rank 1 alone."""
    model = DistributedDataParallel(layer_of())
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    before = model.module.experts.up_weight.detach().clone()
    x = nn.functional.one_hot(torch.tensor([[0, 1], [1, 2]][rank]), E).float()
    y, routing = model(x, return_routing=True)
    y.square().sum().backward()
    with only_picked(optimizer, [(model.module, routing)], group=True):
        optimizer.step()
    moved = (model.module.experts.up_weight != before).flatten(1).any(1).tolist()
    return {"moved": moved, "weights": model.module.experts.up_weight.detach().clone()}
