"""Folders for what will be trusted: those that nobody else can write to.

Where there is none, one warning says so, and things go on without.
"""

from __future__ import annotations

import os
import stat
import warnings
from functools import cache
from pathlib import Path

UNMAPPED = 65534  # owns, in a container, what is root's outside: the kernel's overflow uid


def private(path: Path, what: str, variable: str) -> Path | None:
    """Returns a folder, made where it is missing; None, after a warning, if it is not safe.

    Args:
        path: the folder.
        what: what would be kept there.
        variable: the environment variable that names another folder.
    """
    try:
        path = path.resolve()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fault = fault_of(path)
    except (OSError, RuntimeError) as error:  # of Python before 3.13 for a circle of links
        fault = reason(error)
    if fault is None:
        return path
    warn(path, what, variable, fault)
    return None


def reason(error: Exception) -> str:
    """Returns what an error of the operating system says."""
    return getattr(error, "strerror", None) or str(error)


@cache
def warn(path: Path, what: str, variable: str, fault: str) -> None:
    """Warns, once in a process, that something is not kept."""
    warnings.warn(
        f"{what} cannot be kept in {path}: {fault}; set {variable} to a folder of your own",
        stacklevel=3,
    )


def fault_of(path: Path) -> str | None:
    """Returns why code from a folder would not be safe to run; None if it is.

    Args:
        path: the folder, without links on the way to it.
    """
    me = os.geteuid()
    for folder in (path, *path.parents):
        status = folder.stat()
        owners = {me} if folder == path else {me, 0, UNMAPPED}
        if status.st_uid not in owners:
            return f"user {status.st_uid} owns {folder}"
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = folder != path and status.st_mode & stat.S_ISVTX  # nobody renames what is ours
        if shared and not sticky and not (shared == stat.S_IWGRP and _own_group(status.st_gid)):
            return f"others can write to {folder} (chmod 700 would forbid it)"
    return None


def _own_group(group: int) -> bool:
    """Whether a group is the user's alone: it has the user's name, and no other member."""
    import grp  # noqa: PLC0415 - POSIX has them
    import pwd  # noqa: PLC0415

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}
