# SPDX-License-Identifier: GPL-2.0-only
"""Boots with options that nobody should have written, among some that are right.

Each boot has many values: put together from pieces, with a character changed,
random; all beginnings of what is right; and one that fills the command line.
The machine comes up, each part that is wrong or that no device matches is quoted
in one warning, what is right counts, as sysfs shows, and nothing else has changed.

FUZZ_SEED gives other values; the names of the tests say which it was.
"""
import collections
import functools
import os
import random
import re
import string
import threading
import typing

import counters
import guest
from fixtures import TESTED, VENDORS, numbered_by_requester_id, partition, \
    same_groups
from where import KERNEL, KERNELS

NEEDS = "guest"
SEED = int(os.environ.get("FUZZ_SEED") or 20261123)
BOOTS = 6
MACHINE = "demo"
# COMMAND_LINE_SIZE of x86, with the end of the string
LINE = 2048
# A line of the log is cut; what is compared of it.
QUOTED = 800
REACH = "/sys/module/iommu/parameters/reach"


# What is there after boot

class State:
    """What options come to: iommu.group_mf, iommu.group_ids, iommu.reach.

    by_token is what iommu= says of Functions; iommu.group_mf= has the last word.
    tied and assumed have the right parts of pci=group_mf= and pci=assume_acs=.
    """
    def __init__(self):
        self.group_mf, self.by_token = None, False
        self.ids = "requester"
        self.reach = "warn"
        self.tied, self.assumed = [], []

    @property
    def everywhere(self):
        return self.by_token if self.group_mf is None else self.group_mf


class Machine:
    """A boot without options.

    groups, reasons     as Guest has them
    way                 the device and the bridges above it, by device
    names               its four IDs, by device
    prefix              the command line that each boot has anyway
    """
    def __init__(self, iommu):
        with guest.Guest(MACHINE, iommu, kernel=TESTED,
                         log="fuzz-plain") as running:
            self.groups, self.reasons = running.groups(), running.reasons()
            self.prefix = running.read("/proc/cmdline").strip()
            listed = running.sh(
                "cd /sys/bus/pci/devices; for d in *; do echo $(readlink -f $d)"
                " $(cd $d; cat vendor device subsystem_vendor "
                "subsystem_device); done")
        self.way, self.names = {}, {}
        for line in listed.splitlines():
            path, *names = line.split()
            way = [step.removeprefix("0000:") for step in path.split("/")
                   if re.match(r"0000:..:..\..$", step)]
            self.way[way[-1]] = way[::-1]
            self.names[way[-1]] = [int(name, 16) for name in names]

    def named(self, entries):
        """The devices that entries of a list of devices are for."""
        return {device for device in self.way for entry in entries
                if self._is(device, read_device(entry))}

    def unmatched(self, entries):
        return [entry for entry in entries if not self.named([entry])]

    def _is(self, device, wanted):
        kind, *numbers = wanted
        if kind == "pci":
            names = zip(numbers, self.names[device])
            return all(number in (0, name) for number, name in names)
        (segment, bus), *slots = numbers
        way = self.way[device]
        if segment or len(way) < len(slots):
            return False
        for step, (slot, function) in zip(way, reversed(slots)):
            if not step.endswith(f":{slot:02x}.{function}"):
                return False
        return way[len(slots) - 1].startswith(f"{bus:02x}:")

    def partition(self, state):
        """The groups that there are by a State."""
        found = partition(self.groups)
        for device in sorted(self.named(state.assumed)):
            group = next((group for group in found if device in group),
                         frozenset())
            # Without it, those below and the Functions beside it are apart
            reasons = [self.reasons.get(member, "") for member in group]
            beside = [member for member in group - {device}
                      if member[:-1] == device[:-1]]
            if not any("alias" in reason for reason in reasons) \
                    and (f"path {device}" in reasons or beside):
                found -= {group}
                found |= {frozenset([device]), group - {device}} - {frozenset()}
        tied = self.way if state.everywhere else self.named(state.tied)
        for slot in {device[:-1] for device in tied}:
            there = {group for group in found
                     if any(member[:-1] == slot for member in group)}
            found -= there
            found |= {frozenset().union(*there)} - {frozenset()}
        return found

    def check(self, running, state):
        groups = running.groups()
        same_groups(partition(groups), self.partition(state))
        if state.ids == "requester":
            numbered_by_requester_id(groups)
        else:
            numbers = set(groups.values()) - {None}
            assert numbers == set(range(len(numbers))), numbers
        reach = running.read(REACH).strip()
        assert reach == state.reach, f"{REACH} is {reach}, not {state.reach}"
        if not (state.everywhere or state.tied or state.assumed):
            assert running.reasons() == self.reasons, running.reasons()


_lock = threading.Lock()


def plain(iommu):
    """The Machine, which the first of all that ask boots."""
    with _lock:
        return booted(iommu)


@functools.cache
def booted(iommu):
    return Machine(iommu)


# What is wrong in a value, and what the rest of it does

def take_boolean(value, state):
    """As kstrtobool() has it; 7.x knows enable and disable besides."""
    enable, disable = ("", "") if KERNEL == KERNELS[0] else ("eE", "dD")
    on = re.match(rf"[yYtT1{enable}]|[oO][nN]", value)
    if not on and not re.match(rf"[nNfF0{disable}]|[oO][fF]", value):
        return [value]
    state.group_mf = bool(on)
    return []


def take_ids(value, state):
    if value not in ("requester", "sequential"):
        return [value]
    state.ids = value
    return []


def take_policy(value, state):
    if value not in ("warn", "refuse"):
        return [value]
    state.reach = value
    return []


def take_tokens(value, state):
    tokens = [token for token in value.split(",")
              if token.startswith("group_mf")]
    state.by_token |= "group_mf" in tokens
    return [token for token in tokens if token != "group_mf"]


def read_number(text, most):
    """A number as sscanf() has it: of up to eight characters with a 0x ahead."""
    text = text.lstrip(" ")
    if len(text) > 8 or not re.match(r"(0[xX])?[0-9a-fA-F]*$", text) or not text:
        raise ValueError
    number = int(text[2:] or "0" if text[:2] in ("0x", "0X") else text, 16)
    if number > most:
        raise ValueError
    return number


def read_device(entry):
    """("pci", its IDs...) or ("way", (segment, bus), (device, function)...)."""
    if entry.startswith("pci:"):
        names = entry[4:].split(":")
        if len(names) not in (2, 4):
            raise ValueError
        return "pci", *(read_number(name, 0xffff) for name in names)
    first, *more = entry.split("/")
    *bus, first = first.split(":")
    if len(bus) not in (1, 2):
        raise ValueError
    slots = []
    for slot in [first, *more]:
        device, function = slot.split(".")
        slots.append((read_number(device, 0x1f), read_number(function, 7)))
    return ("way", (read_number(bus[0], 0xffffffff) if bus[1:] else 0,
                    read_number(bus[-1], 0xff)), *slots)


def is_device(entry):
    try:
        return bool(read_device(entry))
    except ValueError:
        return False


def take_tied(value, state):
    state.tied = list(filter(is_device, value.split(";")))
    return [entry for entry in value.split(";") if not is_device(entry)]


def take_assumed(value, state):
    state.assumed = list(filter(is_device, value.split(";")))
    return [entry for entry in value.split(";") if not is_device(entry)]


class Option(typing.NamedTuple):
    name: str
    said: str           # in a warning, before what it quotes
    take: typing.Callable   # gives what is wrong
    right: list
    pieces: list
    chars: str
    between: str        # of the parts that a value has, or ""


WORDS = string.ascii_letters + string.digits + "_-+=.,:;/!?()[]{}<>@#$%^&*~ "
DEVICES = (
    ["00:03.0", "0000:00:04.0", "00:03.1/00.0", "pci:8086:10d3", "04:00.0",
     "00:05.0/00.0/01.0", "0:4.1", "1:00:04.0", "pci:1b36:c:0:0",
     "pci:0x104c:0X8233", "02:00.1"],
    [";", "/", ":", ".", "00:04.8", "20.0", "100:0.0", "pci:", "1:2", "0x", "-",
     "/00.0", "10000", "123456789", "@", "*"],
    string.hexdigits + ":;./pcix ", ";")
OPTIONS = (
    Option("iommu.group_mf=", "iommu.group_mf: ", take_boolean,
           ["1", "on", "yes", "0", "off", "no", "true"],
           ["o", "maybe", "-1", "=", "+", ",", "2"], WORDS, ""),
    Option("iommu.reach=", "iommu.reach: ", take_policy, ["warn", "refuse"],
           ["wa", "ref", "Warn", ",", "0", "refused"], WORDS, ""),
    Option("iommu.group_ids=", "iommu.group_ids: ", take_ids,
           ["requester", "sequential"], ["req", "seq", "Requester", ",", "1"],
           WORDS, ""),
    # Without characters that spell other words of this option.
    Option("iommu=", "iommu: ", take_tokens, ["group_mf"],
           ["group_mf2", "group_mf.", "x", "group", "group_mf-", "group_mf=1",
            "GROUP_MF"], "g_m=. ", ","),
    Option("pci=group_mf=", "PCI: group_mf: ", take_tied, *DEVICES),
    Option("pci=assume_acs=", "PCI: assume_acs: ", take_assumed, *DEVICES),
)
NAMES = {option.name: option for option in OPTIONS}


def part_for(option, rnd):
    """A part of a value, right or wrong."""
    kind = rnd.randrange(6)
    if kind == 0:
        return "".join(rnd.choices(option.pieces, k=rnd.randint(1, 5)))
    if kind == 1:
        part = rnd.choice(option.right)
        at = rnd.randrange(len(part))
        return part[:at] + rnd.choice(option.chars) + part[at + 1:]
    if kind == 2:
        return rnd.choice(option.right + option.pieces) * 2
    if kind == 3:
        return "".join(rnd.choices(option.chars, k=rnd.randint(1, 30)))
    return rnd.choice(option.right)


def value_for(option, rnd, length):
    """One of up to so many characters, right or wrong or of such parts."""
    if not option.between:
        return part_for(option, rnd)[:length]
    value = part_for(option, rnd)
    while len(value) < length:
        value += option.between + part_for(option, rnd)
    return value[:length]


def word(option, value):
    """As it is on a command line."""
    name, _, rest = (option.name + value).partition("=")
    return f'{name}="{rest}"' if " " in value else option.name + value


# Command lines: pairs of an option and a value

def mixed(rnd, room):
    """Values of all options, as many as there is room for."""
    length = rnd.choice((10, 30, 100, 500))
    values = [(option, value_for(option, rnd, length)) for option in OPTIONS
              if option.between]
    # Most of iommu= ties all Functions, which would hide what pci=group_mf= ties
    last = [(NAMES["iommu.group_mf="], "off")] * rnd.randrange(2)
    while True:
        # Of one that has devices the last one counts, and only that is read
        option = rnd.choice(OPTIONS[:4])
        values.append((option, value_for(option, rnd, 40)))
        if len(" ".join(word(*value) for value in values + last)) > room:
            values.pop()
            break
    rnd.shuffle(values)
    return values + last


def beginnings(rnd, room, names):
    """All beginnings of what these options take, the whole of it as well."""
    values = []
    for option in map(NAMES.get, names):
        parts = [right[:end] for right in option.right
                 for end in range(len(right) + 1)]
        rnd.shuffle(parts)
        if option.between:
            parts = [option.between.join(parts)]
        values += [(option, part) for part in parts]
    rnd.shuffle(values)
    return values


def longest(rnd, room, name):
    """A value that fills the command line."""
    option = NAMES[name]
    room -= len(name) + len('""')
    if option.between:
        value = value_for(option, rnd, room)
    else:
        value = "?" + "".join(rnd.choices(
            option.chars.replace(" ", ""), k=room - 1))
    value += "x" * (room + 2 * (" " not in value) - len(value))
    return [(option, value)]


def survives(iommu, name, make, *arguments):
    machine = plain(iommu)
    room = LINE - 1 - len(machine.prefix) - 1
    values = make(random.Random(f"{SEED} {name}"), room, *arguments)
    cmdline = " ".join(word(*value) for value in values)
    assert len(cmdline) <= room, f"{len(cmdline)} characters: {cmdline}"
    assert make != longest or len(cmdline) == room, cmdline
    state, parts = State(), []
    for option, value in values:
        parts += [(option.said, part) for part in option.take(value, state)]
    log = "fuzz-" + re.sub("[^a-z0-9]+", "-", name)
    with guest.Guest(MACHINE, iommu, cmdline, TESTED, log) as running:
        taken = running.read("/proc/cmdline").strip()
        assert taken == f"{machine.prefix} {cmdline}".strip(), taken
        try:
            machine.check(running, state)
        except AssertionError as error:
            raise AssertionError(f"{error}: {vars(state)}: {cmdline}") from None
        warnings = [line for line in running.sh("dmesg -r").splitlines()
                    if line.startswith("<4>")
                    and any(option.said + "'" in line for option in OPTIONS)]
    left = list(warnings)
    quotes = [f"{said}'{part}"[:QUOTED] + ("'" if len(part) < QUOTED // 2 else "")
              for said, part in parts]
    quotes += [f"{said}'{entry}' matches no device so far" for said, entries in
               ((NAMES["pci=group_mf="].said, state.tied),
                (NAMES["pci=assume_acs="].said, state.assumed))
               for entry in machine.unmatched(entries)]
    for quoted, times in collections.Counter(quotes).items():
        found = [line for line in left if quoted in line]
        assert len(found) == times, \
            f"{len(found)} warnings have {quoted[:100]}, not {times}: {cmdline}"
        left = [line for line in left if line not in found]
    assert not left, f"warned of what is not wrong: {left}: {cmdline}"
    counters.add("boots with wrong options")
    counters.add("wrong parts of options in them, each quoted once", len(parts))


def cases():
    makes = [(f"{number} with right and wrong parts", mixed)
             for number in range(BOOTS)]
    makes += [(f"with all beginnings of what {' '.join(names)} take", beginnings,
               names) for names in (
                   ("iommu.group_mf=", "iommu.reach=", "iommu=",
                    "pci=assume_acs="),
                   ("iommu.group_ids=", "pci=group_mf="))]
    makes += [(f"with {option.name} as long as there is room", longest,
               option.name) for option in OPTIONS]
    for number, (name, make, *arguments) in enumerate(makes):
        iommu = VENDORS[number % len(VENDORS)]
        yield (f"seed {SEED}, {iommu}, a boot {name}: comes up, quotes what is "
               "wrong, takes what is right, and that is all", survives, iommu,
               name, make, *arguments)
