"""Functions of networks as graphs: what layers and captured modules are built of.

Values are channels-last, (*lead, *spatial, C), with any number of lead and spatial axes; callers
transpose what lies otherwise. Everything is made from the op set, so derivatives of every order
follow.
"""
