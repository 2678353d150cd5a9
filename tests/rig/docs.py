# SPDX-License-Identifier: GPL-2.0-only
"""Every command in README and docs/ is run by a test, or is known not to be.

A command stands in a block that is marked as sh, or after '$ ' in a block that shows
what it prints as well; in the text, it is what begins with make or a program of the
rig. How it begins is in RUN or in NOT_RUN.
"""
import pathlib
import re
import shlex
import tempfile

import results
import where
from command import run

NEEDS = ""
TOP = where.TOP
PAGES = [TOP / "README.md", TOP / "machines/README.md", *sorted((TOP / "docs").glob("*.md"))]
WIDTH, LINES = 110, 120

# How a command begins, and what runs it: a file, and what is in it that does so. The
# variables that make is given have to be there as well.
RUN = {
    "make run": ("tests/rig/run.py", '"scripts/run"'),
    "make test": ("tests/rig/rig.py", '"scripts/test"'),
    "make deb": ("tests/rig/deb.py", '"scripts/deb"'),
    "make replay": ("tests/replay.py", '"scripts/replay"'),
    "make shell": ("tests/rig/shell.py", '"scripts/shell"'),
    "make kunit": ("tests/kunit.py", '"scripts/kunit"'),
    "make tree": ("tests/rig/rig.py", '"scripts/tree"'),
    "make export": ("tests/rig/rig.py", '"scripts/export"'),
    "make carry": ("tests/rig/rig.py", '"scripts/carry"'),
    "make mail": ("tests/rig/mail.py", '"scripts/mail"'),
    "scripts/deb config": ("tests/rig/deb.py", 'deb("config"'),
    "scripts/deb lsiommu": ("tests/rig/deb.py", 'deb("lsiommu"'),
    "scripts/check quick": ("tests/rig/check.py", '"scripts/check", "quick"'),
    "scripts/check same": ("tests/rig/check.py", '"scripts/check", "same"'),
    "scripts/kunit patched seed=7 topologies=1":
        ("tests/kunit.py", '"patched", "seed=7", "topologies=1"'),
    "tools/testing/kunit/kunit.py run": ("tests/kunit.py", 'kunit_py("run"'),
    "git rebase -i --autosquash base": ("tests/rig/rig.py", '"--autosquash", "base"'),
    "git send-email --dry-run": ("rig/check/mail", '"send-email", "--dry-run"'),
    "cat ~/groups/patches/": ("tests/rig/docs.py", '"cat ~/groups/"'),
    "ls ~/groups/patches/": ("tests/rig/docs.py", '"ls ~/groups/"'),
    "scripts/config --set-str": ("tests/rig/docs.py", '"scripts/config")'),
    "make olddefconfig": ("scripts/deb", "olddefconfig"),
    "sudo lsiommu": ("tests/lsiommu.py", '"--handover"'),
    "echo warn | sudo tee /sys/module/iommu/parameters/reach":
        ("tests/reach.py", "/sys/module/iommu/parameters/reach"),
    "sudo lsiommu --json": ("tests/lsiommu.py", '"--json"'),
    "lsiommu --json": ("tests/lsiommu.py", '"--json"'),
    "sudo lsiommu --since": ("tests/lsiommu.py", '"--since"'),
    "lsiommu --path": ("tests/lsiommu.py", '"--path"'),
    "ls -l /dev/vfio/by-path": ("tests/lsiommu.py", "ls -l /dev/vfio/by-path"),
    "cat /sys/bus/pci/devices/": ("tests/debug.py", "iommu_group/id"),
}
# How one begins that no test runs, and why.
NOT_RUN = {
    "make check": "hours; tests/rig/check.py runs the part that is quick",
    "make kcsan": "builds a kernel more; make check runs it",
    "make debug": "builds a kernel more; make check runs all that it does",
    "make test LONG=1": "hours; make check runs it",
    "make bench": "an hour in guests, whose clocks count instructions",
    "make mutants": "a day; tests/rig/mutants.py looks at what it would do",
    "make coverage": "builds a kernel more, and runs the tests on it",
    "make -j$(nproc) LOCALVERSION=-groups bindeb-pkg":
        "hours for Debian's configuration; make deb calls it, which make check runs",
    "make test ON=stock": "tests fail there; it is to see that they can",
    "sudo apt install": "changes this machine; dpkg installs elsewhere what make deb "
        "makes, and that the others are Debian's is looked up",
    "sudo apt remove": "changes this machine; dpkg removes it elsewhere",
    "sudo reboot": "ends this machine; a guest boots what make deb makes",
    "uname -r": "of the machine after that; the guest is asked",
    "sudo lspci -xxxx": "tells of this machine; what it prints is in machines/real",
    "tar xf /usr/src/linux-source": "wants a package of Debian's to be installed; "
        "make tree unpacks the same",
    "cp /boot/config-": "not every machine has one; make deb takes it",
    "git commit -a --fixup=": "of git's own; its subject is what tests commit with",
    "git config --global user.": "changes the user; that make mail wants it has a test",
    "cd ": "of the shell's own",
    "$EDITOR": "for a person",
}


# A make of verbs of our Makefile
OURS = re.compile(r"([A-Z]+=\S+ )*make (?!olddefconfig)[a-z]")


def commands(page):
    """Every command of a page, with its line."""
    kind = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            kind = None if kind else line[3:] or "text"
            continue
        line = re.sub(r"  +# .*", "", line)
        shown = re.match(r" *\$ (.*)", line)
        if kind == "sh":
            yield number, line
        elif shown:
            yield number, shown[1]
        elif kind or line.startswith("    "):
            assert not re.match(r" *(sudo|apt|git|make|cat|scripts/\S+) \S", line), \
                f"{page}:{number}: a command that is not in a block marked as sh: {line}"
        else:
            for found in re.findall(r"`([^`]*)`", line):
                if re.match(r"(make \w|[A-Z]+=\S+ make |(scripts|rig)/[\w-]+ \w)", found):
                    yield number, found


def each(command):
    """Of a make of several verbs, one for each, with the variables behind it."""
    if not OURS.match(command):
        return [command]
    words = shlex.split(command)
    names = [word for word in words if "=" in word]
    return [shlex.join(["make", verb, *names]) for verb in words
            if verb not in ("make", *names)]


def is_known(command):
    begin = max((begin for begin in [*RUN, *NOT_RUN] if command.startswith(begin)
                 # and does not end within a word
                 and not re.match(r"\w\w", command[len(begin) - 1:])),
                key=len, default=None)
    assert begin, "no test runs it, and NOT_RUN does not say why"
    if begin in RUN:
        file, wanted = RUN[begin]
        text = (TOP / file).read_text()
        assert wanted in text, f"{file} has no '{wanted}'"
        for name in re.findall(r" ([A-Z]+)=", command.removeprefix(begin)):
            assert name == "KERNEL" or re.search(rf"\b{name}\b", text), \
                f"{file} gives it no {name}="
    elif OURS.match(command):
        status, said = run("make", "-n", *shlex.split(command)[1:], cwd=TOP, timeout=60)
        assert not status, said


def is_right(page):
    wrong, count = [], 0
    for number, command in commands(page):
        count += 1
        for one in each(command):
            try:
                is_known(one)
            except AssertionError as error:
                wrong.append(f"{page.name}:{number}: {one}: {error}")
    assert not wrong, "\n".join(wrong)
    assert count or page.name == "results.md", f"{page} has no command"


def all_are_in_use():
    shown = [one for page in PAGES for _, command in commands(page)
             for one in each(command)]
    for begin in [*RUN, *NOT_RUN]:
        assert any(command.startswith(begin) for command in shown), \
            f"no page has this any more: {begin}"


def fits():
    lines = (TOP / "README.md").read_text().splitlines()
    assert len(lines) <= LINES, f"{len(lines)} lines"
    for line in lines:
        assert len(line) <= WIDTH, line


def links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
    named = set(re.findall(r"`((?:docs|machines|tests|rig|scripts|patches|guest)/[^`* ]*)`",
                           "".join(page.read_text() for page in PAGES)))
    for name in named:
        assert (TOP / name).exists(), f"there is no {name}"


def figures_are_from_results():
    said = re.search(r"Three\sfigures(.*?)\n\n", (TOP / "README.md").read_text(), re.S)[1]
    figures = re.findall(r"(?<!\.)\b[0-9][0-9,]*[0-9]\b", said)
    known = re.sub(r"(\d),(?=\d{3})", r"\1", (TOP / "docs/results.md").read_text())
    assert len(figures) == 7, figures
    for figure in figures:
        assert re.search(rf"\b{figure.replace(',', '')}\b", known), \
            f"README says {figure}, docs/results.md does not"


def real_machines_are_counted():
    found = re.search(r"(\d+) machines that people posted, ([\d,]+) functions",
                      (TOP / "README.md").read_text())
    texts = [path.read_text() for path in (TOP / "machines/real").iterdir()]
    functions = sum(int(re.search(r"^# (\d+) functions", text, re.M)[1])
                    for text in texts)
    assert found.groups() == (str(len(texts)), f"{functions:,}"), found[0]


def sections_are_replaced():
    page = "# what\n\nabout\n\n## a\n\nold\n\n## b\n\nkept\n"
    assert results.replaced(page, "a", "## a\n\nnew\n") == page.replace("old", "new")
    assert results.replaced(page, "c", "## c\n\nnew\n") == page + "\n## c\n\nnew\n"


def steps_are_kept():
    page = ("## a\n\nabout\n\n    good this        of then  what\n"
            "    BAD  that        of then  what\n\n## b\n\n    good that  of then  what\n")
    lines = results.steps_in(page, "a", "good that now what\nBAD more what\n",
                             "of now").splitlines()[-3:]
    assert lines == ["    good this        of then  what",
                     "    good that        of now  now what",
                     "    BAD  more        of now  what"], lines


def runs_of_what_is_committed():
    assert results.is_dirty(" M README.md\n") and results.is_dirty("?? new\n")
    assert not results.is_dirty(" M docs/results.md\n M docs/bench.svg\n")


def page_commands(name, begin):
    return [command for _, command in commands(TOP / name) if command.startswith(begin)]


def shell(line, folder):
    status, said = run("bash", "-c", f"set -e -o pipefail; {line}", cwd=folder,
                       timeout=300)
    assert not status, f"{line} gives {status}: {said}"
    return said


def base(place, *more):
    """What the series touches of the base, as a git tree."""
    tree = pathlib.Path(place) / "tree"
    shell(f"git clone -q -s -n {where.LINUX} {tree}; cd {tree}; "
          "git config user.name A; git config user.email a@b.example; "
          "git diff --name-only origin/HEAD base | sed s,^,/, >files; "
          f"printf '%s\\n' {' '.join(more)} >>files; "
          "git sparse-checkout set --no-cone --stdin <files; rm files; "
          "git checkout -q --detach base", place)
    return tree


def applies_by_hand():
    """The lines for any other tree, and that for Debian's source."""
    first = where.KERNELS[0]
    if where.KERNEL != first:
        return
    found = {command.replace("~/groups", str(TOP))
             for begin in ("cat ~/groups/", "ls ~/groups/")
             for command in page_commands("docs/install.md", begin)}
    assert len(found) == 2, found
    for command in found:
        with tempfile.TemporaryDirectory() as place:
            tree = base(place)
            said = shell(command, tree)
            assert "fuzz" not in said, said
            # The kernel ignores files that begin with a dot.
            shell("git add --sparse -A -f; git diff --cached --exit-code --stat "
                  "origin/HEAD", tree)


def is_configured_by_hand():
    command, = page_commands("docs/install.md", "scripts/config")
    with tempfile.TemporaryDirectory() as place:
        tree = base(place, "/scripts/config")
        (tree / ".config").write_text('CONFIG_SYSTEM_TRUSTED_KEYS="debian/x.pem"\n'
                                      "CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y\n")
        shell(command, tree)
        assert (tree / ".config").read_text().splitlines() == [
            'CONFIG_SYSTEM_TRUSTED_KEYS=""',
            "# CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT is not set",
            "CONFIG_DEBUG_INFO_NONE=y"]


def packages_are_there():
    """Those that are wanted to build by hand."""
    command, = page_commands("docs/install.md", "sudo apt install linux-source")
    names = [name for name in shlex.split(command)[3:]
             if not name.startswith("linux-source")]
    shell(f"apt-cache show {' '.join(names)} >/dev/null || dpkg -s {' '.join(names)}", TOP)


def cases():
    for page in PAGES:
        yield (f"each command of {page.relative_to(TOP)} is in the list of what a test runs, "
               "or in that of why none does", is_right, page)
    yield "no command is listed that no page has", all_are_in_use
    yield f"README has at most {LINES} lines of {WIDTH} columns", fits
    yield "what README and docs name is there", links_lead_somewhere
    yield "README's figures are those of docs/results.md", figures_are_from_results
    yield "README counts the real machines as they are", real_machines_are_counted
    yield "a run replaces its own section of docs/results.md", sections_are_replaced
    yield "a step of make check replaces its own line there", steps_are_kept
    yield ("a run is not written down where something is not committed",
           runs_of_what_is_committed)
    yield "the patches apply to a tree by the lines that docs/install.md has", \
        applies_by_hand
    yield "the line of docs/install.md changes Debian's configuration", \
        is_configured_by_hand
    yield "the packages that docs/install.md wants are Debian's", packages_are_there
