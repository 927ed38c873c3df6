"""Values that a call cannot use, made from those that it can.

A spoiled value comes with a phrase that says what was done, and with what has to come of it:
"refused" where no call may take it, "same" where it means what the good value meant, "any" where
that is for the call to say, as long as it says it clearly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

HUGE = 1 << 40


class Spoiled(NamedTuple):
    """A value in place of a good one.

    Attributes:
        value: the value.
        phrase: what it is.
        outcome: "refused", "same" or "any".
    """

    value: Any
    phrase: str
    outcome: str = "any"


class Unprintable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("this object has no text")


class Hostile(Unprintable):
    """An object of which every use raises."""

    def _raise(self, *given: Any) -> Any:
        raise RuntimeError("this object has no use")

    __bool__ = __len__ = __iter__ = __float__ = __int__ = __index__ = __eq__ = _raise
    __lt__ = __le__ = __gt__ = __ge__ = __add__ = __mul__ = __contains__ = _raise
    __getitem__ = __array__ = keys = items = _raise
    __hash__ = object.__hash__


class Broken(Mapping):
    """A dictionary whose values cannot be read."""

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("this dictionary has no values")

    def __iter__(self) -> Any:
        return iter(["x", "weight"])

    def __len__(self) -> int:
        return 2


class Marked(Tensor):
    """A user's subclass of tensors."""


class Text(str):
    """A user's subclass of strings."""


def kinds(rng: Random) -> Spoiled:
    """Returns an object of a kind that hardly any argument has."""
    return rng.choice(
        [
            Spoiled(None, "None"),
            Spoiled(object(), "an object"),
            Spoiled(nn.Linear(2, 2), "a module"),
            Spoiled(nn.Linear, "a class"),
            Spoiled(lambda *given: given, "a function"),
            Spoiled((i for i in range(3)), "a generator"),
            Spoiled(Unprintable(), "an object without a text", "refused"),
            Spoiled(Hostile(), "an object whose methods raise", "refused"),
            Spoiled(Broken(), "a dictionary whose values cannot be read", "refused"),
            Spoiled(np.zeros((3, 3)), "an array"),
            Spoiled(torch.zeros(40, 40), "a tensor of 1,600 numbers"),
            Spoiled(torch.tensor(math.nan), "a tensor with NaN", "any"),
            Spoiled({}, "an empty dictionary"),
            Spoiled((), "an empty tuple"),
            Spoiled([None, "x"], "a list"),
            Spoiled({1, 2}, "a set"),
            Spoiled(b"bytes", "bytes"),
            Spoiled("text", "a text"),
            Spoiled(Ellipsis, "an ellipsis"),
            Spoiled(1j, "a complex number", "refused"),
            Spoiled(range(1 << 40), "a long range"),
            Spoiled(torch.float32, "a dtype"),
            Spoiled(NotImplemented, "NotImplemented"),
        ]
    )


def integers(rng: Random, value: int) -> Spoiled:
    """Returns something else than an integer, or another one."""
    return rng.choice(
        [
            Spoiled(True, "a boolean", "refused"),
            Spoiled(np.bool_(True), "an array's boolean", "refused"),
            Spoiled(value + 0.5, "a fraction", "refused"),
            Spoiled(float(value), "a float"),
            Spoiled(math.nan, "NaN", "refused"),
            Spoiled(math.inf, "inf", "refused"),
            Spoiled(-1, "−1"),
            Spoiled(0, "0"),
            Spoiled(-value, "its negative"),
            Spoiled(HUGE, "2⁴⁰"),
            Spoiled(-HUGE, "−2⁴⁰"),
            Spoiled(1 << 20, "2²⁰"),
            Spoiled((1 << 31) - 1, "2³¹ − 1"),
            Spoiled(1 << 70, "2⁷⁰"),
            Spoiled(value + 1, "one more"),
            Spoiled(str(value), "its text", "refused"),
            Spoiled(np.int64(value), "an array's integer", "same"),
            Spoiled(np.float32(value), "an array's float"),
            Spoiled(torch.tensor(value), "a tensor's integer"),
            Spoiled(torch.tensor([value]), "a tensor with it"),
            Spoiled(np.array([value]), "an array with it"),
            Spoiled(Fraction(value), "a Fraction"),
            Spoiled(Decimal(value), "a Decimal", "refused"),
            Spoiled((value,), "a tuple of it"),
            Spoiled([value, value], "a list of two"),
            Spoiled((value, value, value, value, value), "a tuple of five"),
            Spoiled([value, None], "a list with None"),
            Spoiled((value, HUGE), "a tuple with 2⁴⁰"),
            Spoiled(complex(value), "a complex number", "refused"),
            Spoiled(None, "None"),
        ]
    )


def numbers(rng: Random, value: float) -> Spoiled:
    """Returns something else than a number, or another one."""
    return rng.choice(
        [
            Spoiled(True, "a boolean", "refused"),
            Spoiled(np.bool_(True), "an array's boolean", "refused"),
            Spoiled(math.nan, "NaN", "refused"),
            Spoiled(np.float64(math.nan), "an array's NaN", "refused"),
            Spoiled(math.inf, "inf", "refused"),
            Spoiled(-math.inf, "−inf", "refused"),
            Spoiled(10**400, "10⁴⁰⁰", "refused"),
            Spoiled(-1.0, "−1"),
            Spoiled(0.0, "0"),
            Spoiled(-0.0, "−0"),
            Spoiled(-value, "its negative"),
            Spoiled(1e300, "10³⁰⁰"),
            Spoiled(5e-324, "the smallest number"),
            Spoiled(str(value), "its text", "refused"),
            Spoiled(np.float64(value), "an array's float", "same"),
            Spoiled(torch.tensor(value), "a tensor's number"),
            Spoiled(np.array(value), "an array of it"),
            Spoiled(complex(value), "a complex number", "refused"),
            Spoiled(Decimal("0.5"), "a Decimal", "refused"),
            Spoiled((value,), "a tuple of it"),
            Spoiled([value, value, value], "a list of three"),
            Spoiled(None, "None"),
        ]
    )


def flags(rng: Random, value: bool) -> Spoiled:
    """Returns something else than a flag."""
    return rng.choice(
        [
            Spoiled(int(value), "an integer"),
            Spoiled(2, "2", "refused"),
            Spoiled(float(value), "a float"),
            Spoiled(math.nan, "NaN", "refused"),
            Spoiled(str(value), "its text", "refused"),
            Spoiled("", "an empty text", "refused"),
            Spoiled([], "an empty list", "refused"),
            Spoiled(np.bool_(value), "an array's boolean"),
            Spoiled(torch.tensor(value), "a tensor's boolean"),
            Spoiled(torch.tensor([value, value]), "a tensor of two", "refused"),
        ]
    )


def texts(rng: Random, value: str) -> Spoiled:
    """Returns something else than an option's text, or another one."""
    return rng.choice(
        [
            Spoiled("", "an empty text"),
            Spoiled(value.upper() + "!", "another text"),
            Spoiled(f" {value}", "a space before it"),
            Spoiled(value.encode(), "its bytes", "refused"),
            Spoiled(Text(value), "a subclass of texts", "same"),
            Spoiled("x" * 10_000, "a long text"),
            Spoiled("a\nb\tc\x00d", "a text of several lines"),
            Spoiled("{value!r} %s \\", "a text with formats"),
            Spoiled("../../etc/passwd", "a path"),
            Spoiled("\ud800", "half a character"),
            Spoiled([value], "a list of it"),
            Spoiled(None, "None"),
            Spoiled(1, "an integer", "refused"),
            Spoiled(math.nan, "NaN", "refused"),
            Spoiled(True, "a boolean", "refused"),
        ]
    )


def devices(rng: Random) -> Spoiled:
    """Returns a device that is not there, or none."""
    named = ["cuda", "cuda:99", "meta", "nonsense", "cpu:7", "mps", "xla:0", "", "cpu:-1", "cpu\n"]
    other = [-1, 99, 1 << 40, 1.5, True, torch.device("meta"), torch.device("cuda:3"), b"cpu"]
    value = rng.choice([*named, *other])
    return Spoiled(value, f"device {value!r}")


def dtypes(rng: Random) -> Spoiled:
    """Returns a dtype that nothing computes in, or none."""
    other = ["float32", float, int, np.float32, np.dtype("float64"), 32]
    kinds = [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8]
    value = rng.choice([*kinds, *other])
    return Spoiled(value, f"dtype {value!r}", "refused")


def _with(x: Tensor, number: float) -> Tensor:
    """Returns a copy with a number in one place."""
    x = x.clone()
    if x.numel():
        x.view(-1)[x.numel() // 2] = number
    return x


def _apart(x: Tensor) -> Tensor:
    """Returns the same numbers, none beside the next one."""
    wide = x.new_zeros((*x.shape, 2))
    wide[..., 0] = x
    return wide[..., 0]


def _in_inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def _as_leaf(x: Tensor) -> Tensor:
    return x.clone().requires_grad_(x.is_floating_point())


def _same_tensors(rng: Random, x: Tensor) -> Spoiled:
    """Returns a tensor that means the same."""
    return rng.choice(
        [
            lambda: Spoiled(_apart(x), "a tensor with gaps", "same"),
            lambda: Spoiled(_as_leaf(x), "a tensor that requires grad", "same"),
            lambda: Spoiled(_as_leaf(x) + 0, "a tensor that autograd has made", "same"),
            lambda: Spoiled(nn.Parameter(x.clone(), x.is_floating_point()), "a Parameter", "same"),
            lambda: Spoiled(_in_inference(x), "a tensor of inference mode", "same"),
            lambda: Spoiled(x.clone().as_subclass(Marked), "a subclass of tensors", "same"),
            lambda: Spoiled(x.mT.contiguous().mT if x.ndim > 1 else x, "other strides", "same"),
            lambda: (
                Spoiled(x.neg()._neg_view(), "a negated view", "same")
                if x.is_floating_point()
                else Spoiled(x, "itself", "same")
            ),
        ]
    )()


def _wrong_tensors(rng: Random, x: Tensor) -> Spoiled:
    """Returns a tensor of another shape or kind, or another container of its numbers."""
    one = x[:1].expand(x.shape) if x.ndim else x
    return rng.choice(
        [
            lambda: Spoiled(x.unsqueeze(0), "an axis more"),
            lambda: Spoiled(x.unsqueeze(-1), "an axis more at the end"),
            lambda: Spoiled(x.reshape(-1), "one axis"),
            lambda: Spoiled(x[:0] if x.ndim else x, "no samples"),
            lambda: Spoiled(x[:-1] if x.ndim else x, "one less"),
            lambda: Spoiled(torch.cat([x, x], -1) if x.ndim else x, "twice as wide"),
            lambda: Spoiled(x.mT if x.ndim > 1 else x, "axes exchanged"),
            lambda: Spoiled(x.new_zeros(()), "a scalar"),
            lambda: Spoiled(x.new_zeros(0), "an empty tensor"),
            lambda: Spoiled(one, "a sample expanded"),
            lambda: Spoiled(x.new_zeros(1).expand(HUGE), "2⁴⁰ numbers"),
            lambda: Spoiled(x.to(torch.float16), "float16"),
            lambda: Spoiled(x.to(torch.bfloat16), "bfloat16"),
            lambda: Spoiled(x.double(), "float64"),
            lambda: Spoiled(x.float(), "float32"),
            lambda: Spoiled(x.to(torch.int32), "int32"),
            lambda: Spoiled(x.long(), "int64"),
            lambda: Spoiled(x.to(torch.uint8), "uint8"),
            lambda: Spoiled(x.bool(), "booleans"),
            lambda: Spoiled(x.to(torch.complex64), "complex numbers", "refused"),
            lambda: Spoiled(x.to("meta"), "on meta", "refused"),
            lambda: Spoiled(x.double().to_sparse(), "sparse", "refused"),
            lambda: Spoiled(x.to_sparse(), "sparse of its dtype", "refused"),
            lambda: Spoiled(x.tolist(), "nested lists"),
            lambda: Spoiled(x.numpy(), "an array"),
            lambda: Spoiled((x, x), "a pair of it"),
            lambda: Spoiled({"x": x}, "a dictionary with it"),
            lambda: Spoiled([x], "a list with it"),
            lambda: Spoiled(torch.nested.nested_tensor([x, x]), "a nested tensor", "refused"),
            lambda: Spoiled(Tensor, "the class of tensors", "refused"),
        ]
    )()


def tensors(rng: Random, name: str, x: Tensor) -> Spoiled:
    """Returns something else than a tensor, or another one."""
    share = rng.random()
    if share < 0.25:
        return _same_tensors(rng, x)
    if share < 0.4 and x.dtype != torch.uint8:
        if not x.is_floating_point():
            number = rng.choice([-1, -100, HUGE, -HUGE, 1 << 20, 1000])
            # Of some losses −100 is the label that does not count.
            outcome = "any" if number == -100 else "refused"
            return Spoiled(_with(x, number), f"{number} in it", outcome)
        number = rng.choice([math.nan, math.inf, -math.inf, 1e30, -1e38])
        bad = not math.isfinite(number)
        return Spoiled(_with(x, number), f"{number} in it", "refused" if bad else "any")
    return _wrong_tensors(rng, x)


def spoiled(rng: Random, name: str, value: Any) -> Spoiled:
    """Returns a value in place of a good one.

    Args:
        rng: chooses.
        name: the argument's name.
        value: the good value.
    """
    if rng.random() < 0.2:
        return kinds(rng)
    if name == "device":
        return devices(rng)
    if isinstance(value, torch.dtype) or name == "dtype":
        return dtypes(rng)
    if isinstance(value, bool):
        return flags(rng, value)
    if isinstance(value, int):
        return integers(rng, value)
    if isinstance(value, float):
        return numbers(rng, value)
    if isinstance(value, str):
        return texts(rng, value)
    if isinstance(value, Tensor):
        return tensors(rng, name, value)
    if isinstance(value, Mapping) and value:
        return mappings(rng, value)
    if isinstance(value, (tuple, list)) and value:
        return sequences(rng, name, value)
    return kinds(rng)


def mappings(rng: Random, value: Mapping[Any, Any]) -> Spoiled:
    """Returns a dictionary with something else in one place."""
    key = rng.choice(list(value))
    inner = spoiled(rng, str(key), value[key])
    rest = {k: v for k, v in value.items() if k != key}
    return rng.choice(
        [
            Spoiled({**value, key: inner.value}, f"{inner.phrase} at {key}", inner.outcome),
            Spoiled({**value, key: inner.value}, f"{inner.phrase} at {key}", inner.outcome),
            Spoiled({**value, key: inner.value}, f"{inner.phrase} at {key}", inner.outcome),
            Spoiled(rest, f"no {key}"),
            Spoiled({**value, "surplus": value[key]}, "a key more"),
            Spoiled({**value, 3: value[key]}, "an integer for a key", "refused"),
            Spoiled({**rest, f"{key}\n": value[key]}, "a key with a line's end"),
            Spoiled({**rest, f"module.{key}": value[key]}, "a prefix"),
            Spoiled(tuple(value.values()), "a tuple of its values"),
            Spoiled(list(value.items()), "pairs"),
            Spoiled(dict(reversed(value.items())), "another order", "same"),
        ]
    )


def sequences(rng: Random, name: str, value: Any) -> Spoiled:
    """Returns a tuple or list with something else in one place."""
    at = rng.randrange(len(value))
    inner = spoiled(rng, name, value[at])
    changed = (*value[:at], inner.value, *value[at + 1 :])
    made: Any = getattr(type(value), "_make", type(value))  # of a named tuple
    # Among sizes, booleans and the like are refused as they are alone.
    return rng.choice(
        [
            Spoiled(made(changed), f"{inner.phrase} at {at}", inner.outcome),
            Spoiled(made(changed), f"{inner.phrase} at {at}", inner.outcome),
            Spoiled(made(changed), f"{inner.phrase} at {at}", inner.outcome),
            Spoiled(value[:-1], "one less"),
            Spoiled((*value, value[-1]), "one more"),
            Spoiled(value[0], "its first"),
            Spoiled({"x": value}, "a dictionary with it"),
            Spoiled((value, value), "nested"),
            Spoiled(list(value), "a list"),
            Spoiled(tuple(value), "a tuple"),
            Spoiled(made(reversed(value)), "another order"),
            Spoiled(iter(value), "an iterator"),
            Spoiled((), "nothing"),
        ]
    )
