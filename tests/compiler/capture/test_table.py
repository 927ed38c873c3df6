"""What people write by hand, op by op, against autograd."""

import pytest

from ...modules import ODDITIES, check_captured


@pytest.mark.parametrize("name", ODDITIES)
def test_derivatives_of_what_people_write_are_autograds(name: str) -> None:
    check_captured(ODDITIES[name])
