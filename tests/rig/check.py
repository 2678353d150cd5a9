# SPDX-License-Identifier: GPL-2.0-only
"""What make check finds in less than a minute: the rig's and the mails' form."""
import subprocess

import machine

NEEDS = ""


def quick():
    done = subprocess.run([machine.TOP / "scripts/check", "quick"], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=1200)
    assert not done.returncode, done.stdout[-3000:]


def cases():
    yield ("shellcheck, pyflakes and checkpatch --strict are silent, the "
           "patches are fit to be mailed", quick)
