#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes what a run found into docs/results.md, a section for each kind of run.

    rig/results.py TITLE <TEXT
    rig/results.py --steps TITLE <LINES     of "good STEP WHAT" or "BAD STEP WHAT"

A section of steps, which take hours together, has the last run of each, and what it
was of. Nobody edits that file. It is left alone where something in the repository is
not committed, as nobody could tell what the run was of.
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


def sections(page):
    """What is before the first title, and each section with its title."""
    return re.split(r"^(?=## )", page, flags=re.M)


def steps_in(page, title, said, of):
    """The section with these steps, and the others as they were."""
    before = "".join(part for part in sections(page) if part.startswith(f"## {title}\n"))
    lines = {step[1]: step[0] for step
             in re.finditer(r"^    (?:good|BAD) +(\S+) .*", before, re.M)}
    for line in said.splitlines():
        verdict, name, what = line.split(" ", 2)
        lines[name] = f"    {verdict:4} {name:11} {of}  {what}"
    return "\n".join([f"## {title}\n", "Each step with the day, the commit and the kernel "
                      "of its last run:\n", *lines.values()]) + "\n"


def replaced(page, title, section):
    """The page with this section in place of the one of that title, or at its end."""
    parts = sections(page)
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


def write(title, text, steps=False):
    if where.KERNEL != where.KERNELS[0]:
        title += f", KERNEL={where.KERNEL}"
    if is_dirty(git("status", "--porcelain", cwd=where.TOP)):
        print("# docs/results.md: not written, as not all is committed")
        return
    page = FILE.read_text()
    date = datetime.date.today().isoformat()
    commit = git("rev-parse", "--short=12", "HEAD", cwd=where.TOP)
    version = (where.BUILD / "version").read_text().strip()
    if steps:
        section = steps_in(page, title, text, f"{date} {commit} {version}")
    else:
        indented = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
        section = (f"## {title}\n\n{date}, of commit {commit}, Linux {version}:\n\n"
                   f"{indented}")
    FILE.write_text(replaced(page, title, section))
    print(f"# docs/results.md: wrote '{title}'")


if __name__ == "__main__":
    write(sys.argv[-1], sys.stdin.read(), sys.argv[1] == "--steps")
