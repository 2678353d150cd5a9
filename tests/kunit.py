# SPDX-License-Identifier: GPL-2.0-only
"""The KUnit suites in the series, with the series and on stock.

scripts/kunit has kunit.py boot and judge them. Its tests are in
drivers/iommu/tests/; what they print of themselves is checked here, so that a
suite that ran too little does not pass.

Stock runs the suites as they are before the series changes any grouping. Both
kernels log the groups of the same random topologies, which are compared here.
"""
import collections
import functools
import re
import subprocess
import threading

import counters
from build import Build
from guest import TROUBLE
from fixtures import LONG, TESTED, Skip
from where import BUILD, KERNEL, KERNELS, LINUX, OUT, TOP

NEEDS = "stock kernel"
AT_LEAST = 2000 if LONG else 200
# The case, and what its random topologies are called in the counters.
PATCHED = {
    "groups_are_those_of_the_rules_in_any_order":
        "random topologies under KUnit",
    "random_walks_leave_what_the_oracle_says_after_each_step":
        "random walks in topologies under KUnit"}
BOTH = {"every_device_has_a_group_and_none_is_left":
        "random topologies whose groups are compared"}
LOGGED = re.compile(r"(groups|reasons|another) of seed (\d+) ([0-9a-f]{8}) "
                    r"from (\d+):((?: \w+)+)")


KUNIT = "tools/testing/kunit/kunit.py"

_locks = {"patched": threading.Lock(), "stock": threading.Lock()}


def run(kernel):
    """Runs the suites, once; their exit code, what kunit.py says, the log."""
    with _locks[kernel]:
        return run_once(kernel)


@functools.cache
def run_once(kernel):
    return run_with(kernel, f"topologies={AT_LEAST}")


def run_with(kernel, *parameters):
    """The same with these. Each run has its log in the same file."""
    if TESTED != "patched":
        raise Skip("it needs the series, and boots the stock kernel itself")
    done = subprocess.run([TOP / "scripts/kunit", kernel, *parameters], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    log = (OUT[kernel] / "test.log").read_text(errors="replace")
    return done.returncode, done.stdout, log


def passes(kernel, summaries):
    code, said, log = run(kernel)
    assert code == 0, said[-6000:]
    trouble = TROUBLE.search(log)
    assert not trouble, log[trouble.start() - 500:trouble.start() + 3000]
    for case, what in summaries.items():
        # A case can have several parts.
        number = sum(map(int, re.findall(
            rf"{case}: (\d+) topologies of \d+ functions", log)))
        assert number >= AT_LEAST, f"{case}: only {number}"
        counters.add(f"{what}, {kernel}", number)


def again():
    """As one runs a suite again that has failed."""
    with _locks["patched"]:
        code, said, log = run_with("patched", "seed=7", "topologies=1")
    assert code == 0, said[-6000:]
    assert list(logged(log)) == [7], list(logged(log))


class Topology:
    """What a kernel has logged of a random topology.

    text        the hash of its text
    groups      for each function the first one in its group
    reasons     for each function the letter of the reason and whom it names
    another     groups that another order gave
    """
    def __init__(self):
        self.text, self.groups, self.reasons, self.another = None, [], [], []


def logged(log):
    """{seed: Topology}"""
    found = collections.defaultdict(Topology)
    for what, seed, text, start, words in LOGGED.findall(log):
        topology, words, start = found[int(seed)], words.split(), int(start)
        assert topology.text in (None, text), f"seed {seed}: two texts"
        topology.text = text
        if what == "reasons":
            line = topology.reasons
        elif what == "groups":
            line = topology.groups
        else:
            if start == 0:
                topology.another.append([])
            line = topology.another[-1]
        assert len(line) == start, f"seed {seed}: a line of the log is missing"
        line += words if what == "reasons" else map(int, words)
    return found


def joined(*pairs):
    """The groups that these pairs leave: for each function the first one."""
    first = list(range(1 + max(max(pair) for pair in pairs)))

    def top(function):
        while first[function] != function:
            function = first[function]
        return function
    for a, b in pairs:
        a, b = sorted((top(a), top(b)))
        first[b] = a
    return [top(function) for function in range(len(first))]


def pairs(groups):
    return list(enumerate(groups))


def by_alias(topology):
    """Each function that has rule 1 as its reason, with whom it names."""
    return [(i, int(reason[1:])) for i, reason in enumerate(topology.reasons)
            if reason[0] == "a"]


def difference(stock, ours):
    """How stock's groups differ: equal, or by what they would be ours.

    Groups that stock leaves apart have rule 1 in the chain of reasons between
    them, or are one group on stock if devices come in another order. Stock puts
    nothing together that we leave apart, in no order.
    """
    assert stock.text == ours.text, "the topologies differ"
    assert len(stock.groups) == len(ours.groups) == len(ours.reasons)
    assert not ours.another, "our groups depend on the order"
    orders = [pair for groups in stock.another for pair in pairs(groups)]
    together = [(a, b) for a, b in pairs(stock.groups) + orders
                if ours.groups[a] != ours.groups[b]]
    assert not together, f"only stock puts together {together}"
    if stock.groups == ours.groups:
        return "equal"
    if joined(*pairs(stock.groups), *by_alias(ours)) == ours.groups:
        return "rule 1"
    if joined(*pairs(stock.groups), *orders, *by_alias(ours)) == ours.groups:
        return "its order"
    assert False, (f"apart on stock {stock.groups}\nand ours {ours.groups}\n"
                   f"because {ours.reasons}")


def compared():
    stock, ours = logged(run("stock")[2]), logged(run("patched")[2])
    assert stock.keys() == ours.keys() and len(ours) >= AT_LEAST, \
        f"{len(stock)} and {len(ours)} topologies"
    count = collections.Counter()
    for seed in ours:
        try:
            count[difference(stock[seed], ours[seed])] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
    order = sum(bool(topology.another) for topology in stock.values())
    print(f"# {count['equal']} equal, {count['rule 1']} wider by rule 1, "
          f"{count['its order']} by rule 1 or stock's order; stock depends on "
          f"the order in {order}", flush=True)
    assert count["rule 1"] and order, "nothing was found that differs"


def kunit_py(verb, *arguments):
    """As kernel developers run it, with no more than the tree."""
    build = Build(LINUX, BUILD / "kunit-run")
    compiler, *_ = build.settings
    done = subprocess.run(
        [*arguments, KUNIT, verb, "--arch=x86_64", "--kunitconfig=drivers/iommu/tests",
         f"--build_dir={build.out}", "--make_options", compiler],
        cwd=LINUX, env=build.env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def as_developers_run_it():
    """From the configuration to the verdict."""
    said = kunit_py("run", TOP / "rig/build.py", "nice")
    command = re.search(r"^.*qemu-system-x86_64 .*$", said, re.MULTILINE)
    assert command and "kvm" not in command[0], said[-6000:]
    assert "pci_group" in said, said[-6000:]


def cases():
    if LONG and KERNEL == KERNELS[0]:
        yield ("kunit.py run builds a kernel of its own, and every test passes there, "
               "without KVM", as_developers_run_it)
    yield "kunit.py finds all options of .kunitconfig in what it configures", \
        kunit_py, "config"
    yield ("every test passes, groups are those of the rules in any order, "
           "claims and binds are granted as reach has it", passes, "patched",
           {**PATCHED, **BOTH})
    yield "scripts: a topology is run again by its seed", again
    yield ("every test of what comes before the series passes on stock",
           passes, "stock", BOTH)
    yield ("random topologies: stock differs by rule 1 and its order only",
           compared)
