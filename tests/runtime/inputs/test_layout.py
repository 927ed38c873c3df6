"""Where parameters lie: aligned ones first, views in both orders, faults in one error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.network import trace
from newtriton.compiler.values import Gradient
from newtriton.runtime.inputs.layout import ALIGNMENT, Layout, faults, raise_faults

net = nt.Sequential(nt.Conv2d(4, (3, 2), bias=False), nt.Flatten(), nt.Linear(3))
layout = Layout(trace(net, (2, 4, 3), nt.CrossEntropyLoss()).parameters.values())
flat = torch.arange(float(layout.numel))


def test_sizes_and_names() -> None:
    assert layout.numel == 4 * 12 + 3 * 16 + 3
    assert [*layout.parameters] == ["0.weight", "2.weight", "2.bias"]
    assert layout.layers == {"0": ["0.weight"], "2": ["2.weight", "2.bias"]}


def test_tensors_of_whole_lines_come_first() -> None:
    odd = nt.Sequential(nt.Linear(3), nt.Linear(16))
    found = Layout(trace(odd, (5,), nt.MSELoss()).parameters.values())
    starts = {name: place.start for name, place in found.slices.items()}
    assert [*starts] == ["1.weight", "1.bias", "0.weight", "0.bias"]
    assert starts["1.bias"] % ALIGNMENT == starts["0.weight"] % ALIGNMENT == 0
    assert sum(place.stop - place.start for place in found.slices.values()) == found.numel


def test_places_are_indices_into_a_flat_vector() -> None:
    views = layout.views(flat)
    found = flat[layout.places(["2.bias", "0.weight"])]
    assert torch.equal(found, torch.cat([views["2.bias"], views["0.weight"].flatten()]))


def test_names_that_are_of_no_layer_are_refused() -> None:
    layout.check_layers("plain", ["0", "2"])
    with pytest.raises(NewtritonError, match="plain names '1': give layers, of '0', '2'"):
        layout.check_layers("plain", ["0", "1"])


def test_weights_of_convolutions_lie_with_channels_last() -> None:
    ours, theirs = layout.views(flat)["0.weight"], layout.torch_views(flat)["0.weight"]
    assert ours.shape == (4, 3, 2, 2) and theirs.shape == (4, 2, 3, 2)
    assert torch.equal(theirs, ours.permute(0, 3, 1, 2))
    theirs[0, 1, 2, 0] = -1.0
    assert flat[layout.slices["0.weight"]][(2 * 2 + 0) * 2 + 1] == -1.0


def test_flattening_is_the_inverse_of_views() -> None:
    named = {name: view.contiguous() for name, view in layout.torch_views(flat).items()}
    assert torch.equal(layout.flatten(named, flat), flat)
    with pytest.raises(nt.NewtritonError, match=r"flatten: missing 2\.bias"):
        layout.flatten({name: x for name, x in named.items() if name != "2.bias"}, flat)


def test_an_output_that_is_missing_is_zero() -> None:
    target, views = layout.target(Gradient, [Gradient("2.weight")], torch.full_like(flat, 7.0))
    assert set(views) == {Gradient("2.weight")}
    views[Gradient("2.weight")].fill_(1.0)
    named = layout.views(target)
    assert (named["2.weight"] == 1.0).all()
    assert not named["0.weight"].any() and not named["2.bias"].any()


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.zeros(1, layout.numel), [1.0]], ids=str)
def test_a_vector_has_the_length_of_the_parameters(vector: Tensor) -> None:
    assert layout.check(flat, "v") is flat
    with pytest.raises(nt.NewtritonError, match=f"v is .* flat vector of {layout.numel} elements"):
        layout.check(vector, "v")


def test_every_fault_is_named_in_one_error() -> None:
    given = {"b": torch.zeros(3), "c": 1.0, "d": torch.tensor([float("nan")]), "e": torch.zeros(1)}
    shapes: dict[str, tuple[int, ...]] = {"a": (2,), "b": (2,), "c": (), "d": (1,)}
    found = faults({n: torch.zeros(s) for n, s in shapes.items()}, given)
    assert found == [
        "missing a",
        "b has shape (3,), not (2,)",
        "c is float, not a tensor",
        "d has values that are not finite",
        "unexpected e",
    ]
    with pytest.raises(nt.NewtritonError, match="load: missing a; b has shape"):
        raise_faults("load", found)
    raise_faults("load", [])


def test_tensors_without_numbers_are_faults() -> None:
    values = torch.ones(2, dtype=torch.float64)
    given = {"a": values.to_sparse(), "b": values.to("meta"), "c": values * 1e300, "d\n": values}
    assert faults({name: torch.zeros(2) for name in "abc"}, given) == [
        "a is a tensor with the layout torch.sparse_coo: use .to_dense()",
        "b is on the device 'meta', which has no numbers",
        "c has values that are not finite",
        r"unexpected 'd\n'",
    ]


def test_layers_are_named_in_a_list() -> None:
    layout = nt.compile(nt.Sequential(nt.Linear(2)), (3,), nt.MSELoss(), device="cpu").layout
    assert layout.check_layers("plain", ["0"]) == ("0",)
    with pytest.raises(nt.NewtritonError, match="plain is 3: give a list of names"):
        layout.check_layers("plain", 3)
    with pytest.raises(nt.NewtritonError, match="plain names '1': give layers, of '0'"):
        layout.check_layers("plain", ["1"])
