"""Runs a client to its end and tells what it took."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class ProgramFailed(Exception):
    """A client or a server ended with an error."""


@dataclass
class Usage:
    """What a client took, its children included."""

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int

    def then(self, later):
        """Of two that run one after the other."""
        return Usage(
            self.wall_seconds + later.wall_seconds,
            self.cpu_seconds + later.cpu_seconds,
            max(self.peak_memory_bytes, later.peak_memory_bytes),
        )


def run_client(arguments, environment, log_path):
    """Runs a client until it ends; what it says goes into the file at `log_path`."""
    with open(log_path, "wb") as log:
        begin = time.monotonic()
        client = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _, status, used = os.wait4(client.pid, 0)
        except BaseException:
            client.kill()
            client.wait()
            raise
        wall_seconds = time.monotonic() - begin
    client.returncode = os.waitstatus_to_exitcode(status)
    if client.returncode != 0:
        raise ProgramFailed(f"{Path(arguments[0]).name} ended with {client.returncode}:\n{last_lines(log_path)}")
    # The kernel counts ru_maxrss in KiB.
    return Usage(wall_seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def last_lines(path):
    """The end of a log, without the signatures of the URLs in it."""
    lines = Path(path).read_text(errors="replace").splitlines()
    return re.sub(r"sig=[^&\s'\"]+", "sig=REDACTED", "\n".join(lines[-20:]))


def cpu_seconds_of(pid):
    """User and system time of a process that is still running."""
    # The name, in brackets, may hold anything; state is the first field after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def cpu_seconds_of_machine():
    """Time in which the machine's processors were not idle."""
    user, nice, system, _idle, _iowait, irq, softirq = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / CLOCK_TICKS


def describe_machine():
    processors = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    return {
        "processor": processors[0] if processors else os.uname().machine,
        "processors": os.cpu_count(),
        "memory_bytes": memory_kib * 1024,
        "kernel": os.uname().release,
    }
