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


def cases():
    yield ("shellcheck, pyflakes and checkpatch --strict are silent, the "
           "patches are fit to be mailed", quick)
    yield "scripts/check names a word that it does not know", other_words
