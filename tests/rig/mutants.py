# SPDX-License-Identifier: GPL-2.0-only
"""What makes mutants of the series' code, and the reasons why some may survive."""
import os

import command
import excused
import mutate
import where

IOMMU = where.LINUX / "drivers/iommu"
NEEDS = "tree"
AT_LEAST = 300


def made():
    for name in ("pci-group", "pci-reach"):
        source = (IOMMU / f"{name}.c").read_text()
        yield name, source, mutate.mutants(name, source)


def enough():
    names = [f"{file}: {mutant.name}" for file, _, mutants in made()
             for mutant in mutants]
    assert len(names) >= AT_LEAST, f"only {len(names)}"
    assert len(names) == len(set(names)), "two have one name"
    assert len({mutant.kind for *_, mutants in made() for mutant in mutants}) > 10


def are_listed():
    """With those of iommu.c, of which it takes the lines that the series adds."""
    status, said = command.run(where.TOP / "scripts/mutants", "list", timeout=300)
    assert not status, said
    names = {f"{file}: {mutant.name}" for file, _, mutants in made()
             for mutant in mutants}
    listed = {line for line in said.splitlines() if not line.startswith("iommu: ")}
    assert listed == names, listed ^ names


def other_guests():
    """They would count as asked, and no test of theirs had run."""
    status, said = command.run(where.TOP / "scripts/mutants", "list", timeout=60,
                               env=dict(os.environ, GUESTS="options raech"))
    assert status and "GUESTS=raech" in said, said


def one_change():
    for file, source, mutants in made():
        code = mutate.blank(source)
        for mutant in mutants:
            changed = mutant.apply(source)
            assert changed != source, mutant.name
            # What comes before and after is as it was, and no line has moved
            assert changed.startswith(source[:mutant.start]), mutant.name
            assert changed.endswith(source[mutant.end:]), mutant.name
            assert mutant.kind.startswith("return") or mutant.kind == "drop" or \
                changed.count("\n") == source.count("\n"), mutant.name
            # Not in comments or strings
            piece = source[mutant.start:mutant.end]
            assert not piece.strip() or '"' in piece or mutant.kind.startswith(
                "without") or code[mutant.start] == source[mutant.start], mutant.name


def names_stay():
    for file, source, mutants in made():
        moved = "/* one more line */\n" * 7 + source
        assert [m.name for m in mutate.mutants(file, moved)] == \
            [m.name for m in mutants], file


def reasons():
    names = {f"{file}: {mutant.name}" for file, _, mutants in made()
             for mutant in mutants}
    for name in excused.read(where.TOP / "rig/mutants.equivalent"):
        if not name.startswith("iommu: "):
            assert name in names, f"no mutant of this name: {name}"


def cases():
    yield f"{AT_LEAST} mutants and more are made, each with a name of its own", enough
    yield "scripts/mutants list names them", are_listed
    yield "GUESTS= names a file of tests that it does not know", other_guests
    yield "each changes one piece of code", one_change
    yield "they keep their names when lines move", names_stay
    yield "those with a reason to survive are made", reasons
