# SPDX-License-Identifier: GPL-2.0-only
"""Every command in README and docs/ is run by a test, or can be seen to be right.

A command stands in a block that is marked as sh, or after '$ ' in a block that shows
what it prints as well; in the text, it is what begins with make or a program of the
rig. A verb of make and a program here are checked as they are, others must be in RUN.
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

# How a command begins, and what runs it: a file, and what is in it that does so.
RUN = {
    "git commit -a --fixup=": ("tests/rig/rig.py", '"fixup! '),
    "git rebase -i --autosquash base": ("tests/rig/rig.py", '"--autosquash", "base"'),
    "git config --global user.": ("tests/rig/mail.py", "asks_who_sends"),
    "git send-email --dry-run": ("rig/check/mail", '"send-email", "--dry-run"'),
    "sudo apt install ./build/deb/": ("tests/rig/deb.py", '"apt install "'),
    "sudo apt install ../linux-image-": ("tests/rig/deb.py", '"apt install "'),
    "sudo apt install linux-source-6.12": ("tests/rig/docs.py", "packages_are_there"),
    "sudo apt remove": ("tests/rig/deb.py", "-groups"),
    "uname -r": ("tests/rig/deb.py", '"uname -r"'),
    "tar xf /usr/src/linux-source": ("scripts/tree", "tar -C"),
    "cat ~/groups/patches/": ("tests/rig/docs.py", "applies_by_hand"),
    "ls ~/groups/patches/": ("tests/rig/docs.py", "applies_by_hand"),
    "cp /boot/config-": ("scripts/deb", "/boot/config-"),
    "scripts/config --set-str": ("tests/rig/docs.py", "is_configured_by_hand"),
    "tools/testing/kunit/kunit.py run": ("tests/kunit.py", 'kunit_py("run"'),
    "make olddefconfig": ("scripts/deb", "olddefconfig"),
    "make -j$(nproc) LOCALVERSION=-groups bindeb-pkg": ("scripts/deb", "bindeb-pkg"),
    "make -C build/linux/tools/iommu": ("scripts/deb", "tools/iommu"),
    "build/linux/tools/iommu/lsiommu": ("tests/lsiommu.py", '"--handover"'),
    "echo warn | sudo tee /sys/module/iommu/parameters/reach":
        ("tests/reach.py", "/sys/module/iommu/parameters/reach"),
    "sudo lspci -xxxx": ("tests/replay.py", "lspci"),
    "lsiommu --json": ("tests/lsiommu.py", '"--json"'),
    "lsiommu --since": ("tests/lsiommu.py", '"--since"'),
    "lsiommu --path": ("tests/lsiommu.py", '"--path"'),
    "ls -l /dev/vfio/by-path": ("tests/lsiommu.py", "ls -l /dev/vfio/by-path"),
    "cat /sys/bus/pci/devices/": ("tests/debug.py", "iommu_group/id"),
    # What only a person does: nothing of ours can be wrong there.
    "sudo reboot": None,
    "cd ": None,
    "$EDITOR": None,
}


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


def is_verb(typed):
    """Of our Makefile, with variables that something here takes."""
    words = shlex.split(typed)
    names = [word for word in words if "=" in word]
    verbs = [word for word in words if "=" not in word and word != "make"]
    status, said = run("make", "-n", *verbs, *names, cwd=TOP, timeout=60)
    assert verbs and not status, said
    programs = "".join(path.read_text() for verb in verbs
                       for path in (TOP / "scripts").glob(f"{verb}*"))
    shared = "".join(path.read_text() for path in (TOP / "rig").glob("*")
                     if path.is_file())
    for name in names:
        name = name.split("=")[0]
        assert re.search(rf"\b{name}\b", programs + shared), f"nothing takes {name}="


def is_program(command):
    """Of ours, and it knows the words that it is given."""
    program, *words = shlex.split(command)
    text = (TOP / program).read_text()
    assert (TOP / program).stat().st_mode & 0o111, f"{program} is not executable"
    for word in words:
        word = word.split("=")[0]
        assert re.search(rf"\b{re.escape(word)}\b", text), f"{program} knows no '{word}'"


def is_run(command):
    for begin, by in RUN.items():
        if command.startswith(begin):
            if by:
                file, text = by
                assert text in (TOP / file).read_text(), f"{file} has no '{text}'"
            return
    if re.match(r"([A-Z]+=\S+ )?make [a-z]", command):
        before, _, after = command.partition("make ")
        is_verb(f"make {after} {before}")
    elif re.match(r"(scripts|rig)/", command):
        is_program(command)
    else:
        raise AssertionError("no test runs it")


def is_right(page):
    wrong, count = [], 0
    for number, command in commands(page):
        count += 1
        try:
            is_run(command)
        except (AssertionError, OSError) as error:
            wrong.append(f"{page.name}:{number}: {command}: {error}")
    assert not wrong, "\n".join(wrong)
    assert count or page.name == "results.md", f"{page} has no command"


def all_are_in_use():
    shown = [command for page in PAGES for _, command in commands(page)]
    for begin in RUN:
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
        yield f"each command of {page.relative_to(TOP)} is run by a test or stands as it says", \
            is_right, page
    yield "no command is listed that no page has", all_are_in_use
    yield f"README has at most {LINES} lines of {WIDTH} columns", fits
    yield "what README and docs name is there", links_lead_somewhere
    yield "README's figures are those of docs/results.md", figures_are_from_results
    yield "README counts the real machines as they are", real_machines_are_counted
    yield "a run replaces its own section of docs/results.md", sections_are_replaced
    yield ("a run is not written down where something is not committed",
           runs_of_what_is_committed)
    yield "the patches apply to a tree by the lines that docs/install.md has", \
        applies_by_hand
    yield "the line of docs/install.md changes Debian's configuration", \
        is_configured_by_hand
    yield "the packages that docs/install.md wants are Debian's", packages_are_there
