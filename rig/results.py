#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes what a run found into docs/results.md, a section for each kind of run.

    rig/results.py TITLE <TEXT

Nobody edits that file. It is left alone where something in the repository is not
committed, as nobody could tell what the run was of.
"""
import contextlib
import datetime
import io
import re
import sys

import where
from command import git

FILE = where.TOP / "docs/results.md"
# What such runs write themselves.
OWN = ("docs/results.md", "docs/bench.svg")


def is_dirty(status):
    """Of git status --porcelain: is there anything but what the runs write?"""
    return any(line[3:] not in OWN for line in status.splitlines())


def replaced(page, title, section):
    """The page with this section in place of the one of that title, or at its end."""
    parts = re.split(r"^(?=## )", page, flags=re.M)
    for number, part in enumerate(parts):
        if part.startswith(f"## {title}\n"):
            parts[number] = section
            break
    else:
        parts.append(section)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


class Both(io.StringIO):
    """Keeps what is printed, and prints it."""

    def __init__(self):
        super().__init__()
        self.out = sys.stdout

    def write(self, text):
        self.out.write(text)
        self.out.flush()
        return super().write(text)


@contextlib.contextmanager
def written(title):
    """What is printed inside is a section, if it ends well."""
    with contextlib.redirect_stdout(Both()) as both:
        yield
    write(title, both.getvalue())


def write(title, text):
    if where.KERNEL != where.KERNELS[0]:
        title += f", KERNEL={where.KERNEL}"
    if is_dirty(git("status", "--porcelain", cwd=where.TOP)):
        print("# docs/results.md: not written, as not all is committed")
        return
    date = datetime.date.today().isoformat()
    indented = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
    commit = git("rev-parse", "--short=12", "HEAD", cwd=where.TOP)
    section = (f"## {title}\n\n{date}, of commit {commit}, "
               f"Linux {(where.BUILD / 'version').read_text().strip()}:\n\n{indented}")
    FILE.write_text(replaced(FILE.read_text(), title, section))
    print(f"# docs/results.md: wrote '{title}'")


if __name__ == "__main__":
    write(sys.argv[1], sys.stdin.read())
