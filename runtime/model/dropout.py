"""The random numbers of dropout: a hash of seed, place, sample and element, equal on all devices.

A seed is drawn for each linearization in training. What evaluates the loss near it takes the same
numbers, so that all of a step sees the same network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...compiler.graph.ir import Node, concrete
from ...compiler.graph.program import Input
from ...compiler.values import RandomNumbers
from ..backend import Context

# The finaliser of MurmurHash3 for 64 bits (Appleby 2011), as signed numbers.
FIRST, SECOND = 0xFF51AFD7ED558CCD - (1 << 64), 0xC4CEB9FE1A85EC53 - (1 << 64)
BITS = 24  # of a number in [0, 1), which float32 holds exactly


def _mixed(x: Tensor) -> Tensor:
    """Mixes the bits of int64 numbers in place: each bit depends on all."""
    for factor in (FIRST, SECOND):
        x.bitwise_xor_((x >> 33).bitwise_and_((1 << 31) - 1)).mul_(factor)
    return x.bitwise_xor_((x >> 33).bitwise_and_((1 << 31) - 1))


def uniform(seed: int, site: int, shape: tuple[int, ...], first: int, like: Tensor) -> Tensor:
    """Returns numbers in [0, 1) that follow from their place alone.

    Args:
        seed: the seed.
        site: the number of the place in the network.
        shape: N×(the shape of a sample).
        first: the number of the first sample.
        like: a tensor of the dtype and device that are wanted.
    """
    samples, elements = shape[0], math.prod(shape[1:])
    rows = torch.arange(first, first + samples, device=like.device)
    rows = _mixed(_mixed(rows.add_(1)).bitwise_xor_(seed).add_(site))
    columns = _mixed(torch.arange(1, elements + 1, device=like.device))
    bits = _mixed(rows[:, None] ^ columns) >> (64 - BITS)
    return bits.bitwise_and_((1 << BITS) - 1).to(like.dtype).mul_(2.0**-BITS).view(shape)


class DropoutNumbers:
    """The random numbers of a network's dropout, and the generator of their seeds.

    Args:
        sites: the leaves of random numbers by the name of their place.
        seed: the seed of the generator.

    Attributes:
        generator: what seeds are drawn from, on the CPU.
        seed: the seed of the last linearization.
    """

    def __init__(self, sites: Mapping[str, Node], seed: int) -> None:
        self.sites = sites
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = 0
        self.draw()

    def draw(self) -> None:
        """Draws the seed of a new linearization, where anything drops out."""
        if self.sites:
            self.seed = int(torch.randint((1 << 63) - 1, (), generator=self.generator))

    def __call__(self, context: Context, first: int = 0) -> dict[Input, Tensor]:
        """Returns the numbers of all places for a batch, of which `first` is the first sample."""
        like = context.empty(())
        return {
            RandomNumbers(name): uniform(
                self.seed, site, concrete(node.shape, context.batch), first, like
            )
            for site, (name, node) in enumerate(self.sites.items())
        }
