# SPDX-License-Identifier: GPL-2.0-only
"""make mail: the parts of the series, as mails that can be sent."""
import functools
import pathlib
import re
import shutil
import tempfile
import types

import command
import mails
import parts
import where
from commits import git
from fixtures import LONG, succeeds

NEEDS = ""
TOP = where.TOP
SENDER = "A Sender <a@b.example>"
ENV = mails.env("A Sender", "a@b.example") | {"KERNEL": where.KERNEL}


def run(*words, **more):
    return command.run(*words, cwd=TOP, env={**ENV, **more}, timeout=900)


must = functools.partial(succeeds, run)


def lists():
    said = must("make", "-s", "mail").splitlines()
    for part in parts.parts().values():
        line = [line for line in said if line.startswith(f"{part.name} ")]
        assert len(line) == 1 and part.subject in line[0], said
        for name in part.builds_on:
            assert f" {name} " in line[0], line


def unknown_is_refused():
    status, said = run("make", "-s", "mail", PART="all")
    assert status and f"no part 'all': {' '.join(parts.parts())}" in said, said


def is_for_the_newest():
    said = must("scripts/mail", KERNEL="")
    assert f" for Linux {where.KERNELS[-1]}, " in said, said


def is_written(name):
    with tempfile.TemporaryDirectory() as place:
        must("scripts/mail", name, place)
        out = pathlib.Path(place) / name / "v1"
        cover, *patches = sorted(out.glob("*.patch"))
        known, commits = parts.parts(), parts.series()
        part = known[name]
        wanted = [subject for subject in part.patches if subject in commits]
        assert len(patches) == len(wanted), patches

        letter = cover.read_text()
        start, head = (out / "commits").read_text().split()
        for text in (f"Subject: [PATCH 0/{len(wanted)}] {part.subject}\n", part.text,
                     *(f"  {one.subject}\n" for one in parts.below(part, known)),
                     f"base-commit: {git('rev-parse', 'base^{commit}')}\n",
                     "files changed"):
            assert text in letter, f"no '{text}' in {letter}"
        for subject in wanted:  # the shortlog breaks long ones
            assert subject in " ".join(letter.split()), f"no '{subject}' in {letter}"
        assert "***" not in letter
        below = [subject for one in parts.below(part, known) for subject in one.patches
                 if subject in commits]
        files = {mail.subject: mail.path for mail in mails.patches(where.KERNEL)}
        on = re.findall("^prerequisite-patch-id: (.*)$", letter, re.M)
        assert on == [mails.ids(files[subject].read_text())[0] for subject in below], on
        for number, patch in enumerate(patches, 1):
            text = patch.read_text()
            assert f"\nSigned-off-by: {SENDER}\n" in text, text
            assert f"[PATCH {number}/{len(wanted)}]" in text, text
        for path in (cover, *patches):
            text = path.read_text()
            assert f"\nFrom: {SENDER}\n" in text, text
            assert re.search(r"^To: .*@", text, re.M), text
            assert re.search(r"^ +linux-kernel@vger.kernel.org|"
                             "^Cc: linux-kernel@vger.kernel.org", text, re.M), text

        # It is put on the base and what it builds on, and no more; git takes it there.
        there = git("log", "--reverse", "--format=%s", f"base..{start}")
        assert there.splitlines() == below, there
        tree = f"{place}/tree"
        files = git("diff", "--name-only", start, head).splitlines()
        must("git", "clone", "-q", "-s", "-n", where.LINUX, tree)
        must("git", "-C", tree, "sparse-checkout", "set", "--no-cone",
             *(f"/{file}" for file in files))
        must("git", "-C", tree, "checkout", "-q", "--detach", start)
        must("git", "-C", tree, "am", "-q", *patches)
        assert must("git", "-C", tree, "rev-parse", "HEAD^{tree}") == \
            must("git", "-C", tree, "rev-parse", f"{head}^{{tree}}")


def versions():
    with tempfile.TemporaryDirectory() as place:
        status, said = run("scripts/mail", "fixes", place, V="2")
        assert status and "there is no v1" in said, said
        must("scripts/mail", "fixes", place)
        # As if the second of the patches had not been there.
        file = pathlib.Path(place) / "fixes/v1/commits"
        start, head = file.read_text().split()
        file.write_text(f"{start} {head}^\n")
        must("scripts/mail", "fixes", place, V="2")
        cover = next((pathlib.Path(place) / "fixes/v2").glob("*0000-*")).read_text()
        assert "Subject: [PATCH v2 0/" in cover, cover
        changed = cover.partition("Range-diff against v1:")[2].splitlines()
        assert [line for line in changed if re.match("-: ", line)], cover


def asks_who_sends():
    """Of rig and parts alone, as whoever has a clone may have said who they are."""
    with tempfile.TemporaryDirectory() as place:
        for folder in ("rig", "scripts", "patches/parts"):
            shutil.copytree(TOP / folder, f"{place}/{folder}")
        status, said = run(f"{place}/scripts/mail", "fixes", GIT_CONFIG_COUNT="0",
                           HOME=place)
    assert status, said
    for words in ("git config --global user.name", "git config --global user.email"):
        assert words in said, said


def part(name, builds_on, *patches, text="Prior art: none.\n"):
    return types.SimpleNamespace(name=name, builds_on=builds_on, patches=list(patches),
                                 text=text)


FAULTS = (
    ("nothing", [part("a", [], "1"), part("b", ["a"], "2", "3")], None),
    ("a patch that is in no part", [part("a", [], "1", "2")], "is in no part: 3"),
    ("a patch that is in two", [part("a", [], "1", "2"), part("b", [], "2", "3")],
     "is in a as well: 2"),
    ("a patch that is not there", [part("a", [], "1", "2", "3", "4")],
     "no kernel's series has this: 4"),
    ("another order", [part("a", [], "2", "1", "3")], "in another order"),
    ("a part below that comes later", [part("a", ["b"], "1"), part("b", [], "2", "3")],
     "'b', which is no part before it"),
    ("a letter without prior art", [part("a", [], "1", "2", "3", text="Why.\n")],
     "nothing of prior art"),
)


def is_found(known, wanted):
    found = list(parts.faults({one.name: one for one in known}, {"9.9": ["1", "2", "3"]}))
    if wanted:
        assert any(wanted in fault for fault in found), found
    else:
        assert not found, found


def needs_more():
    known = parts.parts()
    known["reach"].builds_on = []
    try:
        parts.stack(known["reach"], known, parts.series())
    except parts.PartError as error:
        assert "does not apply: iommu: Show what" in str(error), error
    else:
        raise AssertionError("it applies without what it builds on")


def cases():
    yield "make mail lists the parts, and what each builds on", lists
    yield "a part that there is not is refused, and the others named", unknown_is_refused
    yield "mails are for the newest kernel where KERNEL= does not say", is_for_the_newest
    # Of the kernel that they are sent for all, but as each takes half a minute, only
    # with LONG=1.
    newest = where.KERNEL == where.KERNELS[-1]
    for name in parts.parts() if newest and LONG else ["number"]:
        yield (f"{name} has a cover letter, sender, sign-off and recipients, and git am "
               "takes it after what it builds on", is_written, name)
    yield "a second version says what changed, and wants the first", versions
    yield ("who has not told git who they are is told how, and nothing is written",
           asks_who_sends)
    for what, known, wanted in FAULTS:
        yield f"the check of the parts finds {what}", is_found, known, wanted
    yield "a part that does not say what it builds on does not apply", needs_more
