# SPDX-License-Identifier: GPL-2.0-only
"""Machines that are somewhere else give the groups there that they have there.

Those of machines/real/ are brought to life on stock and ours, at boot and hot-added
in several orders; besides small ones, each for one thing that replaying has to do.
"""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading

import counters
import listing
import replayed
import where
from listing import short
from fixtures import LONG, TESTED, Skip, same_groups

NEEDS = "stock guest"
ORDERS = ("boot", "hotadd 1", *(("hotadd", "hotadd 2", "hotadd 3") if LONG else ()))
# Whose report is not what the grouping of PCI devices gives
OTHERWISE = {"59-power-ppc-bar-v-only":
             "POWER's firmware says what is a group, the bus does not"}
VERB = where.TOP / "scripts/replay"

_verb = threading.Lock()
_lock = threading.Lock()
_locks = {}
_results = {}


def once(key, function):
    """What the function gives, called by the first of all that ask."""
    with _lock:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _results:
            try:
                _results[key] = function()
            except Exception as error:
                _results[key] = error
        if isinstance(_results[key], Exception):
            raise _results[key]
        return _results[key]


# The real machines

def real_subjects():
    return [replayed.subject(path.name, path.read_text())
            for path in sorted(listing.REAL.iterdir())]


def real(name, kernel, order="boot"):
    """The Subject and the Replay of a real machine."""
    def replay():
        subjects = once("subjects", real_subjects)
        found = replayed.replay_all(subjects, [kernel], order=order)
        counters.add("real machines brought to life, on stock or in one order "
                    "on ours", len(subjects))
        counters.add("functions that these have", sum(
            len(subject.functions) for subject in subjects))
        return {subject.name: (subject, results[kernel])
                for subject, results in zip(subjects, found)}
    subject, result = once(("real", kernel, order), replay)[name]
    if isinstance(result, Exception):
        raise result
    return subject, result


def reported(name):
    subject, replay = real(name, "stock")
    found = replayed.differences(subject, replay)
    if name in OTHERWISE:
        assert found, f"{name} is no exception: {OTHERWISE[name]}"
    else:
        assert not found, "\n".join(found)


def in_words(replay):
    return {frozenset(map(short, group)) for group in replay.partition()}


def as_stock(name):
    subject, stock = real(name, "stock")
    for order in ORDERS:
        _, ours = real(name, TESTED, order)
        for replay in (stock, ours):
            assert replay.groups.keys() == subject.functions.keys(), \
                (order, replay.groups.keys() ^ subject.functions.keys())
        same_groups(in_words(ours), in_words(stock))


def same_in_any_order(name):
    _, boot = real(name, TESTED)
    for order in ORDERS[1:]:
        _, other = real(name, TESTED, order)
        assert other.groups == boot.groups, order
        assert other.reasons == boot.reasons, order


def reaches(name):
    for order in ORDERS:
        subject, replay = real(name, TESTED, order)
        found = replayed.reach_lines(replay)
        assert found == subject.reach, (
            f"{order}: it reaches {found}, not {subject.reach}; if that is "
            "right now: scripts/replay --real")


# Small ones

SWITCH = """\
segment 0
00:1c.0 root-port [01-04] acs
  01:00.0 upstream [02-04]
    02:00.0 downstream [03] {0}
      03:00.0 endpoint
    02:01.0 downstream [04] acs
      04:00.0 endpoint
"""
WIDE = (0xa110, 0xa11f, 0xa167, 0xa16a, 0xa290, 0xa29f, 0xa2e7, 0xa2ee, 0x9d10,
        0x9d1b)
TEXTS = {
    "acs": SWITCH.format("acs"),
    "no acs": SWITCH.format(""),
    "a shared Requester ID at which nothing answers":
        "segment 0\n00:05.0 rc-endpoint alias=1e.0\n"
        "00:06.0 rc-endpoint alias=1e.0\n00:07.0 rc-endpoint\n",
    "Intel's wide registers": "segment 0\n" + "".join(
        f"00:{slot:02x}.0 root-port [{slot:02x}] 8086:{device:x} "
        f"acs=sv+tb-rr+cr+\n  {slot:02x}:00.0 endpoint\n"
        for slot, device in enumerate(WIDE, 1)),
    "AMD's southbridge": "segment 0\n00:14.0 pci 1002:4385\n"
                         "00:14.2 pci 1002:4383\n00:14.3 pci 1002:439d\n",
    "the bit of Function 0 only": "segment 0\n00:1f.0 pci\n00:1f.3 pci no-mf\n",
    "two functions": "segment 0\n00:03.0 rc-endpoint acs\n"
                     "00:03.1 rc-endpoint acs\n",
    "VMD": "segment 0\n00:0e.0 rc-endpoint 8086:467f\n00:0f.0 rc-endpoint\n"
           "segment 10000 bus e0 behind 00:0e.0\n"
           "e0:06.0 root-port [e1] acs\n  e1:00.0 endpoint\n",
    # Of each port the first page shows but a part of what is on bus 03
    "a long reach": "segment 0\n00:1c.0 root-port [01-22] acs\n"
                    "  01:00.0 upstream [02-22]\n"
                    "    02:00.0 downstream [03] acs ari\n" + "".join(
                        f"      03:{number >> 3:02x}.{number & 7} endpoint acs "
                        "ari\n" for number in range(120)) + "".join(
                        f"    02:{slot:02x}.0 downstream [{slot + 3:02x}]\n"
                        f"      {slot + 3:02x}:00.0 endpoint\n"
                        for slot in range(1, 32)),
    "many functions": "segment 0\n" + "".join(
        f"00:{slot:02x}.0 root-port [{slot:02x}] acs ari\n" + "".join(
            f"  {slot:02x}:{number >> 3:02x}.{number & 7} endpoint acs ari\n"
            for number in range(20)) for slot in range(1, 31))
        + "segment 1\n00:01.0 root-port [01-02] acs ari\n"
        "  01:00.0 endpoint acs ari vfs=300@80+1\n",
}


def small(cmdline="", order="boot"):
    """The Replay of each of TEXTS, by its name and by kernel."""
    def replay():
        subjects = [replayed.subject(name, text)
                    for name, text in TEXTS.items()]
        return dict(zip(TEXTS, replayed.replay_all(
            subjects, sorted({"stock", TESTED}), cmdline, order)))
    return once(("small", cmdline, order), replay)


def groups_of(name, kernel, cmdline="", order="boot"):
    found = small(cmdline, order)[name][kernel]
    if isinstance(found, Exception):
        raise found
    return {tuple(map(short, sorted(group))) for group in found.partition()}


def on_both(name, *expected, cmdline="", orders=("boot",)):
    for kernel in ("stock", TESTED):
        for order in orders:
            found = groups_of(name, kernel, cmdline, order)
            assert found == set(expected), f"{kernel}, {order}: {found}"


def wide_registers():
    alone = [(f"{bus:02x}:{slot:02x}.0",) for n in range(1, len(WIDE) + 1)
             for bus, slot in ((0, n), (n, 0))]
    on_both("Intel's wide registers", *alone)


def many_functions():
    for kernel in ("stock", TESTED):
        found = groups_of("many functions", kernel)
        assert len(found) == 30 + 30 * 20 + 2 + 300, len(found)


def iommu_is_first():
    """Where it is, stock does not know yet that there are other Functions."""
    name = "the bit of Function 0 only"
    one, two = {("00:1f.0", "00:1f.3")}, {("00:1f.0",), ("00:1f.3",)}
    assert groups_of(name, "stock") == one
    assert groups_of(name, "stock", order="hotadd") == two
    assert groups_of(name, TESTED, order="hotadd") == one


def seeds_change_the_order():
    """Stock's numbers count up in the order in which devices come."""
    plain, other = (small(order=order)["Intel's wide registers"]["stock"].groups
                    for order in ("hotadd", "hotadd 4"))
    assert plain.keys() == other.keys() and plain != other, plain


def behind_vmd():
    on_both("VMD", ("00:0e.0", "10000:e0:06.0", "10000:e1:00.0"), ("00:0f.0",),
            orders=("boot", "hotadd", "hotadd 4"))


def a_change_is_seen():
    name = "a shared Requester ID at which nothing answers"
    both = small()[name]
    pairs = list(replayed.components(both["stock"].partition(),
                                     both[TESTED].partition()))
    shown = [tuple(map(replayed.show, pair)) for pair in pairs]
    assert shown == [("00:05.0 | 00:06.0", "00:05.0 00:06.0")], shown


def group_mf_counts():
    assert groups_of("two functions", TESTED) == {("00:03.0",), ("00:03.1",)}
    assert groups_of("two functions", TESTED, "iommu=group_mf") == \
        {("00:03.0", "00:03.1")}
    assert groups_of("two functions", "stock", "iommu=group_mf") == \
        {("00:03.0",), ("00:03.1",)}


def acs_options_count():
    if where.KERNEL != where.KERNELS[0]:
        raise Skip("the kernel applies it in pci_dma_configure(), where emulated "
                   "devices do not come by")
    whole = ("00:1c.0",), ("01:00.0",), ("02:00.0",), ("02:01.0",), \
        ("03:00.0",), ("04:00.0",)
    on_both("acs", *whole)
    on_both("acs", *whole[:2], ("02:00.0", "03:00.0"), *whole[3:4], whole[5],
            cmdline="pci=disable_acs_redir=02:00.0")


def reach_is_shown():
    assert not small()["acs"][TESTED].reach
    lines = replayed.reach_lines(small()["no acs"][TESTED])
    assert lines == ["02:00.0 switch 02:00.0: 04:00.0"], lines


def long_reach():
    """What does not fit a page of sysfs is said to be missing."""
    replay = small()["a long reach"][TESTED]
    numbers = {2 << 8 | slot << 3 for slot in range(1, 32)}
    assert replay.cut == numbers, replay.cut
    for line in replayed.reach_lines(replay):
        assert line.endswith(": and more") or len(line.split()) > 80, line


def example(name):
    """A machine of TEXTS as an example of the KUnit tests: its strings, and all."""
    both = small()[name]
    text = replayed.as_kunit(replayed.subject(name, TEXTS[name]), both)
    return re.findall(r'^\t\t"(.*)\\n"', text, re.MULTILINE), text


def pasted():
    for name, text in TEXTS.items():
        strings, _ = example(name)
        lines = text.splitlines()
        # QEMU's own bus 0 is in segment 0
        free = 2 if "segment 1" in lines else 1
        assert [re.sub(rf"^segment {free}\b", "segment 0", line) for line in
                strings[:len(lines)]] == lines, (name, strings[:5])
        groups = {group for group in small()[name][TESTED].partition()
                  if len(group) > 1}
        assert {frozenset(map(listing.parse_address, line.split())) for line
                in strings[len(lines):len(lines) + len(groups)]} == groups, name


def pasted_besides():
    _, text = example("no acs")
    assert text.endswith('\t\t.reach =\n\t\t"02:00.0 switch 02:00.0 04:00.0'
                         '\\n",\n\t},\n'), text
    _, text = example("acs")
    assert text.endswith('\t\t.reach =\n\t\t"",\n\t},\n'), text


def named_line():
    subject = replayed.subject("wrong", TEXTS["acs"].replace("[03]", "[01]"))
    found = replayed.replay_all([subject], ["stock"])
    why = str(found[0]["stock"])
    assert "wrong: error" in why and "02:00.0 downstream [01] acs" in why, why


# The verb, as make calls it

PORT = ("00:1c.{0} PCI bridge [0604]: Intel Corporation Device [8086:7ab8] "
        "(rev 11)\n\tControl: I/O+ Mem+ BusMaster+\n"
        "\tBus: primary=00, secondary={1}, subordinate={1}, sec-latency=0\n"
        "\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00\n"
        "\tCapabilities: [220 v1] Access Control Services\n"
        "\t\tACSCap:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ "
        "EgressCtrl- DirectTrans-\n"
        "\t\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- "
        "EgressCtrl- DirectTrans-\n"
        "\tKernel driver in use: pcieport\n\n")
CARD = ("{0}:00.{1} Ethernet controller [0200]: Intel Corporation 82576 Gigabit "
        "Network Connection [8086:10c9]\n\tControl: I/O+ Mem+ BusMaster+\n"
        "\tRegion 0: Memory at f7d00000 (32-bit)\n"
        "\tCapabilities: [a0] Express (v2) Endpoint, MSI 00\n"
        "\tKernel driver in use: igb\n\n")
# The listing lacks Function 0 of the ports
LISTING = PORT.format(4, "01") + CARD.format("01", 0) + PORT.format(5, "02") \
    + CARD.format("02", 0)
REPORTED = ((3, "00:1c.4"), (4, "00:1c.5"), (13, "01:00.0"), (14, "02:00.0"))
REPORT = "".join(f"/sys/kernel/iommu_groups/{number}/devices/0000:{device}\n"
                 for number, device in REPORTED)


def call(folder, *command, **options):
    """Status and output of scripts/replay, or so, and what it says of errors."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("LSPCI", "GROUPS", "CMDLINE", "ACS", "ORDER",
                                   "TEXT", "REAL", "JSON")}
    # One at a time, for each has the same logs
    with _verb:
        done = subprocess.run(command or VERB, cwd=folder, capture_output=True,
                              text=True, env={**environment, **options},
                              check=False)
    return done.returncode, done.stdout, done.stderr


def in_folder(function):
    """The function's result, of a new folder with some listings."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "mine.txt").write_text(LISTING)
        (path / "report").write_text(REPORT)
        fleet = path / "fleet"
        fleet.mkdir()
        (fleet / "a").write_text(LISTING)
        (fleet / "b").write_text(LISTING)
        (fleet / "c").write_text(LISTING.replace("01:00.0", "01:00.1")
                                 .replace("02:", "03:")
                                 .replace("ary=02", "ary=03")
                                 .replace("inate=02", "inate=03"))
        (fleet / "d").write_text("0000:00:00.0 PCI bridge: IBM POWER8 Host "
                                 "Bridge\n" + PORT.format(0, "01")[60:])
        (fleet / "e").write_text("Hello,\n\nno listing.\n")
        return function(path)


def one_machine():
    """What the verb says of one machine with its groups: output, and JSON."""
    def run(folder):
        status, said, errors = call(
            folder, LSPCI="mine.txt", GROUPS="report", TEXT="1", JSON="data")
        assert not status, errors
        return said, json.loads((folder / "data").read_text())
    return once("one machine", lambda: in_folder(run))


def several_machines():
    def run(folder):
        status, said, errors = call(folder, LSPCI="fleet", ACS="listed")
        assert not status, errors
        return said
    return once("several machines", lambda: in_folder(run))


def with_options():
    """Several machines with kernel options, and groups in a folder for each."""
    def run(folder):
        fleet = folder / "fleet"
        for name in "cde":
            (fleet / name).unlink()
        for name in ("no acs", "two functions"):
            (fleet / name).write_text(TEXTS[name])
        for name, more in (("a", 0), ("b", 50)):
            for number, device in REPORTED:
                path = folder / f"reports/{name}/{number + more}/devices"
                path.mkdir(parents=True)
                (path / f"0000:{device}").symlink_to(
                    f"../../../../devices/pci0000:00/0000:00:1c.4/0000:{device}")
        status, said, errors = call(
            folder, LSPCI="fleet", GROUPS="reports", JSON="data",
            CMDLINE="pci=assume_acs=02:00.0 iommu=group_mf iommu.reach=some")
        assert not status, errors
        assert "replay: our kernel: iommu: iommu.reach: 'some' is neither warn " \
            "nor refuse, ignoring it" in errors, errors
        return said, json.loads((folder / "data").read_text())["machines"]
    return once("with options", lambda: in_folder(run))


def groups_in_folders():
    _, machines = with_options()
    for name, number in (("a", 14), ("b", 64)):
        assert machines[name]["devices"]["02:00.0"]["reported"] == number
        assert not machines[name]["not_as_reported"], machines[name]


def numbers_are_no_difference():
    said, _ = with_options()
    assert "a and 1 alike " in said and "4 machines of 3 kinds" in said, said


def cmdline_changes_reach():
    _, machines = with_options()
    devices = machines["no acs"]["devices"]
    assert not any(device["reach"] for device in devices.values()), devices
    assert small()["no acs"][TESTED].reach


def cmdline_changes_groups():
    _, machines = with_options()
    assert machines["two functions"]["groups"] == {
        "ours": {"24": ["00:03.0", "00:03.1"]},
        "stock": machines["two functions"]["groups"]["stock"]}
    assert len(machines["two functions"]["groups"]["stock"]) == 2
    assert machines["two functions"]["changes"] == [
        "00:03.0 | 00:03.1 becomes 00:03.0 .1 (00:03.1 group_mf 00:03.0)"], \
        machines["two functions"]["changes"]


def excerpt_of_readme():
    """What README quotes of the board with AMD's X570."""
    readme = " ".join((where.TOP / "README.md").read_text().split())
    quoted = re.search(r"x570\.txt: .*? which do not redirect\.", readme)[0]

    def run(folder):
        path, = listing.REAL.glob("*-x570-*")
        (folder / "x570.txt").write_text(path.read_text())
        return call(folder, LSPCI="x570.txt")
    status, said, errors = in_folder(run)
    assert not status, errors
    words = " ".join(said.replace(
        "No group has other members on ours than on stock.\n", "").split())
    assert words.startswith(quoted), f"{words[:len(quoted)]}\nREADME: {quoted}"


def long_reach_in_words():
    def run(folder):
        (folder / "mine.txt").write_text(TEXTS["a long reach"])
        return call(folder, LSPCI="mine.txt")
    status, said, errors = in_folder(run)
    assert not status, errors
    words = " ".join(said[:said.index("/dev/vfio")].split())
    assert "the machine's own numbers are not known" in words, words
    assert words.count(" reach each other and ") == 1, words
    assert "The kernel shows but the first page of what these groups reach: " \
        "520 528 " in words, words


def a_folder_of_groups():
    """A copy of /sys/kernel/iommu_groups, of one machine; and what it lacks."""
    def run(folder):
        for number, device in REPORTED[:-1]:
            path = folder / f"iommu_groups/{number}/devices"
            path.mkdir(parents=True)
            (path / f"0000:{device}").symlink_to(f"../0000:{device}")
        return call(folder, LSPCI="mine.txt", GROUPS="iommu_groups")
    status, said, errors = in_folder(run)
    assert not status, errors
    words = " ".join(said.split())
    assert "/dev/vfio/13 /dev/vfio/256 01:00.0" in words, said
    assert "taken not to be translated: 02:00.0" in words, said


def says(*texts):
    said, _ = one_machine()
    words = " ".join(said.split())
    for text in texts:
        assert text in words, said


def stand_ins_are_hidden():
    said, data = one_machine()
    table = said[said.index("\ndevice "):said.index("segment")]
    assert "00:1c.0" not in table, table
    assert set(data["machines"]["mine.txt"]["devices"]) == {
        "00:1c.4", "00:1c.5", "01:00.0", "02:00.0"}


def for_programs():
    _, data = one_machine()
    machine = data["machines"]["mine.txt"]
    card = machine["devices"]["02:00.0"]
    assert (card["reported"], card["ours"], card["reason"], card["driver"]) == \
        (14, 512, "base", "igb"), card
    assert machine["groups"]["ours"]["512"] == ["02:00.0"], machine["groups"]
    assert card["stock"] is not None and not card["reach"], card
    assert not machine["changes"] + machine["not_as_reported"], machine


def a_wrong_report_is_named():
    def run(folder):
        (folder / "report").write_text(REPORT.replace("/14/", "/13/"))
        return call(folder, LSPCI="mine.txt", GROUPS="report")
    status, said, errors = in_folder(run)
    assert not status, errors
    assert ("Not as reported: the machine reports 01:00.0 02:00.0, the replay "
            "has 01:00.0 | 02:00.0.") in said, said


def alike_are_counted():
    lines = several_machines().splitlines()
    assert any(line.startswith("a and 1 alike ") for line in lines), lines
    assert not any(line.startswith("b ") for line in lines), lines
    assert any(line.startswith("c ") for line in lines), lines
    assert "5 machines of 4 kinds, 2 refused" in "\n".join(lines), lines


def refused_with_reason():
    said = several_machines()
    for name, why in (("d", "refused: this is a POWER machine"),
                      ("e", "refused: no listing of lspci in this text")):
        assert any(line.startswith(f"{name} ") and why in line
                   for line in said.splitlines()), said


def listed_acs():
    """ACS is off in the listing: each port has one group with what is below."""
    line = next(line for line in several_machines().splitlines()
                if line.startswith("a and 1 alike"))
    assert line.split()[4:6] == ["4", "1"], line


def who_reads_no_more():
    def run(folder):
        return call(folder, "sh", "-c", f"{VERB} mine.txt | true")
    status, said, errors = in_folder(run)
    assert not status and not said and errors.startswith("replay: booting"), errors
    assert "pipe" not in errors.lower(), errors


WRONG = {
    "no file": ({}, "which machine? make replay LSPCI=FILE"),
    "a file that is not there": ({"LSPCI": "nobody"}, "cannot read nobody"),
    "an empty folder": ({"LSPCI": "empty"}, "LSPCI=empty: there is no file"),
    "ACS=some": ({"LSPCI": "mine.txt", "ACS": "some"},
                 "ACS=some is neither 'listed' nor 'kernel'"),
    "ORDER=late": ({"LSPCI": "mine.txt", "ORDER": "late"}, "ORDER='late'"),
    "groups of another machine": (
        {"LSPCI": "mine.txt", "GROUPS": "other"},
        "GROUPS= does not say of any device in the listing"),
    "no listing": ({"LSPCI": "report"}, "no listing of lspci"),
    "groups of several machines, of which none has any": (
        {"LSPCI": "fleet", "GROUPS": "groups.txt"},
        "GROUPS=groups.txt: there is no such file beside any of the listings"),
    "TEXT=all": ({"LSPCI": "mine.txt", "TEXT": "all"},
                 "TEXT=all is neither '1' nor 'kunit'"),
    "a POWER machine": ({"LSPCI": "fleet/d"}, "POWER"),
}


def wrong(options, why):
    def run(folder):
        (folder / "empty").mkdir()
        (folder / "other").write_text("IOMMU Group 1 77:00.0 X\n")
        return call(folder, **options)
    status, said, errors = in_folder(run)
    assert status and not said and why in errors, (status, said, errors)


def written_as_real():
    """A file that a listing is made into says what the listing does."""
    def run(folder):
        status, said, errors = call(folder, LSPCI="mine.txt", GROUPS="report",
                                    REAL="made")
        assert not status and "wrote made" in said, (said, errors)
        return (folder / "made").read_text()
    made = in_folder(run)
    found = listing.Listing(LISTING, REPORT)
    facts = listing.Facts(made)
    assert facts.topology == found.topology(), made
    assert facts.groups == found.groups, made
    assert f"\n# {len(found.functions)} functions.\n" in made, made
    assert replayed.subject("made", made).reach == facts.reach


def cases():
    for path in sorted(listing.REAL.iterdir()):
        name = path.name
        facts = listing.Facts(path.read_text())
        if facts.groups:
            yield f"{name}: stock has the groups that were reported", \
                reported, name
        yield f"{name}: ours has the groups of stock, in every order", \
            as_stock, name
        yield f"{name}: numbers and reasons are the same in every order", \
            same_in_any_order, name
        yield f"{name}: it reaches what is written down, in every order", \
            reaches, name
    yield "a group with other members than on stock is found", a_change_is_seen
    yield "iommu=group_mf has its effect on ours", group_mf_counts
    yield "pci=disable_acs_redir= has its effect on both", acs_options_count
    yield "Intel's wide ACS registers are where the quirk looks", \
        wide_registers
    yield "AMD's southbridge isolates where there is an IOMMU", on_both, \
        "AMD's southbridge", ("00:14.0",), ("00:14.2",), ("00:14.3",)
    yield "what is behind a VMD device is in its group", behind_vmd
    yield "with ORDER=hotadd the IOMMU is there first", iommu_is_first
    yield "a seed changes the order in which devices come", \
        seeds_change_the_order
    yield "932 functions can be replayed", many_functions
    yield "what a group reaches is shown", reach_is_shown
    yield "a reach that is longer than a page is said to be cut", long_reach
    yield "it is told in one sentence all the same", long_reach_in_words
    yield "an example for the KUnit tests has topology and groups", pasted
    yield "it has the reach", \
        pasted_besides
    yield "a wrong line of a topology is named", named_line
    yield "the verb says that nothing changes", says, \
        "No group has other members on ours than on stock", \
        "No group reaches a device of another past the IOMMU"
    yield "the verb says of the X570 what README quotes", excerpt_of_readme
    yield "the verb gives new numbers for those reported", says, \
        "/dev/vfio/14 /dev/vfio/512 02:00.0", "/dev/vfio/13 /dev/vfio/256"
    yield "the verb says that the replay is as reported", says, \
        "Stock's replay has the groups that the machine reports"
    yield "the verb shows names and drivers", says, \
        "01:00.0 82576 Gigabit Network Connection igb"
    yield "the verb shows the topology if asked to", says, \
        "segment 0 00:1c.0 rc-endpoint acs no-mem 00:1c.4 root-port [01]"
    yield "Functions 0 that stand for others are not shown", \
        stand_ins_are_hidden
    yield "JSON has groups, reason, reach and driver", for_programs
    yield "a report that the replay differs from is named", \
        a_wrong_report_is_named
    yield "machines that are alike are counted together", alike_are_counted
    yield "GROUPS= may be a folder, with a folder for each machine", \
        groups_in_folders
    yield "GROUPS= may be a copy of /sys/kernel/iommu_groups", \
        a_folder_of_groups
    yield "other numbers of groups make no other kind of machine", \
        numbers_are_no_difference
    yield "CMDLINE=pci=assume_acs= changes the reach", cmdline_changes_reach
    yield "CMDLINE=iommu=group_mf changes the groups", cmdline_changes_groups
    yield "of several machines the refused ones are named", refused_with_reason
    yield "ACS=listed takes ACS as it is listed", listed_acs
    yield "REAL= makes a listing a file for machines/real/", written_as_real
    yield "the verb does not complain of who reads no more", who_reads_no_more
    for what, (options, why) in WRONG.items():
        yield f"{what}: it says so", wrong, options, why
