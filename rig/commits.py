# SPDX-License-Identifier: GPL-2.0-only
"""Makes commits in git's objects alone: no work tree is touched."""
import functools

import command
from command import OWN_GIT
from where import LINUX

git = functools.partial(command.git, **OWN_GIT)


def commit_tree(tree, *parents, like=None):
    """A commit, with the author and the message of another one if there is one."""
    words = [word for parent in parents for word in ("-p", parent)]
    who, mail, date, text = "rig", "rig@localhost", "@0 +0000", "a step"
    if like:
        who, mail, date, text = git("show", "-s", "--date=raw",
                                    "--format=%an%n%ae%n@%ad%n%B", like).split("\n", 3)
    return git("commit-tree", tree, *words, "-m", text,
               GIT_AUTHOR_NAME=who, GIT_AUTHOR_EMAIL=mail, GIT_AUTHOR_DATE=date,
               GIT_COMMITTER_NAME="rig", GIT_COMMITTER_EMAIL="rig@localhost",
               GIT_COMMITTER_DATE=date)


def merge(ours, theirs):
    """The tree of two commits' merge, None where they conflict."""
    status, said = command.run("git", "merge-tree", "--write-tree", ours, theirs,
                               cwd=LINUX)
    return None if status else said.split()[0]


def pick(commit, head):
    """The commit on another head, or None where that conflicts."""
    if git("rev-parse", f"{commit}^") == git("rev-parse", head):
        return commit
    # What git merges has what was before the commit as the common ancestor.
    before = commit_tree(f"{commit}^^{{tree}}")
    merged = merge(commit_tree(f"{head}^{{tree}}", before),
                   commit_tree(f"{commit}^{{tree}}", before))
    return merged and commit_tree(merged, head, like=commit)
