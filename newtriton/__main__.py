"""`python -m newtriton`: the command line, as `torchrun -m newtriton` starts it on every rank."""

import sys

from newtriton.command.main import main

if __name__ == "__main__":
    sys.exit(main())
