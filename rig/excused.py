# SPDX-License-Identifier: GPL-2.0-only
"""A file of reasons: what nobody can ask of the tests, and why.

    NAME
    NAME
    <tab>reason of these names, that may go on
    <tab>in the next line

Lines that begin with # and empty ones do not count.
"""


def read(path):
    """The reasons by name."""
    found, names = {}, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("\t"):
            if not names:
                raise ValueError(f"{path}:{number}: a reason without a name")
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            if line in found:
                raise ValueError(f"{path}:{number}: a second time: {line}")
            names = [line] if names and found[names[0]] else [*names, line]
            found[line] = ""
    missing = [name for name, reason in found.items() if not reason]
    if missing:
        raise ValueError(f"{path}: no reason for: {missing[0]}")
    return found
