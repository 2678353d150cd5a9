# SPDX-License-Identifier: GPL-2.0-only
"""What make check finds in less than a minute: the rig's and the mails' form."""
import command
import where

NEEDS = ""


def quick():
    status, said = command.run(where.TOP / "scripts/check", "quick", timeout=1200)
    assert not status, said[-3000:]


def cases():
    yield ("shellcheck, pyflakes and checkpatch --strict are silent, the "
           "patches are fit to be mailed", quick)
