"""The series as commits, a tree to walk through them, and what compilers say.

What is checked is what make tree made of patches/, or the branch or commit that
the variable SERIES names, in the kernel's tree.
"""
import collections
import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from where import BUILD, LINUX, TOP

STATE = BUILD / "check"
TREE = STATE / "linux"

# As in scripts/kernel: clones share what ccache has.
ENV = dict(os.environ, CCACHE_BASEDIR=str(BUILD), KBUILD_BUILD_USER="rig",
           KBUILD_BUILD_HOST="rig", KBUILD_BUILD_TIMESTAMP="2025-01-01 00:00:00")
MESSAGE = re.compile(r"\b(warning|error|fatal error|sorry)\b: |\*\*\* ", re.I)
PLACE = re.compile(r":\d+(:\d+(-\d+)?)?(?=:)|\+0x[0-9a-f]+| line \d+")


in_use = []


def say(text):
    print(text, flush=True)


def run(*command, cwd=TREE, env=None):
    """Exit status and output of a command."""
    done = subprocess.run(command, cwd=cwd, env=env, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def git(*command, cwd=LINUX):
    status, said = run("git", *command, cwd=cwd)
    if status:
        sys.exit(f"git {' '.join(command)}: {said}")
    return said


def commits():
    """The base, and each commit of the series."""
    head = os.environ.get("SERIES") or \
        (LINUX / ".git/rig-patches").read_text().split()[1]
    return [git("rev-parse", "base^{commit}").strip(),
            *git("rev-list", "--reverse", f"base..{head}").split()]


def name(commit):
    return git("show", "-s", "--format=%h %s", commit).strip()


def work_tree(path, commit):
    """The commit in a work tree of the kernel's tree.

    One that belongs to a tree that was made anew since is made anew.
    """
    path.mkdir(parents=True, exist_ok=True)
    if run("git", "rev-parse", "--show-toplevel", cwd=path)[1] != f"{path}\n":
        shutil.rmtree(path)
        git("worktree", "prune")
        git("worktree", "add", "-q", "--detach", str(path), commit)
    git("checkout", "-q", "--detach", "-f", commit, cwd=path)


def checkout(commit):
    """One program at a time has the tree."""
    STATE.mkdir(parents=True, exist_ok=True)
    if not in_use:
        in_use.append((STATE / "lock").open("w"))
        fcntl.flock(in_use[0], fcntl.LOCK_EX)
    work_tree(TREE, commit)


def touched(first, last, *suffixes):
    """The files that differ, and are there at the end."""
    return [file for file in git("diff", "--name-only", "--diff-filter=d",
                                 first, last).splitlines()
            if file.endswith(suffixes or "")]


def messages(output):
    """What tools complain of, without where exactly, and how often.

    Of a header it counts once: every file that includes it says so again.
    """
    found = collections.Counter(
        PLACE.sub("", re.sub(rf"({TREE}|\.\./{TREE.name})/", "", line)).strip()
        for line in output.splitlines() if MESSAGE.search(line))
    for line in found:
        if re.match(r"[^:]+\.h:", line):
            found[line] = 1
    return found


def new_messages(what, before, after):
    """Says what is complained of and was not before, or not as often.

    True where there is none.
    """
    new = sorted((collections.Counter(after)
                  - collections.Counter(before)).items())
    for line, count in new:
        say(f"NEW, {what}: {line}" + (f" ({count} more)" if count > 1 else ""))
    return not new


@functools.cache
def version(tool):
    return run(tool, "--version", cwd=TOP)[1]


class BuildLock:
    """One kernel build a machine, see lock_build in lib.sh.

    Kept for some minutes once it is had: short builds would wait for long ones
    all the time.
    """
    MINUTES = 3

    def __init__(self):
        self.file, self.since = None, 0

    def __enter__(self):
        if not self.file:
            path = pathlib.Path(tempfile.gettempdir()) / "kbuild.lock"
            if not path.exists():
                path.touch()
            # Somebody else's may be locked, but not written.
            self.file = path.open()
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another kernel build")
                fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()

    def __exit__(self, *error):
        if time.monotonic() - self.since > 60 * self.MINUTES:
            self.file.close()
            self.file = None


build_lock = BuildLock()


class Build:
    """A directory that the tree is compiled in.

    `on` and `off` are symbols without which the configuration is not what it is
    for; `target` makes what the fragments are added to.
    """

    def __init__(self, directory, fragments=(), variables=(), on=(), off=(),
                 target="tinyconfig", compiler="gcc"):
        self.out = STATE / directory
        self.fragments = [TOP / "configs" / file for file in fragments]
        self.command = ["make", "-C", str(TREE), f"O={self.out}",
                        f"CC=ccache {compiler}", "HOSTCC=ccache gcc",
                        "LOCALVERSION=", f"-j{os.cpu_count()}", *variables]
        self.on, self.off, self.target = on, off, target
        self.compiler = compiler
        self.arch = {"ARCH=arm64": "arm64"}.get(variables[0] if variables else "",
                                                "x86")

    def make(self, *arguments, lock=build_lock):
        """Exit status and output of make; the output goes to the log as well."""
        with lock, subprocess.Popen(
                [*self.command, *arguments], env=ENV, text=True,
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
        status = self.make("-s", self.target, lock=contextlib.nullcontext())[0]
        with config.open("a") as file:
            for fragment in self.fragments:
                file.write(fragment.read_text())
        if status or self.make("-s", "olddefconfig",
                               lock=contextlib.nullcontext())[0]:
            sys.exit(f"{self.out.name}: cannot configure it")
        now = config.read_text()
        for symbol, wanted in [*((s, True) for s in self.on),
                               *((s, False) for s in self.off)]:
            if (f"\nCONFIG_{symbol}=" in now) != wanted:
                sys.exit(f"{self.out.name}: CONFIG_{symbol} is not "
                         + ("set" if wanted else "off"))

    def key(self, *things):
        """What tells one result from another."""
        digest = hashlib.sha256()
        for thing in (*self.command, *things, self.on, self.off,
                      *(file.read_text() for file in self.fragments),
                      *(pathlib.Path(file).read_text()
                        for file in (__file__, sys.argv[0])),
                      *map(version, (self.compiler, "sparse", "spatch"))):
            digest.update(repr(thing).encode())
        return digest.hexdigest()[:24]

    def forget(self, targets):
        """Has these directories and objects compiled anew."""
        for target in targets:
            path = self.out / target
            for made in path.rglob("*.o") if path.is_dir() else [path]:
                made.unlink(missing_ok=True)


BUILDS = {
    "x86_64": Build("x86_64", ["base.config", "check/all.config"],
                    on=["INTEL_IOMMU", "AMD_IOMMU", "VIRTIO_IOMMU", "VFIO_PCI",
                        "KUNIT_ALL_TESTS"]),
    "noiommu": Build("noiommu", ["noiommu.config", "check/noiommu.config"],
                     on=["PCI", "PCI_IOV"], off=["IOMMU_API"]),
    "i386": Build("i386", ["base.config", "check/all.config"], ["ARCH=i386"],
                  on=["INTEL_IOMMU", "VIRTIO_IOMMU", "VFIO_PCI"],
                  off=["64BIT"]),
    "arm64": Build("arm64", ["base.config", "check/all.config",
                             "check/arm64.config"],
                   ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"],
                   on=["ARM_SMMU_V3", "VIRTIO_IOMMU", "VFIO_PCI"],
                   compiler="aarch64-linux-gnu-gcc"),
}
