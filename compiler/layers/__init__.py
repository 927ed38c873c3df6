"""The layers, named and parametrised as PyTorch's, and networks that are made of them.

Positional arguments are sizes, in PyTorch's order; how much goes in may be left out, and is checked
where it is given. All the rest are options, and go by name.
"""
