"""Bad calls at random: every public callable is given arguments that it cannot use.

A `Call` is a good call, ready to be made; `describing.py` and `training.py` say for each public
name how one is made. `values.py` spoils a value, `mutations.py` a call, `trials.py` makes it and
looks at what became of it.
"""
