"""What newtriton raises when it is given something that it cannot use."""


class NewtritonError(ValueError):
    """Bad input: the message names the value received and the way out.

    It is a ValueError. Everything is checked before any parameter changes.

    Examples:
        >>> import newtriton as nt
        >>> try:
        ...     nt.GELU(approximate="fast")
        ... except nt.NewtritonError as error:
        ...     print(error)
        approximate is 'fast': one of 'none', 'tanh'
    """


class ShapeError(NewtritonError):
    """A layer cannot take the shape that reaches it, or data do not fit the network.

    Attributes:
        placed: whether the message says at which layer it happened.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Conv2d(4, 3), nt.Linear(10))
        >>> try:
        ...     nt.compile(net, input_shape=(1, 8, 8), loss=nt.CrossEntropyLoss())
        ... except nt.ShapeError as error:
        ...     print(error)
        Linear(10) at layer 1 got a 4×6×6 image: add Flatten() before it
    """

    placed = False


class MissingRule(NewtritonError):
    """A transformation meets an op for which it has no rule.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> net = nt.Sequential(nt.Linear(4), nt.Residual(nt.Linear(4)), nt.Linear(3))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> lin = model.linearize(torch.zeros(2, 4), torch.tensor([0, 1]))
        >>> try:
        ...     lin.kronecker_factors("kfra")
        ... except nt.MissingRule as error:
        ...     print("kfra goes along chains of layers" in str(error))
        True
    """
