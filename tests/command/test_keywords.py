"""Keywords as text: every one of every optimizer, checked by its type, and listed."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Optional

import pytest
import torch

import newtriton as nt
from newtriton.command.catalogue import OPTIMIZERS
from newtriton.command.keywords import Entry, Part
from newtriton.compiler.graph.errors import NewtritonError


def example(  # noqa: D417 - some arguments are not documented
    model: object,
    count: int = 1,
    rate: float = 0.5,
    flag: bool = False,
    word: str = "w",
    old: Optional[float] = None,  # noqa: UP045 - PyTorch writes it so
    word_or_none: str | None = "w",
    every: int | tuple[int, int] = 5,
    betas: tuple[float | torch.Tensor, float] = (0.9, 0.99),
    layers: Sequence[str] = (),
    part: "nt.Solver | str" = "kfi",
    average: nt.PolyakAverage | None = None,
    schedule: Callable[[object], object] | None = None,
    untyped=3,
) -> dict[str, object]:
    """Gives its arguments.

    Args:
        model: the model.
        count: a count, which is said
            on two lines.
        rate: a rate.
    """
    return {name: value for name, value in locals().items() if name != "model"}


ENTRY = Entry(example)


def test_every_keyword_that_can_be_text_is_there() -> None:
    everything = list(inspect.signature(example).parameters)
    assert list(ENTRY.settable) == [n for n in everything if n not in ("model", "average")]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("count=3", 3),
        ("rate=3", 3.0),
        ("rate=1e-3", 1e-3),
        ("rate=-2.5", -2.5),
        ("flag=true", True),
        ("flag=False", False),
        ("word=abc", "abc"),
        ("word='a b'", "a b"),
        ("word=a=b", "a=b"),
        ("word=3", "3"),
        ("old=none", None),
        ("old=2", 2.0),
        ("word_or_none=None", None),
        ("word_or_none=eigen", "eigen"),
        ("every=7", 7),
        ("every=1,20", (1, 20)),
        ("every=(1, 20)", (1, 20)),
        ("betas=0.5,0.9", (0.5, 0.9)),
        ("layers=0,3", ["0", "3"]),
        ("layers=", []),
        ("part=eigen", "eigen"),
        ("untyped=4", 4),
        ("schedule=none", None),
        ("schedule=math:floor", math.floor),
    ],
)
def test_text_becomes_a_value(setting: str, expected: object) -> None:
    given = ENTRY.read([setting], "example")
    (value,) = given.values()
    assert value == expected
    assert type(value) is type(expected)
    assert ENTRY(None, **given)[setting.partition("=")[0]] == expected


class Mine:
    """A part that a model, or nothing, is enough for."""

    def __init__(self, model: object = None) -> None:
        self.model = model


def of_nothing(*several: object, **more: object) -> Mine:
    return Mine(*several, **more)


def of_two(model: object, other: object) -> None: ...


def failing() -> None:
    raise KeyError("oh")


READY = Mine("a model")


def test_a_part_is_an_object_or_what_makes_one_of_the_model_or_of_nothing() -> None:
    def made(name: str) -> object:
        given = ENTRY.read([f"part={__name__}:{name}"], "example")
        (part,) = given.values()
        assert isinstance(part, Part) and part.text == f"{__name__}:{name}"
        return ENTRY("the model", **given)["part"]

    assert made("READY") is READY
    ours, theirs = made("Mine"), made("of_nothing")
    assert isinstance(ours, Mine) and ours.model == "the model"
    assert isinstance(theirs, Mine) and theirs.model is None
    with pytest.raises(NewtritonError, match="of_two needs other: give an object, or a class or"):
        made("of_two")
    with pytest.raises(NewtritonError, match="failing failed with KeyError: 'oh'"):
        made("failing")


@pytest.mark.parametrize("optimizer", ["second-order", "preconditioned"])
def test_parts_of_optimizers_may_be_the_users(optimizer: str) -> None:
    known = OPTIMIZERS[optimizer].settable
    parts = [name for name, keyword in known.items() if "a part of yours" in keyword.expected]
    assert parts == ["curvature", "solver", "rule"][: 3 if optimizer == "second-order" else 2]


def test_the_last_value_of_a_name_counts() -> None:
    assert ENTRY.read(["count=3", "rate=1", "count=4"], "example") == {"count": 4, "rate": 1.0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cout=3", "example has no 'cout'; it takes count, rate, flag"),
        ("average=0.9", "example has no 'average'"),
        ("model=1", "example has no 'model'"),
        ("count", "write it as name=value"),
        ("count=3.5", "--set count=3.5: give a whole number"),
        ("count=true", "give a whole number"),
        ("rate=fast", "--set rate=fast: give a number"),
        ("rate=none", "give a number"),
        ("rate=", "give a number"),
        ("flag=1", "give true or false"),
        ("old=x", "give a number, or none"),
        ("every=1,2,3", "give a whole number, or 2 values separated by commas, each a whole num"),
        ("every=1,x", "give a whole number, or 2 values"),
        ("schedule=cosine", "give a function of yours, module:attribute, or none"),
        ("schedule=math:cosine", "--set schedule: math has no 'cosine'"),
        ("part=math:flor", "--set part: math has no 'flor'; did you mean 'floor'?"),
        ("part=3:", "--set part is '3:'"),
        ("flg=true", "did you mean 'flag'?"),
        ("betas=0.9", "give 2 values separated by commas, each a number"),
    ],
)
def test_what_is_no_value_says_what_is(setting: str, message: str) -> None:
    with pytest.raises(NewtritonError) as raised:
        ENTRY.read([setting], "example")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_table_says_what_documentation_says() -> None:
    lines = ENTRY.listed().splitlines()
    assert lines[0].split("  ")[-1].strip() == "a count, which is said on two lines."
    assert lines[2].split() == ["flag=false", "true", "or", "false"]
    assert lines[6].split()[0] == "every=5"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_default_of_an_optimizer_can_be_given(name: str) -> None:
    entry = OPTIMIZERS[name]
    for keyword in entry.settable.values():
        default = f"{keyword.name}={keyword.default}"
        if isinstance(keyword.default, tuple):
            default = f"{keyword.name}={','.join(map(str, keyword.default))}"
        (value,) = entry.read([default], name).values()
        assert value == keyword.default or [*value] == [*keyword.default]
        assert f"{keyword.name}=" in entry.listed()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_keywords_are_those_of_its_class(name: str) -> None:
    entry = OPTIMIZERS[name]
    makes = [entry.make] if entry.cls is None else [entry.make, entry.cls]
    known = {
        parameter.name
        for make in makes
        for parameter in inspect.signature(make).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }
    objects_alone = {"average"} if entry.make is nt.SecondOrder else set()
    assert set(entry.settable) == known - objects_alone


def test_names_of_torch_optim_bring_their_own_defaults() -> None:
    model = nt.compile(nt.Linear(2), (2,), nt.CrossEntropyLoss(), device="cpu")
    sgd = OPTIMIZERS["sgd"](model, momentum=0.5).optimizer.param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"]) == (0.03, 0.5, True)
    lbfgs = OPTIMIZERS["lbfgs"](model, **OPTIMIZERS["lbfgs"].read(["history_size=20"], "lbfgs"))
    assert lbfgs.optimizer.param_groups[0]["history_size"] == 20
