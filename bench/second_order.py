"""Gradient, quadratic form, Hessian product and K-FAC factors, against PyTorch and curvlinops.

Networks are nn.Modules, captured by `from_torch`. Each of ours starts from nothing: `linearize` and
then the product. PyTorch's best is the fastest of contiguous and channels-last eager code, and of
torch.compile over forward-over-reverse and reverse-over-forward (reverse-over-reverse does not
compile) where a compiler is at hand.

On a GPU each call has its peak memory beside it, parameters and data left out. That of a call of
ours has the memory of its plans, and of those that were called before it.

Factors are those of the layers that curvlinops takes, where it is installed: linear layers and
convolutions whose weights nothing else shares. Both sides draw one label, and square the adjoints
of one backward pass for it. curvlinops needs a forward pass before that, and throws gradients for
the drawn labels away. `linearize` is a forward pass and the gradient for the true labels, which a
step takes anyway: "factors" of ours from nothing include it, "gradient + factors" has it on both
sides, and "factors of a linearization" on neither.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import newtriton as nt

from ..runtime.aten.switches import switches
from ._measure import CPU, interleaved, parser, report, summary, tried
from ._modules import GPT, Attended, Scaled, ViT, resnet20

Calls = dict[str, Callable[[], Any]]

WORDS = 50_304  # of GPT-2, and as many more as make a multiple of 128


def vgg(depth: int, narrowed: int = 1) -> nn.Sequential:
    """Returns the VGG of a depth in torch.nn, with so many times fewer channels."""
    layers: list[nn.Module] = []
    channels = 3
    for width in nt.models.VGG[depth]:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width // narrowed, 3, padding=1), nn.SiLU()]
            channels = width // narrowed
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))


def images(batch: int, size: int = 32, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Returns random images, of CIFAR-10's size unless another is given, and labels."""
    return torch.randn(batch, 3, size, size), torch.randint(0, classes, (batch,))


def sentences(batch: int, positions: int = 64, words: int = 1000) -> tuple[Tensor, Tensor]:
    """Returns random sentences, and the word that follows each of their words."""
    found = torch.randint(0, words, (batch, positions + 1))
    return found[:, :-1].contiguous(), found[:, 1:].contiguous()


def features(batch: int, width: int, classes: int = WORDS) -> tuple[Tensor, Tensor]:
    """Returns random rows of features, and labels."""
    return torch.randn(batch, width), torch.randint(0, classes, (batch,))


def attended(batch: int, positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns random queries, keys and values in one tensor, and a label for each position."""
    labels = torch.randint(0, width, (batch, positions))
    return torch.randn(batch, positions, 3 * width), labels


@dataclass(frozen=True)
class Network:
    """What is measured.

    Attributes:
        module: makes the network.
        data: makes a batch of a size.
        batch: the size unless another is asked for.
    """

    module: Callable[[], nn.Module]
    data: Callable[[int], tuple[Tensor, Tensor]]
    batch: int


def gpt(layers: int, width: int, positions: int, words: int, batch: int) -> Network:
    """Returns a GPT with heads of 64."""
    net = partial(GPT, layers, width, positions, words, heads=width // 64)
    return Network(net, partial(sentences, positions=positions, words=words), batch)


def attention(width: int, positions: int, batch: int) -> Network:
    """Returns causal attention alone, in heads of 64."""
    data = partial(attended, positions=positions, width=width)
    return Network(partial(Attended, width, width // 64), data, batch)


NETS: Mapping[str, Network] = {
    **{f"vgg{depth}": Network(partial(vgg, depth), images, 64) for depth in (11, 16, 19)},
    "resnet20": Network(resnet20, images, 64),
    "gpt": Network(GPT, sentences, 16),
    "vit": Network(ViT, images, 16),
    # Of as many words at each number of positions: what fits two threads, and what fits a GPU.
    **{f"gpt-256-{t}": gpt(4, 256, t, 8192, 2048 // t) for t in (256, 1024)},
    **{f"gpt-512-{t}": gpt(4, 512, t, 50_257, 8192 // t) for t in (512, 1024, 2048)},
    **{f"attention-{t}": attention(512, t, 8192 // t) for t in (512, 1024, 2048)},
    # A cross entropy alone, of logits that are given but for a factor each, and on a head.
    "cross-entropy": Network(partial(Scaled, WORDS), partial(features, width=WORDS), 256),
    "head": Network(partial(nn.Linear, 768, WORDS, bias=False), partial(features, width=768), 256),
}


def mean_loss(z: Tensor, y: Tensor) -> Tensor:
    """Returns the mean cross entropy over all labels, classes last."""
    return nn.functional.cross_entropy(z.flatten(0, -2), y.flatten())


def eager(net: nn.Module, x: Tensor, y: Tensor, v: list[Tensor]) -> Calls:
    """Returns the calls of the gradient, and of gradient and Hessian product by double backward."""
    params = list(net.parameters())

    def gradient() -> Any:
        return torch.autograd.grad(mean_loss(net(x), y), params)

    def hvp() -> Any:
        grads = torch.autograd.grad(mean_loss(net(x), y), params, create_graph=True)
        return torch.autograd.grad(grads, params, v)

    return {"gradient": gradient, "hvp": lambda: with_math(hvp)}


COMPILED = "gradient", "hvp, forward over reverse", "hvp, reverse over forward"


def compiled(net: nn.Module, x: Tensor, y: Tensor, v: list[Tensor]) -> Calls:
    """Returns the same by torch.compile, in both orders of the two derivatives."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    tangents = dict(zip(params, v, strict=True))

    def loss(p: dict[str, Tensor]) -> Tensor:
        return mean_loss(functional_call(net, p, (x,)), y)

    def of_module() -> Any:
        return torch.autograd.grad(mean_loss(whole(x), y), list(net.parameters()))

    whole = torch.compile(net)
    forward_reverse = torch.compile(lambda p, t: jvp(grad(loss), (p,), (t,)))
    reverse_forward = torch.compile(
        lambda p, t: (grad(loss)(p), grad(lambda q: jvp(loss, (q,), (t,))[1])(p))
    )
    calls = (
        of_module,
        lambda: with_math(forward_reverse, params, tangents),
        lambda: with_math(reverse_forward, params, tangents),
    )
    return dict(zip(COMPILED, calls, strict=True))


def with_math(call: Callable[..., Any], *given: Any) -> Any:
    """Makes a call in which attention is that of matrix products: no other has two derivatives."""
    with sdpa_kernel(SDPBackend.MATH):
        return call(*given)


class ClassesSecond(nn.Module):
    """A network with its classes where PyTorch's loss has them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Maps a batch to N×K×…."""
        return self.net(x).movedim(-1, 1)


def kronecker_layers(net: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Returns the layers that curvlinops has factors of, by name: none shares its weights."""
    embedded = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
    return {
        name: m
        for name, m in net.named_modules()
        if isinstance(m, (nn.Linear, nn.Conv2d)) and id(m.weight) not in embedded
    }


def factors(net: nn.Module, model: nt.Model, x: Tensor, y: Tensor) -> Calls:
    """Returns the calls of K-FAC factors with one draw; nothing without curvlinops."""
    try:
        from curvlinops import KFACLinearOperator  # noqa: PLC0415 (only where it is installed)
    except ImportError:
        return {}

    module, layers = ClassesSecond(net), kronecker_layers(net)
    params = [p for m in layers.values() for p in m.parameters()]

    def theirs() -> Any:
        operator = KFACLinearOperator(
            module, nn.CrossEntropyLoss(), params, [(x, y)], check_deterministic=False,
            separate_weight_and_bias=False,
        )  # fmt: skip
        return operator.compute_kronecker_factors()

    def ours() -> Any:
        return model.linearize(x, y).kronecker_factors("kfac", layers=layers)

    gradient, made = eager(net, x, y, [])["gradient"], model.linearize(x, y)
    return {
        "curvlinops: factors": theirs,
        "curvlinops: gradient + factors": lambda: (gradient(), theirs()),
        "newtriton: factors": ours,
        "newtriton: gradient + factors": ours,
        "newtriton: factors of a linearization": lambda: made.kronecker_factors(
            "kfac", layers=layers
        ),
    }


RIVALS = {
    "gradient + quadratic form": "hvp",
    "gradient + hvp": "hvp",
    "factors of a linearization": "factors",
}


def measure(
    name: str,
    batch: int | None = None,
    precision: str = "ieee",
    rounds: int = 7,
    device: torch.device = CPU,
    compiles: Collection[str] = COMPILED,
    statistics: bool = True,
) -> list[dict[str, Any]]:
    """Returns rows: milliseconds, and ratios to the best of the others in the same run.

    Args:
        name: the network's, one of `NETS`.
        batch: the batch size; the network's own unless given.
        precision: of contractions, ours and PyTorch's.
        rounds: how often each call is timed.
        device: where it runs.
        compiles: what is measured of torch.compile, of `COMPILED`.
        statistics: whether factors are measured on a CPU.
    """
    torch.manual_seed(0)
    network = NETS[name]
    batch = batch or network.batch
    net, (x, y) = network.module().to(device), (t.to(device) for t in network.data(batch))
    ours = copy.deepcopy(net)
    model = nt.from_torch(ours, x, nt.CrossEntropyLoss(), precision=precision)
    flat = 0.01 * torch.randn_like(model.params)
    v = [t.contiguous() for t in model.unflatten(flat).values()]
    theirs = {"eager": eager(net, x, y, v)}
    if x.ndim == 4:
        last = torch.channels_last
        by_channels = copy.deepcopy(net).to(memory_format=last)  # type: ignore[call-overload]
        theirs["eager, channels last"] = eager(by_channels, x.contiguous(memory_format=last), y, v)
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with switches(device, precision != "ieee"), half:
        by_compiler = compiled(net, x, y, v)
        theirs["compiled"] = {what: by_compiler[what] for what in compiles}
        calls = {f"{who}: {what}": f for who, fs in theirs.items() for what, f in fs.items()}
        calls |= {
            "newtriton: gradient": lambda: model.gradient(x, y),
            "newtriton: gradient + quadratic form": lambda: model.linearize(x, y).quadratic_forms(
                [flat]
            ),
            "newtriton: gradient + hvp": lambda: model.linearize(x, y).hvp(flat),
            **(factors(net, model, x, y) if device.type == "cpu" and statistics else {}),
        }
        taken = tried(calls, device)
        seconds = interleaved({name: calls[name] for name in taken}, rounds, device)
    rows: list[dict[str, Any]] = []
    for call, times in seconds.items():
        row: dict[str, Any] = {
            "net": name, "batch": batch, "precision": precision, "call": call, **summary(times),
        }  # fmt: skip
        row |= {"peak_MB": round(taken[call] / 1e6)} if taken[call] else {}
        who, what = call.split(": ")
        rival = _best(seconds, RIVALS.get(what, what))
        if who == "newtriton" and rival is not None:
            row["times_faster_than_best"] = round(rival / median(times), 2)
        rows.append(row)
    return rows


def _best(seconds: Mapping[str, list[float]], what: str) -> float | None:
    """Returns the median seconds of the fastest of the others at something, None without any."""
    others = [name for name in seconds if not name.startswith("newtriton")]
    times = [median(seconds[name]) for name in others if name.split(": ")[1].startswith(what)]
    return min(times, default=None)


def main() -> None:
    """Prints a table for each network, precision and batch size."""
    options = parser(__doc__)
    options.add_argument("--net", choices=NETS, nargs="+", default=["vgg11"])
    options.add_argument("--batches", type=int, nargs="+", default=[None])
    options.add_argument("--precisions", nargs="+", default=["ieee"])
    options.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options.add_argument("--no-factors", action="store_true", help="leave K-FAC factors out")
    given = options.parse_args()
    also = {"compiles": () if given.no_compile else COMPILED, "statistics": not given.no_factors}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    for name in given.net:
        for precision in given.precisions:
            for batch in given.batches:
                rows += measure(name, batch, precision, given.rounds, device, **also)
    report(rows, given.json)


if __name__ == "__main__":
    main()
