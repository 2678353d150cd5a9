# SPDX-License-Identifier: GPL-2.0-only
"""A file of patches/ as the mail that it is."""
import email
import os
import re

import where
from command import OWN_GIT, git


def env(name, address):
    """Nothing of a person's own git configuration decides, but this is who sends."""
    return dict(os.environ, **OWN_GIT, GIT_CONFIG_COUNT="2",
                GIT_CONFIG_KEY_0="user.name", GIT_CONFIG_VALUE_0=name,
                GIT_CONFIG_KEY_1="user.email", GIT_CONFIG_VALUE_1=address)


class Mail:
    """separator the line ahead of the mail, with a commit
    header      by name in small letters, on one line each
    subject     without what is in brackets ahead, which is the tag
    body        message and changes
    """

    def __init__(self, path):
        self.path = path
        self.separator, text = path.read_text().split("\n", 1)
        mail = email.message_from_string(text)
        # Long headers are folded, and may be put back on one line.
        self.header = {name.lower(): re.sub(r"\n(?=[ \t])", "", value)
                       for name, value in mail.items()}
        self.tag, self.subject = re.match(r"(?:\[(.*?)\] )?(.*)",
                                          self.header.get("subject", "")).groups()
        self.body = mail.get_payload()


def patches(kernel):
    """Those of a kernel's series, without its cover letter."""
    return [Mail(path) for path
            in sorted((where.TOP / "patches" / kernel).glob("[0-9]*.patch"))
            if not path.name.startswith("0000-")]


def ids(text):
    """Of each patch in a text, what tells it from another."""
    made = git("patch-id", "--stable", cwd=where.TOP, input=text)
    return [line.split()[0] for line in made.splitlines()]
