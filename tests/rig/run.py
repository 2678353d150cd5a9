# SPDX-License-Identifier: GPL-2.0-only
"""What make run prints, of which README shows some lines."""
import re

import command
import where

NEEDS = "guest"


def prints_what_readme_shows():
    status, said = command.run(where.TOP / "scripts/run", timeout=600)
    assert not status, said
    printed = [line.split() for line in said.splitlines()]
    shown = re.search(r"^    device   what it is .*\n((?:    \S.*\n)+)",
                      (where.TOP / "README.md").read_text(), re.MULTILINE)[1]
    for line in shown.splitlines():
        # Apart by more than a space: device, what, two numbers, members, why
        device, what, before, after, members, why = re.split(r"  +", line.strip())
        rows = [row for row in printed if row[:1] == [device]]
        assert len(rows) == 2, f"{device} is not in both machines: {said}"
        for row in rows:
            row = " ".join(row).replace("<- changed: ", "")
            assert re.fullmatch(rf"{device} {re.escape(what)} {before} \S.* {after} "
                                rf"{re.escape(members)} {re.escape(why)}", row), \
                f"README: {line}, make run: {row}"


def cases():
    yield "make run prints the lines that README shows", prints_what_readme_shows
