# SPDX-License-Identifier: GPL-2.0-only
"""Boots with options that nobody should have written.

Each boot gives every option a value that it does not take: with a character
changed, put together from pieces, random, or very long. The machine comes up,
each part that is wrong is quoted in one warning, and the groups are those of a
boot without options.

FUZZ_SEED gives other values; the names of the tests say which it was.
"""
import collections
import os
import random
import re
import string
import typing

import counters
import guest
from fixtures import TESTED, VENDORS, boot

NEEDS = "guest"
SEED = int(os.environ.get("FUZZ_SEED") or 20261123)
BOOTS = 20
LONG = 1200
# A line of the log is cut; what is compared of it.
QUOTED = 800
BOOLEAN = re.compile(r"[yYtT1nNfF0]|[oO][nNfF]")
HEX = "[0-9a-fA-F]{1,8}"
DEVICE = re.compile(
    rf"pci:{HEX}:{HEX}(:{HEX}:{HEX})?$|({HEX}:)?{HEX}:{HEX}\.[0-7](/{HEX}\.[0-7])*$")

# What is wrong in a value. Those of iommu= and pci= are lists.


def wrong_boolean(value):
    return [] if BOOLEAN.match(value) else [value]


def wrong_word(value):
    return [] if value in ("requester", "sequential") else [value]


def wrong_policy(value):
    return [] if value in ("warn", "refuse") else [value]


def wrong_tokens(value):
    return [token for token in value.split(",")
            if token.startswith("group_mf") and token != "group_mf"]


def wrong_devices(value):
    return [entry for entry in value.split(";") if not DEVICE.match(entry)]


class Option(typing.NamedTuple):
    name: str
    said: str           # in a warning, before what it quotes
    wrong: typing.Callable
    valid: list
    pieces: list
    chars: str


PLAIN = string.ascii_letters + string.digits + "_-+=.,:;/!?()[]{}<>@#$%^&*~ "
OPTIONS = (
    Option("iommu.group_mf=", "iommu.group_mf: ", wrong_boolean,
           ["1", "on", "yes", "0"], ["o", "maybe", "-1", "=", "+", ","], PLAIN),
    Option("iommu.reach=", "iommu.reach: ", wrong_policy, ["warn", "refuse"],
           ["wa", "ref", "Warn", ",", "0", "refused"], PLAIN),
    Option("iommu.group_ids=", "iommu.group_ids: ", wrong_word,
           ["requester", "sequential"], ["req", "seq", "Requester", ",", "1"],
           PLAIN),
    # Without characters that spell other words of this option.
    Option("iommu=", "iommu: ", wrong_tokens, ["group_mfx", "group_mf=1"],
           [",", "group_mf2", "group_mf.", "x", "group", "group_mf-"], "g_m,=. "),
    Option("pci=group_mf=", "PCI: group_mf: ", wrong_devices,
           ["00:04.0", "00:03.0/00.1", "pci:8086:10d3"],
           [";", "/", ":", ".", "00:04.8", "20.0", "pci:", "1:2", "0x", "-"],
           string.hexdigits + ":;./pci "),
    Option("pci=assume_acs=", "PCI: assume_acs: ", wrong_devices,
           ["00:04.0", "00:03.0/00.1", "pci:8086:10d3"],
           [";", "/", ":", ".", "00:04.8", "20.0", "pci:", "1:2", "0x", "-"],
           string.hexdigits + ":;./pci "),
)


def value_for(option, rnd):
    """A value of which no part is right, as far as that has an effect."""
    while True:
        kind = rnd.randrange(5)
        if kind == 0:
            value = "".join(rnd.choices(option.pieces, k=rnd.randint(1, 5)))
        elif kind == 1:
            value = rnd.choice(option.valid)
            at = rnd.randrange(len(value))
            value = value[:at] + rnd.choice(option.chars) + value[at + 1:]
        elif kind == 2:
            value = rnd.choice(option.valid)[:-1]
        elif kind == 3:
            value = rnd.choice(option.valid + option.pieces) * 2
        else:
            value = "".join(rnd.choices(option.chars, k=rnd.randint(1, 40)))
        # Harmless, but only if all of it is wrong: the groups stay as they are
        wrong = option.wrong(value)
        if option.wrong is wrong_devices:
            if len(wrong) == len(value.split(";")):
                return value
        elif option.wrong is wrong_tokens:
            if "group_mf" not in value.split(","):
                return value
        elif wrong:
            return value


def options(number):
    """The command line of a boot, and what must be quoted: (before, part)."""
    rnd = random.Random(f"{SEED} {number}")
    cmdline, parts = [], []
    for option in rnd.sample(OPTIONS, len(OPTIONS)):
        value = value_for(option, rnd)
        values = [value]
        if rnd.randrange(4) == 0 and not option.name.startswith("pci="):
            values.append(value)        # of those of pci= the last one counts
        for value in values:
            parameter, _, rest = (option.name + value).partition("=")
            cmdline.append(f'{parameter}="{rest}"' if " " in value
                           else option.name + value)
            parts += [(option.said, part) for part in option.wrong(value)]
    # One very long value; the command line has room for one.
    option = OPTIONS[number % 3]
    value = "?" + "x" * (LONG - rnd.randrange(200))
    cmdline.append(option.name + value)
    parts.append((option.said, value))
    return " ".join(cmdline), parts


def survives(iommu, number):
    cmdline, parts = options(number)
    plain = boot("e1000e", iommu)
    with guest.Guest("e1000e", iommu, cmdline, TESTED,
                     log=f"fuzz-{number}") as running:
        groups, reasons = running.groups(), running.reasons()
        warnings = [line for line in running.sh("dmesg -r").splitlines()
                    if line.startswith("<4>")
                    and any(option.said + "'" in line for option in OPTIONS)]
    assert (groups, reasons) == (plain.groups, plain.reasons), \
        f"with '{cmdline}' the groups differ"
    left = list(warnings)
    for (said, part), times in collections.Counter(parts).items():
        quoted = f"{said}'{part}"[:QUOTED] + ("'" if len(part) < QUOTED // 2
                                              else "")
        found = [line for line in left if quoted in line]
        assert len(found) == times, \
            f"{len(found)} warnings have {quoted[:100]}, not {times}: {cmdline}"
        left = [line for line in left if line not in found]
    assert not left, f"warned of what is not wrong: {left}: {cmdline}"
    counters.add("boots with wrong options")
    counters.add("wrong parts of options in them, each quoted once", len(parts))


def cases():
    for number in range(BOOTS):
        iommu = VENDORS[number % len(VENDORS)]
        yield (f"seed {SEED}, boot {number}, {iommu}: comes up, quotes what is "
               "wrong in the options, is grouped as without", survives, iommu,
               number)
