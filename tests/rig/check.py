# SPDX-License-Identifier: GPL-2.0-only
"""What make check finds in less than a minute: the rig's and the mails' form."""
import command
import where

NEEDS = ""


def quick():
    status, said = command.run(where.TOP / "scripts/check", "quick", timeout=1200)
    assert not status, said[-3000:]


def other_words():
    status, said = command.run(where.TOP / "scripts/check", "quikc", timeout=60)
    assert status and "'quikc' is not known" in said, said[-3000:]


def one_step():
    """By itself, of every kernel, and no step besides.

    Of SERIES=, as what comes of that is not written into docs/results.md: other tests
    read it.
    """
    status, said = command.run(where.TOP / "scripts/check", "same", timeout=600,
                               env=command.any_kernel() | {"SERIES": "series"})
    assert not status, said[-3000:]
    good = [line for line in said.splitlines() if line.startswith("good: ")]
    assert len(good) == 1 and "one kernel and of the other" in good[0], said
    for kernel in where.KERNELS:
        assert f"patches/{kernel}:" in said, said


def cases():
    yield ("shellcheck, pyflakes and checkpatch --strict are silent, the "
           "patches are fit to be mailed", quick)
    yield "scripts/check names a word that it does not know", other_words
    yield "scripts/check same checks the series with each other and no more", one_step
