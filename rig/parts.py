# SPDX-License-Identifier: GPL-2.0-only
"""The parts of the series that can be mailed one by one, see patches/parts/.

A file there is a part; its number is the place in the order in which they are sent:

    Subject: what the cover letter is called
    Builds-on: other parts, which come before
    Patches:
      subjects, in the order of the series, each for every kernel that has it

    the text of the cover letter

A part is put on the base after those that it builds on, and after what these build
on, as `git cherry-pick` would do it, but without a work tree.
"""
import re

import where
from commits import git, pick
from series import head

FOLDER = where.TOP / "patches/parts"


class PartError(Exception):
    pass


class Part:
    def __init__(self, path):
        self.name = path.name.partition("-")[2]
        head, _, self.text = path.read_text().partition("\n\n")
        found = re.fullmatch(r"Subject: (.*)\nBuilds-on:(.*)\nPatches:\n((?:  .*\n?)+)",
                             head)
        if not found:
            raise PartError(f"{path}: begins with Subject:, Builds-on: and Patches:")
        self.subject = found[1]
        self.builds_on = found[2].split()
        self.patches = [line.strip() for line in found[3].splitlines()]


def parts():
    """Of each name the part, in their order."""
    paths = sorted(FOLDER.iterdir(), key=lambda path: int(path.name.split("-")[0]))
    return {part.name: part for part in map(Part, paths)}


def below(part, known):
    """The parts that it builds on, and those these build on, in their order."""
    wanted = set(part.builds_on)
    for name in reversed(known):
        if name in wanted:
            wanted |= set(known[name].builds_on)
    return [known[name] for name in known if name in wanted]


def series():
    """Of each subject the commit, as make tree made them of patches/, or of SERIES=."""
    lines = git("log", "--reverse", "--format=%H %s", f"base..{head()}").splitlines()
    return {subject: commit for commit, _, subject in
            (line.partition(" ") for line in lines)}


def stack(part, known, commits):
    """The commit that the part is put on, and its last."""
    tip = git("rev-parse", "base^{commit}")
    for one in [*below(part, known), part]:
        start = tip
        for subject in one.patches:
            if subject not in commits:
                continue    # not in this kernel's series
            tip = pick(commits[subject], tip)
            if not tip:
                raise PartError(f"{part.name}: without the parts that it does not build "
                                f"on, this does not apply: {subject}")
    return start, tip


def faults(known, subjects):
    """What is wrong with the parts, given every kernel's subjects in order."""
    home = {}
    names = list(known)
    for part in known.values():
        if not re.search(r"^Prior art: ", part.text, re.MULTILINE):
            yield f"{part.name}: its letter says nothing of prior art"
        for name in part.builds_on:
            if name not in names[:names.index(part.name)]:
                yield f"{part.name}: builds on '{name}', which is no part before it"
        for subject in part.patches:
            if subject in home:
                yield f"{part.name}: is in {home[subject]} as well: {subject}"
            home[subject] = part.name
            if not any(subject in series for series in subjects.values()):
                yield f"{part.name}: no kernel's series has this: {subject}"
    for kernel, series in subjects.items():
        for subject in series:
            if subject not in home:
                yield f"patches/{kernel}: is in no part: {subject}"
        for part in known.values():
            here = [subject for subject in part.patches if subject in series]
            if not here:
                yield f"{part.name}: has no patch for {kernel}"
            if here != [subject for subject in series if subject in here]:
                yield f"{part.name}: its patches are in another order in patches/{kernel}"
