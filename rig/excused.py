# SPDX-License-Identifier: GPL-2.0-only
"""A file of reasons: what nobody can ask of the tests, and why.

    NAME
    <tab>reason, that may go on
    <tab>in the next line

Lines that begin with # and empty ones do not count.
"""


def read(path):
    """The reasons by name."""
    found, name = {}, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("\t"):
            if name is None:
                raise ValueError(f"{path}:{number}: a reason without a name")
            found[name] = f"{found[name]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            name = line
            if name in found:
                raise ValueError(f"{path}:{number}: a second time: {name}")
            found[name] = ""
    missing = [name for name, reason in found.items() if not reason]
    if missing:
        raise ValueError(f"{path}: no reason for: {missing[0]}")
    return found
