#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Kernels are built here: in which directory, how configured, one at a time.

    rig/build.py COMMAND...     runs it while no other kernel is built
    rig/build.py --make SOURCE OUT  prints the make that compiles it there, a word a line
"""
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from command import git, run, say
from where import TOP

CONFIGS = TOP / "configs"
# One date for every build, so that a fresh clone finds its objects in ccache. Not of
# the make that calls: with its -s a build would show no progress.
ENV = {name: value for name, value in os.environ.items()
       if name not in ("MAKEFLAGS", "MFLAGS")} | {
           "KBUILD_BUILD_TIMESTAMP": "2025-01-01 00:00:00",
           "KBUILD_BUILD_USER": "rig", "KBUILD_BUILD_HOST": "rig"}


def work_tree(path, commit, keep=False):
    """The commit in a work tree of the kernel's tree.

    One that belongs to a tree that was made anew since is made anew, and one that
    does not is left as it is to keep it.
    """
    path.mkdir(parents=True, exist_ok=True)
    if run("git", "rev-parse", "--show-toplevel", cwd=path)[1] != f"{path}\n":
        shutil.rmtree(path)
        git("worktree", "prune")
        git("worktree", "add", "-q", "--detach", str(path), commit)
    elif not keep:
        git("checkout", "-q", "--detach", "-f", commit, cwd=path)


class Lock:
    """Two builds at a time take longer than one after the other, and a machine may
    hold several clones: one build a machine.

    Kept for some minutes once it is had: short builds would wait for long ones
    all the time. Who has it may ask for it again.
    """
    MINUTES = 3

    def __init__(self, folder=None):
        self.path = pathlib.Path(folder or tempfile.gettempdir()) / "kbuild.lock"
        self.file, self.since, self.holders = None, 0, 0

    def __enter__(self):
        if not self.file:
            if not self.path.exists():
                self.path.touch()
            # Somebody else's may be locked, but not written.
            self.file = self.path.open()
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another kernel build")
                fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()
        self.holders += 1

    def __exit__(self, *error):
        self.holders -= 1
        if not self.holders and time.monotonic() - self.since > 60 * self.MINUTES:
            self.file.close()
            self.file = None


lock = Lock()


def options(config):
    """The value of each symbol, None of one that is off: the last line counts."""
    found = {}
    for line in config.splitlines():
        symbol = re.match(r"CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set", line)
        if symbol:
            found[symbol[1] or symbol[3]] = symbol[2]
    return found


class Build:
    """A directory that a source is compiled in.

    fragments   of configs/, added to what `target` makes; where neither `on` nor
                `off` says which symbols must be set (to this, "VFIO=m") or not, all
                must be as in these
    arch        the kernel's name of it, where it is not this machine's
    """

    def __init__(self, source, out, fragments=(), arch="", cross="", compiler="gcc",
                 on=(), off=(), target="tinyconfig", env=None):
        self.source, self.out, self.target = source, out, target
        self.fragments = [CONFIGS / file for file in fragments]
        self.on, self.off = on, off
        self.compiler = cross + compiler
        self.settings = [f"CC=ccache {self.compiler}", "HOSTCC=ccache gcc",
                         "LOCALVERSION="]
        if arch:
            self.settings += [f"ARCH={arch}", f"CROSS_COMPILE={cross}"]
        self.command = ["make", "-C", str(source), f"O={out}", *self.settings,
                        f"-j{os.cpu_count()}"]
        # With paths relative to where the source is, which has the same name
        # everywhere.
        self.env = {**ENV, "CCACHE_BASEDIR": str(out.parent), **(env or {})}

    def make(self, *arguments, lock=lock):
        """Exit status and output of make; the output goes to the log as well."""
        with lock, subprocess.Popen(
                [*self.command, *arguments], env=self.env, text=True,
                errors="replace", stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            lines = []
            for line in process.stdout:
                say(line.rstrip("\n"))
                lines.append(line)
        return process.returncode, "".join(lines)

    def configure(self):
        self.out.mkdir(parents=True, exist_ok=True)
        config = self.out / ".config"
        asked = "".join(file.read_text() for file in self.fragments)
        for target in (self.target, "olddefconfig"):
            status, said = self.make("-s", target, lock=contextlib.nullcontext())
            if status:
                sys.exit(f"{said}{self.out.name}: cannot configure it")
            if target != "olddefconfig":
                with config.open("a") as file:
                    file.write(asked)
        got = options(config.read_text())
        wanted = options(asked)
        if self.on or self.off:
            wanted = dict.fromkeys(self.off) | {
                symbol: value or got.get(symbol) or "y" for symbol, _, value
                in (symbol.partition("=") for symbol in self.on)}
        wrong = [f"CONFIG_{symbol}={value or 'n'} (is: {got.get(symbol) or 'n'})"
                 for symbol, value in wanted.items() if got.get(symbol) != value]
        if wrong:
            sys.exit(f"{self.out.name}: the kernel does not take these options of "
                     "configs/:\n" + "\n".join(wrong))

    def forget(self, targets):
        """Has these directories and objects compiled anew."""
        for target in targets:
            path = self.out / target
            for made in path.rglob("*.o") if path.is_dir() else [path]:
                made.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        print(*Build(*map(pathlib.Path, sys.argv[2:])).command, sep="\n")
        sys.exit()
    with lock:
        sys.exit(subprocess.run(sys.argv[1:]).returncode)
