"""Values that the processes of data-parallel training must agree on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

__all__ = ["is_replicated", "mean_over_replicas"]


def mean_over_replicas(values: Tensor, weight: int) -> Tensor:
    """Return the weighted mean of ``values`` over the processes that train a network together.

    These are the processes of the running DistributedDataParallel or, without one, all of torch.distributed, as for
    SyncBatchNorm; each of them must make this call. Every process gets the same bits. The mean is NaN if all weights
    are 0. Without torch.distributed, or with a single process, ``values`` is returned unchanged.

    Args:
        values: any shape, the same in every process.
        weight: weight of this process's values, such as the size of its share of a batch.
    """
    if not is_replicated():
        return values
    module = DistributedDataParallel._get_active_ddp_module()
    group = None if module is None else module.process_group
    sums = torch.cat((values.flatten() * weight, values.new_full((1,), weight)))
    dist.all_reduce(sums, group=group)
    return (sums[:-1] / sums[-1]).view_as(values)


def is_replicated() -> bool:
    """Return whether torch.distributed is running with several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
