"""Symbolic sizes, as `torch.export` has them, are numbers or multiples of N."""

import pytest
import torch
from torch.export import Dim, export

import newtriton as nt
from newtriton.compiler.capture.shapes import dimensions, number
from newtriton.compiler.graph.ir import N


class Sizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.flatten(), x.sum(0), torch.cat([x, x[:1]])


def test_sizes_are_numbers_or_multiples_of_the_batch() -> None:
    program = export(Sizes(), (torch.zeros(2, 3),), dynamic_shapes=({0: Dim("n")},), strict=False)
    flat, total, longer = (a.meta["val"] for a in program.graph.output_node().args[0])
    assert dimensions(flat.shape) == (N * 3,)
    assert dimensions(total.shape) == (3,)
    assert number(longer.shape[0], 5) == 6
    with pytest.raises(nt.NewtritonError, match="multiples of the batch size"):
        dimensions(longer.shape)
