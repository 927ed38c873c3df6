"""A network whose kernels are few."""

import newtriton as nt


def small() -> nt.Model:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3))
    return nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")
