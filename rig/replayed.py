# SPDX-License-Identifier: GPL-2.0-only
"""Machines that are somewhere else, brought to life in a guest.

    with Stage("patched") as stage:
        stage.replay(subject(name, text)).groups

guest/modules/replay.c does it, in a guest that has no PCI of its own, where a device can
have the address that it has in the other machine.
"""
import base64
import collections
import concurrent.futures
import gzip
import re
import sys
import threading

import guest
import listing
import machine
from listing import ListingError, short, parse_address

KERNELS = ("stock", "patched")
MODULES = {"stock": "/replay-stock.ko", "patched": "/replay.ko"}
PARAMETERS = "/sys/module/replay/parameters"
ORDER = re.compile(r"(boot|hotadd)(?: (\d+))?$")
# All that userspace sees of groups, with few programs started, for that is what
# takes long. A group's number is the folder in which its devices are.
SHOW = ("cd /sys/bus/pci/devices; echo *; cd /sys/kernel/iommu_groups; "
        "echo */devices/*; grep '' /sys/bus/pci/devices/*/iommu_group_reason "
        "*/reach 2>/dev/null; true")


class ReplayError(Exception):
    """A machine that could not be brought to life: why."""


# What a Function is called, its driver or None, and if it is a port, a bridge or a
# host bridge, which nobody gives away
Known = collections.namedtuple("Known", "what driver bridge")


class Subject:
    """A machine to be brought to life.

    name        what it is called where there are several
    text        its topology, in the notation of the KUnit tests
    functions   what it has, a Known by Address
    hidden      Functions that only stand for some the listing lacks
    reported    the number of the group that the machine had, by Address
    notes       what a person should know of the topology
    reach       what it is known to reach: lines
    """

    def __init__(self, name, text, functions, hidden, reported, notes,
                 reach=()):
        self.name = name
        self.text = text
        self.functions = functions
        self.hidden = set(hidden)
        self.reported = reported
        self.notes = list(notes)
        self.reach = list(reach)


def subject(name, text, groups=None, acs="kernel"):
    """The Subject of a listing, of a topology, or of a file of machines/real/.

    groups  what says in which groups the listing's devices are, or None
    acs     "listed" takes ACS as it is in the listing

    Raises ListingError.
    """
    if not listing.is_topology(text):
        return _of_listing(name, text, groups, acs)
    if groups is not None or acs != "kernel":
        raise ListingError("GROUPS= and ACS= go with a listing, and this is a "
                           "topology")
    return _of_facts(name, listing.Facts(text))


def _of_listing(name, text, groups, acs):
    found = listing.Listing(text, groups, acs)
    if found.refusal():
        raise ListingError(found.refusal())
    if groups is not None and not found.groups:
        raise ListingError(
            "GROUPS= does not say of any device in the listing what group it "
            "is in; do: find /sys/kernel/iommu_groups -type l")
    notes = list(found.notes)
    silent = [address for address in sorted(found.functions)
              if found.groups and address not in found.groups]
    if silent:
        notes.append("not in the groups that the machine reports, and taken "
                     "not to be translated: " + few(silent))
    behind = re.findall(r"^segment ([0-9a-f]+) .*behind (\S+)",
                        found.topology(), re.MULTILINE)
    notes += [f"what is in segment {segment} does its DMA as the VMD device "
              f"{device}, and is in the group of that" for segment, device
              in behind]
    functions = {address: Known(
        what(function), function.driver,
        address not in found.virtual and function.type in listing.BRIDGES
        or function.is_host_bridge)
        for address, function in found.functions.items()}
    return Subject(name, found.topology(), functions, found.added,
                   found.groups, notes)


def _of_facts(name, facts):
    functions = {}
    for address, (kind, ids) in listing.parse_topology(facts.topology).items():
        known = ids and listing.names().of(*ids) or ""
        functions[address] = Known(
            known or ("{:04x}:{:04x}".format(*ids) if ids else kind), None,
            kind in (*listing.BRIDGES, "host-bridge"))
    for address in facts.added:
        functions.pop(address, None)
    return Subject(name, facts.topology, functions, facts.added, facts.groups,
                   facts.notes, facts.reach)


def what(function):
    """What a Function is: its name, or else its class and its IDs."""
    known = None
    if function.device is not None:
        known = listing.names().of(function.vendor, function.device)
    if known or function.device is None:
        return known or re.sub(r" [\[(].*?[\])]", "", function.name)
    return f"{function.kind} {function.vendor:04x}:{function.device:04x}"


def few(addresses, most=8):
    words = [short(address) for address in sorted(addresses)]
    if len(words) > most:
        words[most:] = [f"and {len(words) - most} more"]
    return " ".join(words)


# Where the DMA of a group gets to: group is the number of the group there, or
# None, device one of its devices
Reach = collections.namedtuple("Reach", "group rule port device")


class Replay:
    """What a kernel made of a Subject.

    groups      the number of its group by Address, None without one
    whole       the groups with Functions that only stand for some
    reasons     why, by Address, where the kernel says so
    reach       a list of Reach by the number of the group that reaches
    cut         numbers of groups that reach more than the kernel shows
    lost        Functions that the PCI core did not find
    """

    def __init__(self, said, subject):
        devices, members, *lines = said.splitlines()
        self.groups = {parse_address(device): None
                       for device in devices.split() if device != "*"}
        for path in members.split():
            number, _, device = path.split("/")
            if device != "*":
                self.groups[parse_address(device)] = int(number)
        self.reasons = {}
        self.reach = collections.defaultdict(list)
        self.cut = set()
        for line in lines:
            reason = re.match(r".*/([^/]+)/iommu_group_reason:(.*)", line)
            if reason:
                self.reasons[parse_address(reason[1])] = \
                    reason[2].replace(" 0000:", " ")
            else:
                number, text = re.match(r"(\d+)/reach:(.*)", line).groups()
                self._reached(int(number), text)
        self.whole = self.members()
        self._hide(subject.hidden)
        self.lost = sorted(subject.functions.keys() - self.groups.keys())

    def _reached(self, number, text):
        if text == "...":
            self.cut.add(number)
            return
        group, rule, port, device = text.split()
        self.reach[number].append(
            Reach(None if group == "-" else int(group), rule,
                  parse_address(port), parse_address(device)))

    def _hide(self, hidden):
        """Without the Functions that only stand for some."""
        if not hidden:
            return
        for address in hidden:
            self.groups.pop(address, None)
            self.reasons.pop(address, None)
        members = self.members()
        self.reach = collections.defaultdict(list, {
            number: [reach._replace(device=members[reach.group][0])
                     if reach.device in hidden else reach for reach in found
                     if reach.device not in hidden or reach.group in members]
            for number, found in self.reach.items() if number in members})

    def members(self):
        """The devices by the number of their group."""
        found = collections.defaultdict(list)
        for address, number in sorted(self.groups.items()):
            if number is not None:
                found[number].append(address)
        return dict(found)

    def partition(self):
        """The groups as a set of sets, whatever their numbers."""
        return {frozenset(members) for members in self.members().values()}


class Stage:
    """A guest in which one machine after the other is brought to life."""

    def __init__(self, kernel, cmdline="", log="replay"):
        self.guest = guest.Guest("replay", "mock", cmdline, kernel, log)
        try:
            self.guest.sh(f"insmod {MODULES[kernel]}")
        except BaseException:
            self.guest.kill()
            raise

    def __enter__(self):
        self.guest.__enter__()
        return self

    def __exit__(self, kind, error, trace):
        self.guest.__exit__(kind, error, trace)

    def replay(self, subject, order="boot"):
        """The Replay of a Subject: "boot", "hotadd", or "hotadd SEED"."""
        how, seed = ORDER.match(order).groups()
        text = base64.b64encode(gzip.compress(subject.text.encode())).decode()
        status, said = self.guest.run(
            f"cd {PARAMETERS}; echo {text} | base64 -d | gunzip > /tmp/topology; "
            f"echo {int(how == 'hotadd')} > hotadd; echo {seed or 0} > seed; "
            "echo /tmp/topology > topology")
        if status:
            why = self.guest.read(f"{PARAMETERS}/topology").strip()
            raise ReplayError(f"{subject.name}: {why or said.strip()}")
        return Replay(self.guest.sh(SHOW), subject)


def replay_all(subjects, kernels=KERNELS, cmdline="", order="boot",
               progress=lambda done: None):
    """For each Subject a dict of its Replay, or ReplayError, by kernel.

    The kernels run side by side. progress is told how many of all are done.
    """
    results = [{} for _ in subjects]
    done = 0
    lock = threading.Lock()

    def all_on(kernel):
        nonlocal done
        with Stage(kernel, cmdline) as stage:
            if kernel == "patched" and cmdline:
                for line in re.findall(r"\] (.*, ignoring it)\r?$",
                                       stage.guest.log(), re.MULTILINE):
                    print(f"replay: our kernel: {line}", file=sys.stderr)
            for subject, result in zip(subjects, results):
                try:
                    result[kernel] = stage.replay(subject, order)
                except ReplayError as error:
                    result[kernel] = error
                except guest.GuestError as error:
                    raise guest.GuestError(f"{subject.name}, on {kernel}: "
                                           f"{error}") from error
                with lock:
                    done += 1
                    progress(done)

    with concurrent.futures.ThreadPoolExecutor(len(kernels)) as pool:
        for running in [pool.submit(all_on, kernel) for kernel in kernels]:
            running.result()
    return results


def reach_lines(replay):
    """What groups reach, as machines/real/ has it.

    A line for each way there: a member of the group, the rule and the port, and
    a member of each group or device that is reached.
    """
    members = replay.members()
    lines = collections.defaultdict(list)
    for number, found in sorted(replay.reach.items()):
        for reach in found:
            lines[f"{short(members[number][0])} {reach.rule} "
                  f"{short(reach.port)}:"].append(short(
                      reach.device if reach.group is None
                      else members[reach.group][0]))
        if number in replay.cut:
            lines[f"{short(members[number][0])}:"].append("and more")
    return [f"{way} {' '.join(devices)}" for way, devices in lines.items()]


def as_kunit(subject, replays):
    """A machine as an example in drivers/iommu/tests/pci_group_kunit.c."""
    lines = subject.text.splitlines()
    segments = re.findall(r"^segment ([0-9a-f]+)", subject.text, re.MULTILINE)
    if "segment 0" in lines:
        # The machine that runs the tests has a bus 0 of its own there
        free = next(f"{i:x}" for i in range(1, 0x100)
                    if f"{i:x}" not in segments)
        lines = [re.sub("^segment 0\\b", f"segment {free}", line)
                 for line in lines]
    order = list(listing.parse_topology(subject.text))
    first = order[0].segment

    def name(address):
        return listing.show(address, first)

    def groups(replay):
        return sorted((sorted(members, key=order.index)
                       for members in replay.whole.values()),
                      key=lambda members: order.index(members[0]))

    def strings(lines):
        return "\n".join(f'\t\t"{line}\\n"' for line in lines) or '\t\t""'

    ours = replays["patched"]
    found = groups(ours)
    text = (f'\t{{\n\t\t"{subject.name.rpartition("/")[2]}",\n{strings(lines)},\n'
            + strings(" ".join(map(name, members)) for members in found
                      if len(members) > 1)
            + ",\n")
    if not ours.cut and not subject.hidden:
        text += "\t\t.reach =\n" + strings(
            " ".join((name(members[0]), reach.rule, name(reach.port),
                      name(reach.device)))
            for members in found
            for reach in ours.reach.get(ours.groups[members[0]], ())) + ",\n"
    return text + "\t},\n"


# Comparisons

def components(one, other):
    """Where two partitions differ: pairs of the groups here and there.

    Each pair is as small as can be: what no group of the two ties to the rest.
    """
    only, others = set(one - other), set(other - one)
    while only or others:
        start = min(only or others, key=min)
        seen = set(start)
        while True:
            wider = seen.union(*(group for group in only | others
                                 if group & seen))
            if wider == seen:
                break
            seen = wider
        pair = tuple(sorted((group for group in groups if group & seen),
                            key=min) for groups in (only, others))
        only.difference_update(pair[0])
        others.difference_update(pair[1])
        yield pair


def differences(subject, replay):
    """What the machine reported and this replay does not give, in words."""
    if not subject.reported:
        return []
    reported = collections.defaultdict(set)
    for address, number in subject.reported.items():
        reported[number].add(address)
    found = {frozenset(group & subject.reported.keys())
             for group in replay.partition()} - {frozenset()}
    return [f"the machine reports {show(there)}, the replay has "
            f"{show(here) or 'none of these in a group'}"
            for there, here in components(set(map(frozenset,
                                                  reported.values())), found)]


def show(partition):
    return " | ".join(member_list(group) for group in partition)


def member_list(addresses):
    return machine.member_list(map(short, sorted(addresses)))
