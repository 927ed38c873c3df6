"""Captured networks against themselves in PyTorch: outputs in both modes, derivatives, refusals."""

import pytest

from ...modules import NETWORKS, check_captured


@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_of_a_captured_network_are_autograds(name: str) -> None:
    check_captured(NETWORKS[name])
