# SPDX-License-Identifier: GPL-2.0-only
"""The rig itself: what it says, and that it loses nobody's work."""
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import shutil
import tempfile

import build
import command
import machine
import where
from fixtures import Skip, succeeds

NEEDS = ""
TOP = where.TOP

# A line that is wrong at the end of a machine file, and what is said of it.
WRONG_LINES = (
    ("devise edu,bus=rp0", "'devise' is none of"),
    ("device", "nothing after 'device'"),
    ("groups", "of which IOMMU"),
    ("groups intell", "'intell' is no IOMMU"),
    ("groups intel", "a second time"),
    ("    00:04.0", "belongs under"),
    ("groups amd\n    00:3.0", "'00:3.0' is no PCI address"),
    ("groups amd\n    00:03.0\n    00:03.0", "00:03.0 a second time"),
    ("groups amd\n    00:03.0 00:03.0", "twice"),
    ("ivrs alias 00:05.0", "alias DEVICE ALIAS"),
    ("dmar without 0:5", "'0:5' is no PCI address"),
    ("dmar unit 00:05.0", "without or rmrr"),
    ("reasons intel\n    00:04.0", "one reason for 00:04.0"),
    ("not 5.10 intel because", "after 'not' comes"),
)


def run(*words, cwd=TOP, env=None, kernel=None):
    """Exit status, and both streams, of a command."""
    env = command.any_kernel(env or os.environ) | ({"KERNEL": kernel} if kernel else {})
    return command.run(*words, cwd=cwd, env=env, timeout=120)


must = functools.partial(succeeds, run)


def help_lists_verbs():
    listed = [line.split()[0] for line in must("make", "-s").splitlines()]
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$",
                      (TOP / "Makefile").read_text(), re.MULTILINE)[1]
    verbs = phony.replace("\\", " ").split()
    assert len(verbs) > 10 and sorted(verbs) == sorted(listed), \
        f"{sorted(verbs)}, listed: {sorted(listed)}"


def needs_are_few():
    """What the tests of one file need has to be made, and no more."""
    for pattern, wanted in (("rig", "tree"), ("arm64", "tree arm64 guest")):
        said = must(TOP / "scripts/test", "--needs", env=dict(os.environ, T=pattern))
        assert said.strip() == wanted, f"T={pattern}: {said}"


def needs_of_one_kernel():
    """Where another kernel is in the place of patched, and is all that is looked at."""
    for program in "coverage", "mutants":
        said = must(TOP / "scripts" / program, "--needs", env={
            name: value for name, value in os.environ.items() if name != "T"})
        assert said.strip() == "tree stock guest", f"{program}: {said}"


def needs_are_said():
    verbs = [line.split()[0] for line in must("make", "-s").splitlines()]
    for path in sorted((TOP / "tests").rglob("*.py")):
        said = re.search(r'^NEEDS = "(.*)"$', path.read_text(), re.MULTILINE)
        assert said, f"{path} has no NEEDS"
        for verb in said[1].split():
            assert verb in verbs, f"{path}: NEEDS {verb}, which is no verb"


def verbs_are_scripts():
    makefile = (TOP / "Makefile").read_text()
    for script in (TOP / "scripts").iterdir():
        assert re.search(rf"^{script.name}:", makefile, re.MULTILINE), \
            f"scripts/{script.name} is no verb"


def progress_is_honest():
    """A make that says what it would do first, and then does it."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        make = place / "make"
        make.write_text("""#!/bin/sh
for file in $(seq 17); do
	case "$*" in
	*-n*) echo "set -e;  echo '  CC      file$file.o'; gcc" ;;
	*) echo "  CC      file$file.o"; echo "file.c:1: warning"; sleep 1 ;;
	esac
done
""")
        make.chmod(0o755)
        (place / ".config").write_text("CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=m\n")
        command = (TOP / "rig/step", place / "log", "kbuild", "all", make, f"O={place}")
        # What links it and its modules is not in what make would do.
        assert re.search(r"^all: +\d+% \(\d+ of about 101\), 0:\d+$", must(*command),
                         re.MULTILINE)
        (place / "vmlinux").touch()
        assert re.search(r"^all: \d+ steps, 0:\d+$", must(*command), re.MULTILINE)


def time_left():
    """Said once there is enough to tell by, and of what was expected only."""
    loader = importlib.machinery.SourceFileLoader("step", f"{TOP}/rig/step")
    step = importlib.util.module_from_spec(importlib.util.spec_from_loader("step", loader))
    loader.exec_module(step)
    for count, expected, seconds, said in (
            (0, 100, 0, " 0% (0 of about 100)"),
            (0, 100, 600, " 0% (0 of about 100)"),
            (0, 0, 600, " 0% (0 of about 0)"),
            # Fast ones come first, or one that is slow does
            (40, 100, 19, "40% (40 of about 100)"),
            (2, 100, 600, " 2% (2 of about 100)"),
            (3, 100, 20, " 3% (3 of about 100), about 11 min left"),
            (50, 100, 20, "50% (50 of about 100), less than a minute left"),
            (50, 100, 60, "50% (50 of about 100), about 1 min left"),
            (25, 100, 3600, "25% (25 of about 100), about 180 min left"),
            (100, 100, 600, "100% (100 of about 100), less than a minute left"),
            (101, 100, 600, "101, more than the 100 expected"),
            (101, None, 600, "101 steps")):
        found = step.how_far(count, expected, seconds)
        assert found == said, f"{count} of {expected} in {seconds} s: {found}, not {said}"


def licence_is_said():
    """By every file that has code: what is run or compiled."""
    for name in must("git", "ls-files", ".ci", "Makefile", "scripts", "rig", "tests",
                     "guest").split():
        start = (TOP / name).read_text()[:200]
        code = start.startswith("#!") or \
            name.endswith((".py", ".sh", ".c", "Makefile"))
        assert not code or "SPDX-License-Identifier: GPL-2.0-only\n" in start, name


def missing_tool_is_named():
    """Setup, in a world without bison and without a way to become root."""
    with tempfile.TemporaryDirectory() as world:
        world = pathlib.Path(world)
        tools = ["bash", "dirname", "env"]
        for line in (TOP / "rig/packages").read_text().splitlines():
            if line and not line.startswith("#"):
                tools.append(line.split()[1])
        for tool in tools:
            if tool != "bison" and not tool.startswith("/"):
                (world / tool).symlink_to(shutil.which(tool))
        for name, text in (("id", "echo 1000"), ("apt-cache", "true")):
            (world / name).write_text(f"#!/bin/sh\n{text}\n")
            (world / name).chmod(0o755)
        status, said = run(TOP / "scripts/setup", env={"PATH": str(world)})
    assert status, "it went on"
    assert "missing: bison, from the package bison" in said, said
    assert re.search(r"Run as root: .*apt-get .*install .*\bbison$", said,
                     re.MULTILINE), said


def unknown_option_is_named():
    """A kernel that does not take an option of configs/ is no kernel."""
    with Copy() as copy:
        (copy.top / "configs/base.config").write_text("CONFIG_NO_SUCH=y\n")
        (copy.top / f"configs/{where.KERNELS[0]}.config").touch()
        # A source tree whose every make target writes an empty .config.
        (copy.linux / "Makefile").write_text(
            "%:\n\t@: >$(O)/.config\n")
        status, said = run(copy.top / "scripts/kernel", "patched",
                           env=dict(os.environ, TMPDIR=str(copy.top)))
    assert status and "CONFIG_NO_SUCH=y" in said, said


def wrong_machine_is_located(wrong, reason):
    good = "# about\ndevice edu\ngroups intel\n    00:03.0\n\ndevice edu\n"
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(good + wrong + "\n")
        file.flush()
        line = 6 + len(wrong.splitlines())
        try:
            machine.Machine(file.name)
        except machine.MachineError as error:
            assert str(error).startswith(f"{file.name}:{line}: "), str(error)
            assert reason in str(error), str(error)
        else:
            raise AssertionError("nobody minds")


class Copy:
    """The scripts in a directory of their own, with a small kernel tree.

    Its base has one file, and the series the one patch that changes it.
    """

    def __init__(self, beside=None):
        """Beside another copy's, the tree of the second kernel."""
        self.beside = beside
        self.kernel = where.KERNELS[1] if beside else None

    def __enter__(self):
        if self.beside:
            self.top = self.beside.top
        else:
            self.place = tempfile.TemporaryDirectory()
            self.top = pathlib.Path(self.place.name)
            (self.top / "configs").mkdir()
            for folder in ("scripts", "rig", "tests"):
                shutil.copytree(TOP / folder, self.top / folder,
                                ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copytree(TOP / "patches/parts", self.top / "patches/parts")
        kernel = self.kernel or where.KERNELS[0]
        self.linux = self.top / where.build(kernel).relative_to(TOP) / "linux"
        self.patches = self.top / "patches" / kernel
        self.patches.mkdir(parents=True)
        self.linux.mkdir(parents=True)
        (self.linux.parent / "version").write_text("1\n")
        self.git("init", "-q", "-b", "series")
        for key, value in (("user.name", "A"), ("user.email", "a@b.example")):
            self.git("config", key, value)
        first = "one\n" if not self.beside else "nought\n\n\n\n\none\n"
        self.commit("file", first, "base")
        self.git("tag", "base")
        (self.linux / ".git/rig-patches").write_text(
            f"none {self.head()}\n")
        self.tree()
        self.commit("file", f"{first}two\n", "file: Add two")
        self.export()
        self.tree()
        self.git("update-ref", "refs/rig/carried", "series")
        return self

    def __exit__(self, *error):
        if not self.beside:
            self.place.cleanup()

    def git(self, *command):
        return must("git", "-C", self.linux, *command)

    def commit(self, name, text, subject):
        (self.linux / name).write_text(text)
        self.git("add", name)
        self.git("commit", "-q", "-m", subject)

    def head(self):
        return self.git("rev-parse", "HEAD").strip()

    def tree(self):
        return must(self.top / "scripts/tree", kernel=self.kernel)

    def export(self):
        return must(self.top / "scripts/export", kernel=self.kernel)

    def refuses(self, script, reason):
        status, said = run(self.top / "scripts" / script, kernel=self.kernel)
        assert status and reason in said, f"{status}: {said}"

    def patch(self):
        return next(self.patches.glob("0001-*.patch"))

    def change_patch(self):
        """As when a git pull brings another version of the series."""
        patch = self.patch()
        patch.write_text(patch.read_text().replace("+two", "+zwei"))


def tree_is_left_alone():
    with Copy() as copy:
        copy.commit("file", "one\ntwo\nthree\n", "file: Add three")
        (copy.linux / "file").write_text("an edit")
        before = copy.head()
        assert copy.tree() == ""
        assert copy.head() == before
        assert (copy.linux / "file").read_text() == "an edit"


def tree_follows_patches():
    with Copy() as copy:
        copy.change_patch()
        copy.tree()
        assert (copy.linux / "file").read_text() == "one\nzwei\n"
        assert copy.git("status", "--porcelain") == ""


def tree_keeps_commits():
    with Copy() as copy:
        copy.commit("file", "one\ntwo\nthree\n", "file: Add three")
        copy.change_patch()
        copy.refuses("tree", "not exported")
        assert (copy.linux / "file").read_text() == "one\ntwo\nthree\n"


def tree_keeps_edits():
    with Copy() as copy:
        (copy.linux / "new").write_text("an edit")
        copy.change_patch()
        copy.refuses("tree", "not exported")
        assert (copy.linux / "new").read_text() == "an edit"


def tree_keeps_branch():
    with Copy() as copy:
        before = copy.head()
        copy.patch().write_text(
            copy.patch().read_text().replace(" one", " eins"))
        copy.refuses("tree", "does not apply")
        assert copy.head() == before
        assert copy.git("status", "--porcelain") == ""


def export_keeps_patches():
    with Copy() as copy:
        copy.commit("file", "one\ntwo\nthree\n", "file: Add three")
        copy.change_patch()
        before = copy.patch().read_text()
        copy.refuses("export", f"{copy.patches.name} changed")
        assert copy.patch().read_text() == before


def export_wants_squash():
    with Copy() as copy:
        copy.commit("file", "one\ntwo\nthree\n", "fixup! file: Add two")
        copy.refuses("export", "not squashed")


def export_follows_tree():
    """New names come, old ones go, and the cover letter stays."""
    with Copy() as copy:
        cover = copy.patches / "0000-cover-letter.patch"
        cover.write_text("by hand")
        copy.git("commit", "-q", "--amend", "-m", "file: Add a second line")
        copy.export()
        assert [patch.name for patch in sorted(copy.patches.iterdir())] == [
            cover.name, "0001-file-Add-a-second-line.patch"]
        assert cover.read_text() == "by hand"


def export_is_identical():
    """Whatever the person's git is configured to do."""
    with Copy() as copy:
        before = copy.patch().read_bytes()
        # Made by git am, and not by the hand that wrote it.
        (copy.linux / ".git/rig-patches").write_text(f"none {copy.head()}\n")
        copy.tree()
        config = copy.top / "gitconfig"
        config.write_text("[diff]\nnoprefix = true\ncontext = 9\n"
                          "[format]\nsignOff = true\nnumbered = false\n"
                          "[core]\nabbrev = 7\n")
        must(copy.top / "scripts/export",
             env=dict(os.environ, GIT_CONFIG_GLOBAL=str(config)))
        assert copy.patch().read_bytes() == before


def subjects(copy):
    return copy.git("log", "--reverse", "--format=%s", "base..").splitlines()


def carry_follows():
    """What changed in a patch, and one that is new, in their places."""
    with Copy() as copy, Copy(copy) as other:
        other.commit("own", "of this one alone\n", "own: Add a file")
        copy.git("commit", "-q", "--amend", "-m", "file: Add two\n\nWhy.")
        copy.commit("file", "one\nzwei\n", "fixup! file: Add two")
        copy.git("-c", "sequence.editor=true", "rebase", "-q", "-i",
                 "--autosquash", "base")
        copy.commit("new", "new\n", "new: Add another")
        must(copy.top / "scripts/carry", kernel=other.kernel)
        assert (other.linux / "file").read_text().endswith("one\nzwei\n")
        assert subjects(other) == ["file: Add two", "own: Add a file",
                                   "new: Add another"], subjects(other)
        said = other.git("log", "-1", "--format=%b", "base..series", "--", "file")
        assert said.strip() == "Why.", said
        before = other.head()
        must(copy.top / "scripts/carry", kernel=other.kernel)
        assert other.head() == before, "a second time it does something"


def carry_leaves_conflicts():
    with Copy() as copy, Copy(copy) as other:
        before = other.head()
        other.git("commit", "-q", "--amend", "-m", "file: Add two")
        other.commit("file", "nought\n\n\n\n\none\ndeux\n", "fixup")
        other.git("reset", "-q", "--soft", "base")
        other.git("commit", "-q", "-m", "file: Add two")
        copy.commit("file", "one\nzwei\n", "fixup")
        copy.git("reset", "-q", "--soft", "base")
        copy.git("commit", "-q", "-m", "file: Add two")
        other.refuses("carry", "rebase --continue")
        assert "UU file" in other.git("status", "--porcelain")
        other.commit("file", "nought\n\n\n\n\none\ndrei\n", "resolved")
        other.git("-c", "core.editor=true", "rebase", "--continue")
        assert other.head() != before
        assert other.git("show", "series:file").endswith("drei\n")
        must(copy.top / "scripts/carry", kernel=other.kernel)


def clean_keeps_trees():
    with Copy() as copy, Copy(copy) as other:
        for one in (copy, other):
            (one.linux.parent / "patched").mkdir()
        said = must(copy.top / "scripts/clean")
        assert "but the kernels' trees" in said, said
        for one in (copy, other):
            left = {path.name for path in one.linux.parent.iterdir()}
            assert left - {other.kernel} == {"linux", "version"}, left
            assert (one.linux / "file").exists()


def source_is_gone():
    """Of the second kernel, as when Debian has the next one."""
    with Copy() as copy:
        (copy.top / "machines").symlink_to(TOP / "machines")
        bin = copy.top / "bin"
        bin.mkdir()
        for name, text in (
                ("apt-get", "true"),
                ("apt-cache", 'case "$*" in *madison*) echo '
                 '"linux-source-9.9 | 9.9.1-1 | suite";; *) exit 1;; esac')):
            (bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (bin / name).chmod(0o755)
        kernel = where.KERNELS[1]
        env = dict(os.environ, PATH=f"{bin}:{os.environ['PATH']}")
        status, said = run(copy.top / "scripts/tree", env=env, kernel=kernel)
        assert status, said
        for part in (f"linux-source-{kernel} is wanted", "linux-source-9.9 9.9.1-1",
                     f"make tree KERNEL={kernel} SOURCE="):
            assert part in said, f"no '{part}' in: {said}"
        # The other one's verbs go on, and tests are skipped.
        must(copy.top / "rig/build-other", kernel, env=env)
        said = must(copy.top / "scripts/test", "^[^:]*: rig: a bare", env=env,
                    kernel=kernel)
        assert f"SKIP linux-source-{kernel} is wanted" in said, said
        assert said.endswith("# 1 skipped\n0 passed, 0 failed\n"), said


def late_tests_are_skipped():
    """Those of the other kernels: what began late is counted, with the reason."""
    with Copy() as copy:
        (copy.top / "machines").symlink_to(TOP / "machines")
        kernel = where.KERNELS[1]
        said = must(copy.top / "scripts/test", f"^{kernel}: arm64: ",
                    env=dict(os.environ, ALSO=kernel, SINCE="0", MINUTES="5"))
        results = [line for line in said.splitlines() if " - " in line]
        why = "# SKIP no time left of 5 minutes (MINUTES=)"
        assert results and all(line.endswith(why) for line in results), said
        assert said.endswith(f"# {len(results)} skipped\n0 passed, 0 failed\n"), said


def none_begins_after_a_failure():
    """With STOP=1, for whoever wants to know only if anything fails."""
    with Copy() as copy:
        (copy.top / "machines").symlink_to(TOP / "machines")
        (copy.top / "tests/mine.py").write_text(
            "import time\n\nNEEDS = ''\n\n\ndef cases():\n"
            "    yield 'it fails', int, 'one'\n    for number in range(40):\n"
            "        yield f'it sleeps, {number}', time.sleep, 0.1\n")
        for stop, fewest, most in ("", 41, 41), ("1", 1, 20):
            status, said = command.run(copy.top / "scripts/test", env=dict(
                os.environ, T="mine", STOP=stop))
            results = len([line for line in said.splitlines() if " - " in line])
            assert status and fewest <= results <= most, f"STOP={stop}: {said}"


def tree_by_hand(copy, kernel):
    """That of a kernel which has the patches of the first, and a Makefile that makes an
    empty configuration."""
    source = copy.top / "source"
    source.mkdir()
    (source / "Makefile").write_text(
        "VERSION = 9\nPATCHLEVEL = 9\nSUBLEVEL = 1\n%:\n\t@: >$(O)/.config\n")
    (source / ".gitignore").write_text("*.o\n")
    (source / "file").write_text("one\n")
    shutil.copytree(copy.patches, copy.top / "patches" / kernel)
    must(copy.top / "scripts/tree", kernel=kernel,
         env=dict(os.environ, SOURCE=str(source)))
    made = copy.top / "build" / kernel
    assert (made / "linux/file").read_text() == "one\ntwo\n"
    assert (made / "version").read_text() == "9.9.1\n"


def source_by_hand():
    with Copy() as copy:
        tree_by_hand(copy, where.KERNELS[1])


def to_add(what):
    """README's line of how to add one, and the files that it names."""
    line = re.search(rf"^- a {what}: (.*)$", (TOP / "README.md").read_text(),
                     re.MULTILINE)[1]
    return line, re.findall(r"`([^`]*)`", line)


def a_test_is_run():
    line, words = to_add("test")
    with Copy() as copy:
        (copy.top / "machines").symlink_to(TOP / "machines")
        text = "NEEDS = 'tree'\n" if "NEEDS" in words else ""
        assert "cases()" in words, line
        text += "def cases():\n    yield 'it is run', len, ''\n"
        folders = [word for word in words if word.startswith("tests/")]
        for folder in folders:
            (copy.top / folder / "mine.py").write_text(text)
        program, env = copy.top / "scripts/test", dict(os.environ, T="mine")
        assert must(program, "--needs", env=env) == "tree\n"
        said = must(program, env=env)
        assert len(folders) == 2 and said.endswith("2 passed, 0 failed\n"), said


def a_machine_is_tested():
    """Its tests want kernels, so there are some."""
    _, words = to_add("machine")
    with Copy() as copy:
        shutil.copytree(TOP / "machines", copy.top / "machines")
        for folder, like, test in zip(words, ("demo", "01-*"), ("groups", "replay")):
            example, = (copy.top / folder).glob(like)
            shutil.copy(example, copy.top / folder / "71-mine")
            said = must(copy.top / "scripts/test", "--needs",
                        env=dict(os.environ, T=f"^{test}: 71-mine\\b"))
            assert "guest" in said.split(), f"{folder} {said}"


def a_check_is_made():
    """It is good where the others find this tree to be none of Linux."""
    _, (folder, script) = to_add("check")
    with Copy() as copy, Copy(copy) as other:
        program = copy.top / folder / "mine"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        script = copy.top / script
        mine = 'check mine 1 "mine" rig/check/mine < rig/check/mine\n'
        script.write_text(script.read_text().replace("\ncheck ", f"\n{mine}check ", 1))
        for wanted in "good: mine\n", "good: mine (as before)\n":
            _, said = run(script, "quick", kernel=other.kernel)
            assert wanted in said, said


def a_kernel_is_known():
    """Its tree is made of its folder, and its configuration is what is asked for."""
    _, (table, folder, config) = to_add("kernel")
    with Copy() as copy:
        kernel = "9.9"
        with (copy.top / table).open("a") as file:
            file.write(f"{kernel} linux-source-9.9 - linux-source-9.9\n")
        assert folder == "patches/"
        tree_by_hand(copy, kernel)
        (copy.top / "configs/base.config").touch()
        (copy.top / config.replace("<kernel>", kernel)).write_text("CONFIG_NO_SUCH=y\n")
        status, said = run(copy.top / "scripts/kernel", "patched", kernel=kernel,
                           env=dict(os.environ, TMPDIR=str(copy.top)))
        assert status and "CONFIG_NO_SUCH=y" in said, said


def patches_are_as_exported(kernel):
    """The series is what make export would write from what make tree made."""
    linux, patches = where.build(kernel) / "linux", TOP / "patches" / kernel
    if not linux.exists():
        raise Skip(f"there is no tree of {kernel}")
    state = (linux / ".git/rig-patches").read_text().split()
    head = must("git", "-C", linux, "rev-parse", "series")
    if state[1] != head.strip():
        raise Skip(f"{linux} has work that is not exported")
    with tempfile.TemporaryDirectory() as out:
        must("env", f"KERNEL={kernel}", TOP / "scripts/export", out)
        for patch in sorted(patches.glob("*.patch")):
            if patch.name.startswith("0000-"):
                continue
            assert (pathlib.Path(out) / patch.name).read_bytes() == \
                patch.read_bytes(), f"{patch.name} differs"
            os.unlink(pathlib.Path(out) / patch.name)
        assert not os.listdir(out), os.listdir(out)


def lock_in_lock():
    with tempfile.TemporaryDirectory() as place:
        lock = build.Lock(place)
        with lock:
            lock.since -= 60 * lock.MINUTES + 1
            with lock:
                pass
            assert lock.file, "the inner one lets go of it"
        assert not lock.file, "nobody lets go of it"


def cases():
    yield "a bare make lists every verb", help_lists_verbs
    yield "every file of scripts/ is a verb", verbs_are_scripts
    yield "make test T= makes what the tests of that name need", needs_are_few
    yield ("make coverage and make mutants make no kernel that they see nothing of",
           needs_of_one_kernel)
    yield "every file of tests says which verbs it needs", needs_are_said
    yield ("progress is a share only of what is known to be to do",
           progress_is_honest)
    yield ("the time left is a share of what it took, and not said too early",
           time_left)
    yield "every file that has code says its licence", licence_is_said
    yield ("a missing tool is named with its package and the command to get "
           "it", missing_tool_is_named)
    yield ("an option that the kernel does not take is named",
           unknown_option_is_named)
    for wrong, reason in WRONG_LINES:
        shown = wrong.replace("\n", " / ")
        yield (f"a machine file with '{shown}' is refused by file and line",
               wrong_machine_is_located, wrong, reason)
    yield "tree does nothing where patches/ did not change", tree_is_left_alone
    yield "tree follows patches/", tree_follows_patches
    yield "tree keeps commits that are not exported", tree_keeps_commits
    yield "tree keeps edits that are not committed", tree_keeps_edits
    yield ("tree keeps the branch where patches/ does not apply",
           tree_keeps_branch)
    yield "export keeps patches/ that changed meanwhile", export_keeps_patches
    yield "export refuses fixups that are not squashed", export_wants_squash
    yield "export follows the tree, and keeps the cover", export_follows_tree
    yield "export writes the bytes that tree took", export_is_identical
    yield "clean keeps the kernels' trees, and nothing else", clean_keeps_trees
    yield ("where the source of a kernel is gone it says what there is, and that "
           "kernel's tests are skipped", source_is_gone)
    yield ("where make test takes too long, what is left of the other kernels' tests "
           "is skipped", late_tests_are_skipped)
    yield "with STOP=1 no test begins after one that fails", none_begins_after_a_failure
    yield "who builds a kernel may ask for the lock again, however long it is had", lock_in_lock
    yield "a tree is made of a source that is given by hand", source_by_hand
    yield "a test that is added as README says is run", a_test_is_run
    yield "a machine that is added as README says is tested", a_machine_is_tested
    yield "a check that is added as README says is made", a_check_is_made
    yield "a kernel that is added as README says is known", a_kernel_is_known
    yield ("carry takes what changed in the other kernel's series to the "
           "patches of the same subjects", carry_follows)
    yield "carry leaves conflicts to the person", carry_leaves_conflicts
    for kernel in where.KERNELS:
        yield f"patches/{kernel}/ is byte for byte what export writes", \
            patches_are_as_exported, kernel
