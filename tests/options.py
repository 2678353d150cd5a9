# SPDX-License-Identifier: GPL-2.0-only
"""The options: what they do, and what is wrong in them."""
import re

import guest
import replayed
from fixtures import TESTED, PLAIN, VENDORS_ALIKE, boot, same_groups

NEEDS = "guest"
ON = "Functions of a multi-function device share a group"

# Machine, value of pci=group_mf=, the functions that it names, and the groups
# that come about in place of those of their members. Nothing else may change.
NAMED = (
    ("e1000e", "0000:00:04.0", "00:04.0", ["00:04.0 00:04.1 00:04.2"]),
    ("e1000e", "00:04.1", "00:04.1", ["00:04.0 00:04.1 00:04.2"]),
    ("e1000e", "00:05.3;00:06.0", "00:05.3 00:06.0", ["00:05.0 00:05.3"]),
    ("e1000e", "00:04.0;00:05.0", "00:04.0 00:05.0",
     ["00:04.0 00:04.1 00:04.2", "00:05.0 00:05.3"]),
    ("e1000e", "pci:8086:10d3",
     "00:04.0 00:04.1 00:04.2 00:05.0 00:05.3 00:06.0",
     ["00:04.0 00:04.1 00:04.2", "00:05.0 00:05.3"]),
    ("root-ports", "00:03.2", "00:03.2", ["00:03.0 00:03.1 00:03.2"]),
    ("root-ports", "00:03.1/00.0", "02:00.0", []),
    ("multifunction", "0000:00:03.0/00.1", "01:00.1", []),
    ("sriov", "01:00.0", "01:00.0", []),
    ("sriov", "01:00.2", "", []),
)

# Command line, what the warning quotes, and the groups that come about. What gives
# none is booted together with others, as far as none could hide what another does.
WRONG = (
    (("iommu=group_mfx", "group_mfx"), ("iommu.group_mf=maybe", "maybe"),
     ("pci=group_mf=", ""), []),
    (("iommu=pt,group_mf=1", "group_mf=1"), ("iommu.group_mf=", ""),
     ("pci=group_mf=nonsense;0000:00:09.0", "nonsense"), []),
    (("pci=group_mf=nonsense;0000:00:04.0", "nonsense"),
     ["00:04.0 00:04.1 00:04.2"]),
    (("pci=group_mf=00:04.0;nonsense;00:05.0", "nonsense"),
     ["00:04.0 00:04.1 00:04.2", "00:05.0 00:05.3"]),
)


# Options with a value that is none of theirs, and what the warning quotes; those of a
# line are booted together.
MISTAKEN = (
    (("iommu.group_ids=random", "random"), ("iommu.reach", ""),
     ("pci=assume_acs=", "")),
    (("iommu.group_ids=requester,", "requester,"), ("iommu.reach=perhaps", "perhaps"),
     ("pci=assume_acs=nonsense", "nonsense")),
    (("iommu.group_ids", ""), ("iommu.reach=", ""),
     ("pci=assume_acs=02:00.8", "02:00.8")),
    (("iommu.reach=warn,", "warn,"),
     ("pci=assume_acs=0000:00:09.0;nonsense", "nonsense")),
)


def together(given):
    return " ".join(cmdline for cmdline, _ in given)


def merged(partition, wanted):
    """The partition with each group of `wanted` made one."""
    for group in wanted:
        group = frozenset(group.split())
        assert all(part <= group or not part & group for part in partition)
        partition = {part for part in partition if not part <= group}
        partition.add(group)
    return partition


def only_named(name, iommu, value, named, wanted):
    found = boot(name, iommu, f"pci=group_mf={value}")
    said = {line.split("pci 0000:")[1].split(": ")[0]
            for line in found.log if "share an IOMMU group" in line}
    assert said == set(named.split()), f"the log names {said}, not {named}"
    same_groups(found.partition(),
                merged(boot(name, iommu).partition(), wanted))


def says_so(iommu, cmdline, times):
    lines = [line for line in boot("e1000e", iommu, cmdline).log if ON in line]
    assert len(lines) == times, f"{len(lines)} lines say so: {lines}"


def warns(iommu, cmdline, quoted, wanted):
    found = boot("e1000e", iommu, cmdline)
    assert any(line.startswith("<4>") and "group_mf" in line
               and f"'{quoted}'" in line for line in found.log), \
        f"no warning has group_mf and '{quoted}'"
    same_groups(found.partition(),
                merged(boot("e1000e", iommu).partition(), wanted))


def mistaken(iommu, cmdline, wrong, quoted):
    """Warned of by us, or as an error by what parses the command line."""
    option = wrong.removeprefix("pci=").partition("=")[0]
    found = boot("switch", iommu, cmdline)
    assert any(line.startswith(("<4>", "<3>")) and option in line
               and (f"'{quoted}'" in line or f"`{quoted}'" in line)
               for line in found.log), f"no warning has {option} and '{quoted}'"
    plain = boot("switch", iommu)
    assert (found.groups, found.reasons) == (plain.groups, plain.reasons)


def no_such_option(iommu):
    """What was an option of earlier versions is none, and does nothing."""
    found = boot("switch", iommu, "iommu.trust_switches=1")
    plain = boot("switch", iommu)
    assert (found.groups, found.reasons) == (plain.groups, plain.reasons)
    assert not any("trust_switches:" in line for line in found.log)


def assume_acs(iommu, value, named):
    """The ports that are named are in groups of their own, and the log says so."""
    found = boot("switch", iommu, f"pci=assume_acs={value}")
    warned = {line.split("pci 0000:")[1].split(": ")[0]
              for line in found.log
              if line.startswith("<4>") and "Assuming" in line}
    assert warned == set(named.split()), f"the log names {warned}, not {named}"
    expected = set()
    for group in boot("switch", iommu).partition():
        expected |= {frozenset([device]) for device in group} \
            if group & warned else {group}
    same_groups(found.partition(), expected)


# Files that say which options are in force, with and without these. Of pci= there
# are entries that no device matches; of what is given twice the last one counts.
PARAMETERS = "/sys/module/iommu/parameters/"
IN_FORCE = ("iommu=group_mf iommu.group_ids=requester iommu.group_ids=sequential "
            "iommu.reach=warn iommu.reach=refuse "
            "pci=assume_acs=02:00.0;00:09.0;pci:104c:8233,"
            "group_mf=0000:00:03.0;00:03.0/00.1")
FILES = {PARAMETERS + "group_ids": ("requester\n", "sequential\n"),
         PARAMETERS + "group_mf": ("N\n", "Y\n"),
         PARAMETERS + "reach": ("warn\n", "refuse\n"),
         "/sys/bus/pci/assume_acs": ("", "0000:02:00.0\n0000:02:01.0\n"),
         "/sys/bus/pci/group_mf": ("", "0000:00:03.0\n")}
UNMATCHED = ["PCI: assume_acs: '00:09.0' matches no device so far",
             "PCI: group_mf: '00:03.0/00.1' matches no device so far"]


def in_force(iommu, given):
    """By their files, and what no device matches by the log, once."""
    with guest.Guest("switch", iommu, IN_FORCE if given else PLAIN, TESTED,
                     log="in-force") as running:
        for path, content in FILES.items():
            assert running.read(path) == content[given], path
            mode = running.sh(f"stat -c %a {path}")
            assert mode == ("644\n" if path.endswith("reach") else "444\n"), path
        lines = [line.split("] ", 1)[1] for line
                 in running.sh("dmesg -r").splitlines()
                 if line.startswith("<4>") and "matches no device" in line]
    assert sorted(lines) == (UNMATCHED if given else []), lines


def last_counts():
    """Either way, with the other of what in_force() is given."""
    with guest.Guest("switch", "none", "iommu.group_ids=sequential "
                     "iommu.group_ids=requester iommu.reach=refuse iommu.reach=warn "
                     "iommu.group_mf=1 iommu.group_mf=0", TESTED,
                     log="last-counts") as running:
        for path, (plain, _) in FILES.items():
            assert running.read(path) == plain, path


def without_room():
    """Of more devices than a page has lines for, those that fit are listed whole."""
    text = "".join(
        f"00:{bus:02x}.0 root-port [{bus:02x}] acs ari\n" + "".join(
            f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7} endpoint 8086:10c9 acs ari\n"
            for devfn in range(190)) for bus in (1, 2))
    options = {path: path.rpartition("/")[2] for path in FILES if "/bus/" in path}
    with replayed.Stage(TESTED, "pci=" + ",".join(
            f"{option}=pci:8086:10c9" for option in options.values())) as stage:
        found = stage.replay(replayed.subject("many", f"segment 0\n{text}"))
        assert len(found.groups) == 382, len(found.groups)
        for path in options:
            *lines, last = stage.guest.read(path).splitlines()
            assert last == "..." and len(lines) > 300, f"{path}: {lines[-1]} {last}"
            wrong = [line for line in lines
                     if not re.fullmatch(r"0000:0[12]:[01][0-9a-f]\.[0-7]", line)]
            assert not wrong, f"{path}: {wrong}"


def cases():
    yield ("of more devices than a page has room for /sys/bus/pci/group_mf and "
           "assume_acs list those that fit, and say so", without_room)
    yield "of an option that is given twice the last counts", last_counts
    for iommu in VENDORS_ALIKE:
        for given in True, False:
            yield (f"{iommu}: sysfs says which options are in force with "
                   f"{'several' if given else 'none'}, the log which entries match "
                   "no device", in_force, iommu, given)
        for given in MISTAKEN:
            for cmdline, quoted in given:
                yield (f"{iommu}: {cmdline} is warned about and does nothing",
                       mistaken, iommu, together(given), cmdline, quoted)
        yield (f"{iommu}: iommu.trust_switches=1 is no option", no_such_option,
               iommu)
        for value, named in (("02:00.0", "02:00.0"),
                             ("0000:02:00.0;nonsense;02:01.0",
                              "02:00.0 02:01.0"),
                             ("pci:104c:8233", "02:00.0 02:01.0"),
                             ("00:03.0/00.0/01.0", "02:01.0")):
            yield (f"{iommu}: pci=assume_acs={value} isolates {named}, with a "
                   "warning", assume_acs, iommu, value, named)
        for name, value, named, wanted in NAMED:
            yield (f"{name}, {iommu}: pci=group_mf={value} merges "
                   + (" and ".join(wanted) or "nothing"),
                   only_named, name, iommu, value, named, wanted)
        for cmdline in ("iommu=group_mf", "iommu.group_mf=1",
                        "iommu=pt,group_mf",
                        "iommu=group_mf iommu.group_mf=1"):
            yield (f"{iommu}: the log says once that {cmdline} is on",
                   says_so, iommu, cmdline, 1)
        for cmdline in (PLAIN, "iommu.group_mf=0"):
            yield (f"{iommu}: the log is silent with '{cmdline}'",
                   says_so, iommu, cmdline, 0)
        for *given, wanted in WRONG:
            for cmdline, quoted in given:
                yield (f"{iommu}: {cmdline} is warned about and does no more than "
                       "its good part", warns, iommu, together(given), quoted,
                       wanted)
