"""What is checked: networks, small ones and those of the measurements, and their programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ...compiler import vectors
from ...compiler.graph.ir import Graph
from ...compiler.language.inputs import InputSpec
from ...compiler.language.network import Layer
from ...compiler.layers.activations import GELU, SiLU, Tanh
from ...compiler.layers.attention import SelfAttention
from ...compiler.layers.containers import Residual, Sequential
from ...compiler.layers.convolutions import Conv2d
from ...compiler.layers.linear import Embedding, Linear
from ...compiler.layers.models import vgg11, vgg16, vgg19
from ...compiler.layers.norms import BatchNorm2d, LayerNorm
from ...compiler.layers.pools import AvgPool2d, MaxPool2d
from ...compiler.layers.shaping import Flatten, Permute
from ...compiler.programs import Programs

LENGTH = 1_000_003  # the length of the vectors whose programs are checked as a GPU runs them


def plain() -> Layer:
    """Returns convolutions, pools and a head."""
    return Sequential(
        *(Conv2d(20, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Conv2d(17, 3, stride=2, padding=1), Tanh(), AvgPool2d(2), Flatten(), Linear(10)),
    )


def normed() -> Layer:
    """Returns batch norm, a residual, groups and dilation.

    No layer before batch norm has a bias: its gradient would be zero up to rounding, and no error
    is relative to that.
    """
    body = Sequential(Conv2d(8, 3, padding=1, groups=2, bias=False), BatchNorm2d(), GELU())
    return Sequential(
        *(Conv2d(8, 3, padding=2, dilation=2, bias=False), BatchNorm2d(), SiLU(), Residual(body)),
        *(MaxPool2d(3, 2, 1), Flatten(), Linear(7), SiLU(), Linear(3)),
    )


def block(heads: int, width: int, causal: bool = False) -> Layer:
    """Returns attention and a small network on every token, each beside what it gets."""
    inner = Linear(2 * width), GELU(), Linear(width)
    return Sequential(
        Residual(Sequential(LayerNorm(), SelfAttention(heads, causal=causal))),
        Residual(Sequential(LayerNorm(), *inner)),
    )


def patches(heads: int = 3, width: int = 12, side: int = 2, classes: int = 3) -> Layer:
    """Returns attention between the patches of an image."""
    tokens = Conv2d(width, side, stride=side), Flatten(2), Permute((0, 2, 1))
    return Sequential(*tokens, block(heads, width), Flatten(), Linear(classes))


def words(heads: int = 2, width: int = 8, different: int = 11) -> Layer:
    """Returns attention of every word to those before it, and which comes next."""
    body = block(heads, width, causal=True), LayerNorm()
    return Sequential(Embedding(different, width), *body, Linear(different))


# By name, what makes a network, and what one sample is.
Networks = Mapping[str, tuple[Callable[[], Layer], tuple[int, ...] | InputSpec]]
SMALL: Networks = {
    "plain": (plain, (3, 10, 9)),
    "normed": (normed, (2, 8, 8)),
    "patches": (patches, (3, 6, 4)),
    "words": (words, InputSpec((5,), "int")),
}
LARGE: Networks = {
    "vgg11": (vgg11, (3, 32, 32)),
    "vgg16": (vgg16, (3, 32, 32)),
    "vgg19": (vgg19, (3, 32, 32)),
    "vit": (partial(patches, 3, 192, 4, 10), (3, 32, 32)),
    "gpt": (partial(words, 4, 128, 1000), InputSpec((64,), "int")),
    "long": (partial(words, 4, 256, 8192), InputSpec((512,), "int")),
}


def network_programs(programs: Programs, two_products: bool) -> list[Graph]:
    """Returns what a step of the second-order methods runs.

    The linearization comes first, with its tape as outputs: the others start from it.

    Args:
        programs: the programs of a network.
        two_products: whether quadratic forms take two products a layer rather than three.
    """
    graph, quadratic = programs.linearize.graph, programs.quadratic(1, two_products=two_products)
    kept = {f"tape:{i}": n for i, n in enumerate(graph.nodes()) if n in programs.tape}
    others = (quadratic, programs.hvp, programs.ggnvp, programs.factors("kfac"))
    return [Graph("linearize", {**graph.outputs, **kept}), *(program.graph for program in others)]


def vector_programs() -> list[Graph]:
    """Returns what is done with flat vectors of any length."""
    ways = [(False, False), (True, False), (False, True)]
    iterations = [vectors.iteration(ball, preconditioned) for ball, preconditioned in ways]
    programs = [vectors.inner_products(3), vectors.combination(2), *iterations, vectors.turn()]
    return [program.graph for program in programs]
