"""The data of an experiment: the paper's where its files are at hand, and else a stand-in."""

from __future__ import annotations

from dataclasses import dataclass

import newtriton as nt

from ...runtime.data.sets import NAMES
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

    def at_most(self, samples: int | None) -> Chosen:
        """Returns it with so many samples at most in each part, of every class its share.

        Args:
            samples: the number; None for all.
        """
        if samples is None or samples >= len(self.train.y):
            return self
        train, test = (
            nt.split(part, samples / len(part.y))[1] if samples < len(part.y) else part
            for part in (self.train, self.test)
        )
        return Chosen(f"{samples} samples of {self.name}", train, test)


def choose(
    setting: Setting, name: str, preprocessing: str | None = None, instead: str = "digits"
) -> Chosen:
    """Returns a data set of a paper, or what stands for it.

    Args:
        setting: has the folder with the files.
        name: the paper's data set.
        preprocessing: what is done to it, as in `load`; what stands for it has its own default.
        instead: the set to take where its files are not at hand: one that needs none.
    """
    if name in NAMES and nt.available(name, setting.data_dir):
        return Chosen(name, *nt.load(name, setting.data_dir, preprocessing=preprocessing))
    return Chosen(f"{instead} in place of {name}", *nt.load(instead))
