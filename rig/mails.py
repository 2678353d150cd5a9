# SPDX-License-Identifier: GPL-2.0-only
"""A file of patches/ as the mail that it is."""
import email
import re


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
