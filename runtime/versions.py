"""The versions of PyTorch and Triton that newtriton runs on, and what it takes from Triton.

No version is too new: one that lacks something is refused with a sentence when it is first needed,
before any kernel is.
"""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module

from ..compiler.graph.errors import NewtritonError

OLDEST = {"torch": "2.11", "triton": "3.6"}
TESTED = {"torch": "2.11.0, 2.13.0, 2.14.1, 2.15.0", "triton": "3.6.0, 3.7.1, 3.8.0, 3.9.0"}
# What is taken from each package, by module; tests hold the list complete.
TAKEN: dict[str, dict[str, str]] = {
    "torch": {},
    "triton": {
        "triton": "jit",
        "triton.backends.compiler": "GPUTarget",
        "triton.knobs": "cache compilation",
        "triton.language": "abs arange bfloat16 constexpr cos cumsum dot erf exp float32 float64"
        " full int32 load log max maximum min minimum permute program_id reshape sigmoid sin split"
        " sqrt PropagateNan static_range store sum trans uint32 where zeros",
        "triton.runtime.cache": "CacheManager get_cache_manager",
        "triton.runtime.driver": "driver driver.set_active",
        "triton.runtime.jit": "MockTensor",
    },
}


def require(package: str) -> None:
    """Makes sure that a package can be used.

    Args:
        package: "torch" or "triton".

    Raises:
        NewtritonError: it is too old, or lacks what is taken from it.
    """
    version = import_module(package).__version__
    if release(version) < release(OLDEST[package]):
        raise NewtritonError(
            f"{package} {version} is installed, and newtriton needs {OLDEST[package]} or newer: "
            f"pip install --upgrade '{package}>={OLDEST[package]}'"
        )
    if missing := missing_from(package):
        raise NewtritonError(
            f"{package} {version} lacks {', '.join(missing)}, which newtriton needs: install one "
            f"that it is tested with ({TESTED[package]}), or use backend='aten'"
        )


def release(version: str) -> tuple[int, int]:
    """Returns the first two numbers of a version, whatever follows them."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def missing_from(package: str) -> list[str]:
    """Returns the names that are taken from a package and that it does not have."""
    return [
        f"{module}.{name}"
        for module, names in TAKEN[package].items()
        for name in names.split()
        if not _there(module, name)
    ]


def _there(module: str, name: str) -> bool:
    """Whether a module has a name, which may have dots."""
    try:
        reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError):
        return False
    return True
