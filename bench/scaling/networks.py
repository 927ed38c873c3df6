"""Networks as a cost model sees them: counted in newtriton's own graphs, no parameter is made."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import newtriton as nt

from ...compiler.curvature.blocks import KroneckerLayer, blocks
from ...compiler.curvature.factors import GradientsGram, InputsGram
from ...compiler.graph.cost import communicated, flops
from ...compiler.graph.ir import Node
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.programs import Programs
from ...runtime.parallel.triangles import packed_size

CLASSES, IMAGE, CLASSIFIED = 1000, (3, 224, 224), nt.CrossEntropyLoss()


@dataclass(frozen=True)
class Block:
    """A layer's curvature block.

    Attributes:
        parameters: how many parameters it is of.
        matrices: the rows of each matrix that is kept, of both sides, of all groups.
        numbers: how many numbers its statistics are made of, of symmetric matrices a triangle.
        solving: the floating-point operations that apply its inverse.
    """

    parameters: int
    matrices: tuple[int, ...]
    numbers: int
    solving: int

    @property
    def kept(self) -> int:
        """How many numbers its matrices have."""
        return sum(n * n for n in self.matrices)

    @property
    def factorising(self) -> int:
        """The operations of its inverse, as `Block.operations` of the runtime counts them."""
        return sum(2 * n**3 for n in self.matrices)


@dataclass(frozen=True)
class Network:
    """What a step of FITRE works on.

    Attributes:
        parameters: P.
        blocks: the curvature blocks.
        flops: by program the floating-point operations that a sample adds.
        sums: by program how many sums over ranks its graph has, and the numbers in them.
        tape: the numbers that a linearization keeps a sample.
    """

    parameters: int
    blocks: tuple[Block, ...]
    flops: Mapping[str, int]
    sums: Mapping[str, tuple[int, int]]
    tape: int

    @property
    def statistics(self) -> int:
        """How many numbers the statistics of all layers are made of, ΣT."""
        return sum(block.numbers for block in self.blocks)


def described(
    net: Layer, shape: Any, loss: nt.Loss = CLASSIFIED, batch_norm: str = "whole"
) -> Network:
    """Returns what the graphs of a network say.

    Args:
        net: the network.
        shape: the shape of one sample, as `newtriton.compile` takes it.
        loss: its loss.
        batch_norm: as `newtriton.DataParallel` takes it.
    """
    part = "whole" if batch_norm == "whole" else "own"
    programs = Programs(trace(net, shape, loss, part=part))
    traced = programs.traced
    made = {
        "linearize": programs.linearize,
        "quadratic": programs.quadratic(1),
        "evaluate": programs.evaluate,
        "factors": programs.factors("kfac"),
    }
    return Network(
        sum(_size(node) for node in traced.nodes.values()),
        _blocks(traced, made["factors"].outputs),
        {name: flops(p.graph, 2) - flops(p.graph, 1) for name, p in made.items()},
        {name: communicated(program.graph, 1) for name, program in made.items()},
        sum(node.type.numel(1) for node in programs.tape),
    )


def _blocks(traced: Traced, statistics: Mapping[Any, Node]) -> tuple[Block, ...]:
    """Returns the blocks, from the nodes of their statistics."""
    of_layer = defaultdict[str, list[Node]](list)
    for key, node in statistics.items():
        if isinstance(key, InputsGram | GradientsGram):
            of_layer[key.layer].append(node)
    found = list[Block]()
    for block in blocks(traced):
        parameters = sum(_size(traced.nodes[name]) for name in block.names)
        if not isinstance(block, KroneckerLayer):
            found.append(Block(parameters, (), parameters, parameters))
            continue
        nodes = of_layer[block.layer]
        matrices = [node for node in nodes if not block.is_diagonal(len(node.shape))]
        rows = [
            node.shape[-1] for node in matrices for _ in range(_size(node) // node.shape[-1] ** 2)
        ]
        diagonals = sum(_size(node) for node in nodes if node not in matrices)
        solving = 2 * parameters * sum(node.shape[-1] for node in matrices)
        numbers = sum(map(packed_size, rows)) + diagonals
        found.append(Block(parameters, tuple(rows), numbers, solving))
    return tuple(found)


def _size(node: Node) -> int:
    """Returns the number of elements of what no batch is in."""
    return math.prod(node.shape)


# --- the networks of the tables -------------------------------------------------------------------


def resnet50() -> nt.Sequential:
    """Returns ResNet-50 (He et al. 2016) for images of 224×224 pixels."""
    layers: list[Layer] = [*_normed(64, 7, 2), nt.ReLU(), nt.MaxPool2d(3, stride=2, padding=1)]
    for stage, repeats in enumerate((3, 4, 6, 3)):
        for i in range(repeats):
            layers.append(_bottleneck(64 << stage, 2 if stage and not i else 1, not i))
    return nt.Sequential(*layers, nt.AvgPool2d(7), nt.Flatten(), nt.Linear(CLASSES))


def _normed(width: int, kernel: int, stride: int = 1) -> tuple[Layer, Layer]:
    """Returns a convolution and its batch norm."""
    convolution = nt.Conv2d(width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nt.BatchNorm2d()


def _bottleneck(width: int, stride: int, projected: bool) -> Layer:
    """Returns three convolutions around a shortcut."""
    body = nt.Sequential(
        *_normed(width, 1), nt.ReLU(), *_normed(width, 3, stride), nt.ReLU(), *_normed(4 * width, 1)
    )
    shortcut = nt.Sequential(*_normed(4 * width, 1, stride)) if projected else None
    return nt.Sequential(nt.Residual(body, shortcut), nt.ReLU())


def transformer(layers: int = 16, width: int = 2048, words: int = 50304) -> nt.Sequential:
    """Returns a decoder with norms in front and a head of its own, 1.01e9 parameters by default.

    Positions are left out: they cost nothing beside the rest.
    """
    parts: list[Layer] = [nt.Embedding(words, width)]
    for _ in range(layers):
        attention = nt.SelfAttention(num_heads=width // 128, causal=True, bias=False)
        hidden = nt.Linear(4 * width, bias=False), nt.GELU(), nt.Linear(width, bias=False)
        parts.append(nt.Residual(nt.Sequential(nt.LayerNorm(), attention)))
        parts.append(nt.Residual(nt.Sequential(nt.LayerNorm(), *hidden)))
    return nt.Sequential(*parts, nt.LayerNorm(), nt.Linear(words, bias=False))


@dataclass(frozen=True)
class Task:
    """A network with the work of one GPU.

    Attributes:
        make: makes the network.
        shape: the shape of one sample.
        batch: the samples of a GPU.
        batch_norm: whose statistics it takes.
    """

    make: Callable[[], Layer]
    shape: Any
    batch: int
    batch_norm: str = "whole"

    @property
    def network(self) -> Network:
        """What its graphs say."""
        return described(self.make(), self.shape, batch_norm=self.batch_norm)


TASKS = {
    "VGG19": Task(lambda: nt.models.vgg19(CLASSES), IMAGE, 64),
    "ResNet-50": Task(resnet50, IMAGE, 64),
    "ResNet-50, norms of a rank": Task(resnet50, IMAGE, 64, "rank"),
    "transformer": Task(transformer, nt.InputSpec((1024,), "int"), 4),
}
