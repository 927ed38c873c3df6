"""What newtriton raises when it is given something that it cannot use."""


class NewtritonError(ValueError):
    """Bad input: the message names the value received and the way out."""


class ShapeError(NewtritonError):
    """A layer cannot take the shape that reaches it, or data do not fit the network.

    Attributes:
        placed: whether the message says at which layer it happened.
    """

    placed = False


class MissingRule(NewtritonError):
    """A transformation meets an op for which it has no rule."""
