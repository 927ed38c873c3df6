"""What libraries get of options is plain."""

import pytest
import torch

import newtriton as nt
from newtriton.runtime.tracking.events import Place
from newtriton.runtime.tracking.tracker import began, library, plain


def test_options_become_what_json_has() -> None:
    given = {"lr": 0.1, 3: (1, None), "device": torch.device("cpu"), "flag": True}
    assert plain(given) == {"lr": 0.1, "3": [1, None], "device": "cpu", "flag": True}


def test_a_tracker_has_a_run_up_to_where_it_went_on() -> None:
    tracker = nt.Tracker()
    assert tracker.begin({"event": "resumed", "run": "a", "steps": 4, "epochs": 2}) == Place()
    assert tracker.begin({"event": "resumed", "run": "a", "steps": 4, "epochs": 2}) == Place(4, 2)
    assert tracker.begin({"event": "begun", "run": "b", "steps": 0, "epochs": 0}) == Place()


def test_errors_of_services_become_one() -> None:
    with pytest.raises(nt.NewtritonError, match="no run can begin with It: KeyError"), began("It"):
        raise KeyError
    with pytest.raises(nt.NewtritonError, match=r"^mine$"), began("It"):
        raise nt.NewtritonError("mine")
    with pytest.raises(nt.NewtritonError, match="A needs no_such: pip install no_such"):
        library("no_such", "no_such", "A")
