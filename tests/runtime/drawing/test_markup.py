"""XML from keywords."""

from xml.etree import ElementTree

import pytest

from newtriton.runtime.drawing.markup import fit, make, points, serialised


@pytest.mark.parametrize("name", ['<&">', "a\x00b", "\udcff", "]]>", "'--><script>", "\ufffe"])
def test_any_name_is_text(name: str) -> None:
    found = ElementTree.fromstring(serialised(make("text", name, class_=name)))
    assert found.text == fit(name)
    assert found.get("class") == fit(name)
    assert len(fit(name)) == len(name)


def test_numbers_are_short_and_empty_attributes_are_left_out() -> None:
    found = make("rect", x=1.0, width=2.25, height=3, class_="", data_v=0)
    assert found.attrib == {"x": "1", "width": "2.2", "height": "3", "data-v": "0"}


def test_a_path_is_level_where_it_can_be() -> None:
    assert points([(0.0, 1.0), (5.0, 1.0), (9.0, 3.0)]) == "M0 1H5C7 1 7 3 9 3"
