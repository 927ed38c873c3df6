"""A package that is missing is named, with the extra that installs it."""

import json

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.extras import need


def test_a_module_is_imported_when_it_is_needed() -> None:
    assert need("json", "JSON", "a test") is json


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(NewtritonError, match=r"svhn needs Nothing: .* 'newtriton\[data\]'"):
        need("nothing_like_it", "Nothing", "svhn")
