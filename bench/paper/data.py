"""The data of an experiment: the paper's where its files are at hand, and else a stand-in."""

from __future__ import annotations

from dataclasses import dataclass

import newtriton as nt

from .experiment import Setting


@dataclass(frozen=True)
class Chosen:
    """A data set.

    Attributes:
        name: what rows say of it, such as "digits in place of cifar10".
        train: the samples for training.
        test: those for tests.
    """

    name: str
    train: nt.Samples
    test: nt.Samples


def choose(setting: Setting, name: str, instead: str = "digits") -> Chosen:
    """Returns a data set of a paper, or what stands for it.

    Args:
        setting: has the folder with the files.
        name: the paper's data set.
        instead: the set to take where its files are not at hand: one that needs none.
    """
    sets = {"digits": nt.digits, "curves": lambda: nt.split(nt.curves(), 0.2)}
    train, test = sets[instead]()
    return Chosen(f"{instead} in place of {name}", train, test)
