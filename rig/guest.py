# SPDX-License-Identifier: GPL-2.0-only
"""A guest: one of the machines in machines/, booted in QEMU.

    with Guest("demo", "intel", "iommu=group_mf") as guest:
        guest.sh("cat /proc/cmdline")
        guest.groups()

Every wait has an end: a guest that does not answer is ended, and the error that
is raised has the last lines of its log. So does a guest whose kernel printed a
warning, when the `with` ends. One that hangs before anything is grouped is started
again, once.
"""
import base64
import collections
import functools
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

import acpi
import counters
import hung
import kcsan
import machine
import where

TOP = where.TOP
BUILD = where.BUILD
OUT = where.OUT


# Kernels that do, and are slow.
LOOK_FOR_BUGS = ("debug", "kcsan")


class X86:
    """QEMU's q35."""
    program = ("qemu-system-x86_64", "-machine", "q35")
    talk = ("-serial", "chardev:log", "-serial", "chardev:agent")
    serial = "ttyS0"
    files = "guest"
    kernels = {name: OUT[name] / "arch/x86/boot/bzImage"
               for name in ("patched", "stock", *LOOK_FOR_BUGS)}


class Arm64:
    """QEMU's virt, which has but one serial port.

    There the kernel numbers the buses itself, and leaves numbers free behind a slot
    that takes a card at run time.
    """
    program = ("qemu-system-aarch64", "-machine", "virt,iommu=smmuv3",
               "-global", "pcie-root-port.hotplug=off",
               "-global", "xio3130-downstream.hotplug=off")
    talk = ("-serial", "chardev:log",
            "-device", "virtio-serial-device,max_ports=1",
            "-device", "virtconsole,chardev=agent")
    serial = "ttyAMA0"
    files = "guest-arm64"
    kernels = {"patched": OUT["arm64"] / "arch/arm64/boot/Image"}


# By the IOMMU that only they have
ARCHITECTURES = {"smmu": Arm64}


def qemu(arch, memory, kernel, options):
    """QEMU's command line, as whatever boots a kernel here begins it."""
    return [
        # QEMU ends when we do, however we end.
        "setpriv", "--pdeathsig", "KILL",
        # One host thread for both of its CPUs, as that takes no longer:
        # with two, one boot in a hundred hung.
        *arch.program, "-accel", "tcg,thread=single", "-m", memory,
        "-nodefaults", "-display", "none", "-no-user-config", "-no-reboot",
        "-kernel", str(kernel),
        "-append", f"console={arch.serial} panic=-1 {options}"]


def kunit(topologies):
    """Kernel options that run the series' KUnit suites."""
    return ("kunit.enable=1 kunit.filter_glob=pci_group* "
            f"pci_group_kunit.topologies={topologies}")


# Another one in its place, and where the counts go if it has gcov: scripts/mutants and
# scripts/coverage say so.
IN_PLACE = os.environ.get("RIG_KERNEL")
if IN_PLACE:
    X86.kernels["patched"] = pathlib.Path(IN_PLACE)
GCDA = os.environ.get("RIG_GCDA")
MUTANT = IN_PLACE and not GCDA

# To own what interrupts can be forged by: virtio-iommu does not remap them, nor does 7.x
# with QEMU's amd-iommu.
UNSAFE = ("iommufd.allow_unsafe_interrupts=1 "
          "vfio_iommu_type1.allow_unsafe_interrupts=1")

# What each choice of IOMMU adds to a machine, before the machine's devices. An
# IOMMU that is a PCI function itself goes to 00:01.0 (AMD's because that is the
# first slot that is free), where no machine has anything else: so a device has
# the same address under each of them.
IOMMU = {
    "intel": ["-cpu", "qemu64,vendor=GenuineIntel",
              "-device", "intel-iommu,intremap=on"],
    "amd": ["-cpu", "qemu64,vendor=AuthenticAMD",
            "-device", "amd-iommu"],
    "virtio": ["-cpu", "qemu64", "-device", "virtio-iommu-pci,addr=1.0"],
    "smmu": ["-cpu", "cortex-a57"],
    "mock": ["-cpu", "qemu64"],
    "none": ["-cpu", "qemu64"],
}

# No PCI devices but those that are brought to life; no IOMMU but theirs, or the
# kernel would enable their ACS, which their description has to say; and nothing
# done to their links, which are not emulated.
NO_PCI = "pci=off pci=noacpi iommu=off intremap=off pcie_aspm=off"

# What firmware describes, as it does virtio-iommu and SMMUv3, translates for a
# device once a driver wants the device on 6.12, later when the device is added.
BY_DRIVER = ("virtio", "smmu") if where.KERNEL == "6.12" else ()
BIND_ALL = ("cd /sys/bus/pci; for d in devices/*; do [ -e $d/driver ] || "
            "{ echo vfio-pci > $d/driver_override; "
            "echo ${d#*/} > drivers_probe; }; done")

TROUBLE = re.compile(
    r"BUG:|WARNING:|Oops|KASAN|UBSAN|possible recursive locking|"
    r"possible circular locking|suspicious RCU usage|Call Trace|"
    r"Kernel panic|general protection|INFO: task .* blocked|refcount_t:|"
    r"unreferenced object")


_lock = threading.Lock()
_logs = collections.Counter()


class GuestError(Exception):
    """The guest did not do what it was asked."""


def logfile(*words):
    """A log for one guest and no other that this program boots."""
    name = "-".join(filter(None, words))[:100]
    with _lock:
        _logs[name] += 1
        if _logs[name] > 1:
            name += f"-{_logs[name]}"
    return BUILD / "logs" / f"{name}.log"


@functools.cache
def firmware_table(name, iommu, table):
    """What QEMU's firmware gives a machine's kernel, read in a guest."""
    with Guest(name, iommu, log=f"{name}-{table}", tables=False) as running:
        return base64.b64decode(
            running.sh(f"base64 /sys/firmware/acpi/tables/{table}"))


class Guest:
    # Seconds: to boot in all, and without a line. A mutant may well hang.
    BOOT = 90 if MUTANT else 600
    quiet = hung.QUIET

    def __init__(self, name, iommu="intel", cmdline="", kernel="patched",
                 log=None, console=False, icount=False, more=(), tables=True,
                 userspace=False, acpi_hotplug=True, bind=True, drives=(),
                 besides=(), initrd=None):
        """Boots machine `name`, and runs the set-up that its file asks for.

        iommu   'smmu' is a machine of its own, arm64's, as is its kernel. With
                'mock' the kernel does not look at the PCI devices that it has:
                so their addresses are free for a machine that
                guest/modules/replay.c brings to life, with an IOMMU; `name` is
                only for the log then
        kernel  'patched', 'stock', 'debug', 'kcsan' or the path of a bzImage
        more    devices beside those of the machine's file
        drives  what these have as disks, as QEMU takes it after -drive
        besides what else QEMU gets; a -cpu among it is the one that counts
        tables  with the firmware tables that the machine's file asks for
        log     name of the log in build/logs, made up where not given
        console our own standard input and output are the guest's first serial
                port; the log is kept as well
        icount  the guest's clock counts instructions, a nanosecond each
        userspace   with Debian's own programs, and the memory that they take
        initrd  this in place of ours
        acpi_hotplug    else the ports of bus 0 have native hotplug as well, and
                the kernel has much less ACPI code to interpret
        bind    all that gets a group from a driver only, and has none, is given
                to vfio-pci
        """
        self.machine = machine.Machine("/dev/null") if iommu == "mock" else \
            machine.load(name)
        if iommu in self.machine.without:
            raise machine.Skip(self.machine.without[iommu])
        if IN_PLACE and (kernel in LOOK_FOR_BUGS or iommu in ARCHITECTURES):
            raise machine.Skip("boots another kernel than the one that is looked at")
        if kernel in LOOK_FOR_BUGS and not X86.kernels[kernel].exists():
            raise machine.Skip(f"not built: make {kernel} KERNEL={where.KERNEL}")
        self.iommu, self.kernel = iommu, kernel
        if kernel in LOOK_FOR_BUGS:
            self.quiet = hung.QUIET_WHERE_SLOW
        self.arch = arch = ARCHITECTURES.get(iommu, X86)
        files, memory = ("userspace", "1024") if userspace else (arch.files, "512")
        if initrd:
            memory = "2048"
        self.console = "/dev/" + arch.serial
        self.logfile = logfile(
            log or name, iommu, re.sub(r"[^A-Za-z0-9]+", "-", cmdline),
            pathlib.Path(kernel).name if kernel != "patched" else "")
        self.logfile.parent.mkdir(parents=True, exist_ok=True)
        self.state = self.logfile.with_suffix(".hung")
        self.state.unlink(missing_ok=True)
        initramfs = initrd or BUILD / files / "initramfs.cpio"
        if tables and (iommu == "mock" or iommu in self.machine.tables):
            initramfs = self._with_table(initramfs)
        serial = "file,id=log,path=" + str(self.logfile)
        if console:
            serial = f"stdio,id=log,signal=off,logfile={self.logfile}"
        self.image = arch.kernels.get(kernel, kernel)
        self.command = command = [
            *qemu(arch, memory, self.image,
                  f"{self._options(console)} {cmdline}"),
            "-initrd", str(initramfs), "-smp", "2", *arch.talk,
            "-chardev", serial,
            "-mon", "chardev=monitor,mode=control",
            *IOMMU[iommu]]
        if not acpi_hotplug:
            command += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-"
                        "support=off"]
        if icount:
            command += ["-icount", "shift=0,sleep=off"]
        for drive in drives:
            command += ["-drive", f"if=none,format=raw,{drive}"]
        command += besides
        for device in [*self.machine.devices, *more]:
            command += ["-device", device]
        self._start(console)
        try:
            if not console and self._hangs():
                self.started_again()
                self.kill()
                self._start(console)
                if self._hangs():
                    self._fail("the guest hangs a second time before it groups anything")
            # The debug kernel takes minutes where others use the cores as well.
            if self._line(self.agent, self.BOOT, "boot") != b"ready":
                self._fail("the guest's init does not speak as expected")
            if bind and iommu in BY_DRIVER:
                self.sh(BIND_ALL)
            for line in self.machine.guest:
                self.sh(line)
        except BaseException:
            self.kill()
            raise

    def _start(self, console):
        self.agent, agent = socket.socketpair()
        self.monitor, monitor = socket.socketpair()
        self.received = {self.agent: b"", self.monitor: b""}
        self.logfile.write_bytes(b"")   # not what a boot before printed
        self.qemu = subprocess.Popen(
            [*self.command,
             "-chardev", f"socket,id=agent,fd={agent.fileno()}",
             "-chardev", f"socket,id=monitor,fd={monitor.fileno()}"],
            pass_fds=[agent.fileno(), monitor.fileno()],
            stdin=None if console else subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        agent.close()
        monitor.close()
        self.greeted = False

    def _hangs(self):
        """Waits till init speaks; true where it never will, and that is excused."""
        end = time.monotonic() + self.BOOT
        size, since, looked = 0, time.monotonic(), False
        while not select.select([self.agent], [], [], 1)[0]:
            now = time.monotonic()
            if self.logfile.stat().st_size != size:
                size, since, looked = self.logfile.stat().st_size, now, False
            elif now > since + self.quiet and not looked:
                looked = True
                if self._is_excused():
                    return True
            if now > end:
                self._fail("the guest does not boot in time")
        return False

    def _is_excused(self):
        """Asks QEMU where it hangs, and writes that into a file beside the log."""
        log, said = self.log(), ""
        for _ in range(3):      # is anything going on?
            for command in hung.STATE:
                said += f"{command}\n"
                said += self.qmp("human-monitor-command", **{"command-line": command})
        symbols = [path for path in (folder / "System.map" for folder
                                     in pathlib.Path(self.image).parents)
                   if path.exists()]
        places = hung.places(said, symbols[0].read_text() if symbols else "")
        self.state.write_text(f"{log}\n{said}\nCPUs are in: {' '.join(places)}\n")
        return not TROUBLE.search(log) and hung.is_excused(log, places)

    def started_again(self):
        counters.add("guests that hung before they grouped anything, and were started "
                     "again")
        print(f"# hung, and started again: see {self.state}", file=sys.stderr, flush=True)

    def _options(self, console):
        """What the kernel is told, whatever a test tells it."""
        # On a busy host the guest's clocks come out wrong, now and then by far:
        # no timer check, which would panic, and no RCU stalls, which would be
        # seen where seconds have not passed. A guest that hangs is one that
        # does not answer in time.
        options = "no_timer_check rcupdate.rcu_cpu_stall_suppress=1 "
        if self.kernel in LOOK_FOR_BUGS:
            # To interpret ACPI's routing of INTx is slow there.
            options += "acpi=noirq "
        if self.kernel == "debug":
            # As is to note who allocated what, which KASAN notes as well.
            options += "slab_debug=FZP "
        if self.iommu == "mock":
            options += f"{NO_PCI} "
        if self.iommu == "amd" and where.KERNEL != "6.12":
            options += f"{UNSAFE} "
        return options + ("quiet" if console else f"earlyprintk={self.arch.serial}")

    def _changed_table(self):
        """Name and content of a firmware table in place of the machine's own."""
        if self.iommu == "mock":
            # There is an IOMMU, which is all that a quirk of AMD's wants to know
            return "IVRS", acpi.empty("IVRS")
        table, change = {"amd": ("IVRS", acpi.ivrs_aliases),
                         "intel": ("DMAR", acpi.dmar)}[self.iommu]
        return table, change(firmware_table(self.machine.name, self.iommu, table),
                             self.machine.tables[self.iommu])

    def _with_table(self, initramfs):
        self.scratch = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.scratch.name, "initramfs.cpio")
        path.write_bytes(acpi.initramfs(*self._changed_table())
                         + initramfs.read_bytes())
        return path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if GCDA and self.kernel == "patched":
                self.keep_counts(pathlib.Path(GCDA, self.logfile.stem))
        finally:
            self.kill()
        if kind is None:
            self.check_log()

    def sh(self, command, timeout=120):
        """What a shell command in the guest prints; it must succeed."""
        status, output = self.run(command, timeout)
        if status:
            self._fail(f"'{command}' gives {status}: {output.strip()}")
        return output

    def run(self, command, timeout=120):
        """Exit status and output (both streams) of a shell command.

        Without a timeout (None) it waits for as long as the guest lives.
        """
        if "\n" in command:
            raise ValueError("one line at a time")
        self.agent.sendall(command.encode() + b"\n")
        header = self._line(self.agent, timeout, f"answer '{command}'")
        length, status = map(int, header.split())
        output = self._bytes(self.agent, length, timeout, "finish its answer")
        return status, output.decode(errors="replace")

    def read(self, path):
        return self.sh(f"cat {path}")

    def reasons(self):
        """Each grouped PCI device's iommu_group_reason."""
        listed = self.sh("cd /sys/bus/pci/devices; for d in *; do "
                         "[ ! -e $d/iommu_group_reason ] || while read -r r; do "
                         "echo $d $r; done < $d/iommu_group_reason; done")
        return {machine.short(device): reason.replace(" 0000:", " ")
                for device, _, reason in (line.partition(" ") for line
                                          in listed.splitlines())}

    def links(self, name):
        """What this link of each PCI device ends in, None without one.

        By what the shell does itself, as in what else is asked of each device: to
        fork for each takes long.
        """
        listed = self.sh(
            f"cd /sys/bus/pci/devices; for d in *; do cd -P $d/{name} 2>/dev/null "
            "&& echo $d ${PWD##*/} || echo $d; cd /sys/bus/pci/devices; done")
        return {machine.short(device): end or None for device, _, end in
                (line.partition(" ") for line in listed.splitlines())}

    def groups(self):
        """Each PCI device and the number of its group, None without one.

        Read from the links that userspace follows.
        """
        return {device: number and int(number)
                for device, number in self.links("iommu_group").items()}

    def qmp(self, command, **arguments):
        """Sends a command to QEMU's monitor, and gives its result."""
        if not self.greeted:
            self.greeted = bool(self._line(self.monitor, 60, "greet"))
            self.qmp("qmp_capabilities")
        self.monitor.sendall(json.dumps(
            {"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self._line(self.monitor, 60, command))
            if "error" in answer:
                self._fail(f"QEMU's {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def device_add(self, driver, **properties):
        self.qmp("device_add", driver=driver, **properties)

    def device_del(self, name):
        self.qmp("device_del", id=name)

    def wait(self, condition, what, timeout=60):
        """Waits for condition() to hold."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                self._fail(f"waited {timeout} s in vain for {what}")
            time.sleep(0.1)

    def keep_counts(self, directory):
        """Writes what gcov counted to files of this directory."""
        root = "/sys/kernel/debug/gcov"
        for path in self.sh(f"find {root} -name '*.gcda'").split():
            kept = directory / path.removeprefix(f"{root}{OUT['coverage']}/")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(base64.b64decode(self.sh(f"base64 {path}")))

    def log(self):
        """What the kernel printed so far."""
        return self.logfile.read_text(errors="replace")

    def check_log(self):
        """Raises if the kernel printed a warning or worse."""
        log, found = self._trouble()
        if found:
            raise GuestError(self._part(log, found))

    def kill(self):
        self.qemu.kill()
        self.qemu.wait()
        for end in (self.agent, self.monitor, self.qemu.stderr):
            end.close()

    def _trouble(self):
        """The log, and where it has a warning or worse."""
        log = self.log()
        if self.kernel == "kcsan":
            log = kcsan.others_left_out(log)
        return log, TROUBLE.search(log)

    def _part(self, log, found):
        """What the log has around what was found, or at its end."""
        lines = log.splitlines()[-40:]
        if found:
            lines = [f"the kernel says '{found.group()}'",
                     *log[max(found.start() - 500, 0):].splitlines()[:60]]
        if self.state.exists():
            lines.append(f"(it hung: {self.state})")
        return "\n".join(lines + [f"(the whole log is {self.logfile})"])

    def _fail(self, why):
        status = self.qemu.poll()
        if status is not None:      # less than 0: by that signal
            why += f"\nQEMU ended with {status}: {self.qemu.stderr.read().decode()}"
        raise GuestError(f"{why}\n{self._part(*self._trouble())}")

    def _receive(self, end, deadline, what):
        end.settimeout(deadline and max(deadline - time.monotonic(), 0.001))
        try:
            got = end.recv(65536)
        except TimeoutError:
            self._fail(f"the guest does not {what} in time")
        except OSError as error:
            self._fail(f"the guest is gone ({error})")
        if not got:
            self.qemu.wait(10)
            self._fail(f"the guest ended when it had to {what}")
        self.received[end] += got

    def _line(self, end, timeout, what):
        deadline = timeout and time.monotonic() + timeout
        while b"\n" not in self.received[end]:
            self._receive(end, deadline, what)
        line, _, self.received[end] = self.received[end].partition(b"\n")
        return line.strip()

    def _bytes(self, end, length, timeout, what):
        deadline = timeout and time.monotonic() + timeout
        while len(self.received[end]) < length:
            self._receive(end, deadline, what)
        got = self.received[end][:length]
        self.received[end] = self.received[end][length:]
        return got


class Debian(Guest):
    """With Debian's own programs in the path, see scripts/userspace."""

    PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

    def __init__(self, name, iommu, kernel="patched", **options):
        super().__init__(name, iommu, kernel=kernel, userspace=True, **options)

    def run(self, command, timeout=30):
        # On a busy host these programs take minutes.
        return super().run(f"export {self.PATH}; {command}", max(timeout, 600))


class Installed(Debian):
    """A Debian on a disk, see rig/debian.py. The disk is read through the IOMMU."""

    def __init__(self, name, iommu, disk, **options):
        super().__init__(
            name, iommu, kernel=str(disk.kernel), initrd=disk.initrd,
            cmdline="root=/dev/sda rw", more=["ide-hd,drive=disk,bus=ide.0"],
            drives=[f"id=disk,file={disk.image},snapshot=on"], **options)
