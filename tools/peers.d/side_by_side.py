"""Measures snapferry and its peers on the same disk, with the same servers, on this machine, and says who is ahead by
how much. Started by ../peers, which installs what it needs.

The source region computes its disk instead of keeping it, and the target region takes the checksum of what it is sent
and drops it: so the servers take as little as they can of a machine that they share with the clients.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from measure import ProgramFailed, cpu_seconds_of_machine, describe_machine
from proof import WrongCopy, prove_variants
from report import goals, markdown, medians
from servers import Region
from variants import VARIANTS, Job, Tools

UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# Between the 4 KiB of a journal and the runs of a large file.
CHANGED_EXTENT = 32 * 1024
CHANGED_PERCENT = 2

# Of the disk that is compared byte for byte.
PROOF_SIZE = 64 << 20


def main():
    arguments = parse_arguments()
    # Of whatever proxy there is, none leads to this machine.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    # Ended in whatever way, it leaves neither servers nor files behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = Path(tempfile.mkdtemp(prefix="peers-", dir=arguments.tools))
    try:
        results = measure_all(arguments, work)
    except (ProgramFailed, WrongCopy) as error:
        sys.exit(f"\nFAILED: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
    finally:
        shutil.rmtree(work)
    folder = Path(arguments.results)
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "results.md").write_text(text)
    print(f"\n{text}\nkept in {folder}/results.json and results.md")


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="./tools/peers",
        description="Installs AzCopy and Microsoft's client for Python, and measures snapferry and them on the same "
        "disk, served on this machine. Prints a table and keeps it in target/peers, as JSON too.",
    )
    parser.add_argument("--size", type=parse_size, default="8GiB", help="the disk's size (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 256MiB, once; its numbers mean little")
    parser.add_argument("--scratch", help="folder for the file of row b (default: a temporary one in .tools)")
    # What ./peers knows.
    for name in ("--snapferry", "--azcopy", "--sdk-python", "--commit", "--tools", "--results"):
        parser.add_argument(name, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.repeats = parse_size("256MiB"), 1
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    return arguments


def parse_size(text):
    number, unit = text[:-3], text[-3:]
    if unit not in UNITS or not number.isdigit() or number.startswith("0"):
        raise argparse.ArgumentTypeError(f"'{text}' is no size, such as 8GiB")
    return int(number) * UNITS[unit]


def measure_all(arguments, work):
    scratch = Path(arguments.scratch) if arguments.scratch else work
    free = shutil.disk_usage(scratch).free
    if free < arguments.size + PROOF_SIZE:
        sys.exit(f"{scratch} has room for {free} bytes only: --scratch names another folder, --size a smaller disk")
    tools = Tools(arguments.snapferry, arguments.azcopy, arguments.sdk_python, work, scratch)

    print("==> does each do the whole job?", flush=True)
    prove_variants(tools, VARIANTS, disk_arguments(PROOF_SIZE))

    print(f"==> measuring each {arguments.repeats} times", flush=True)
    runs = measure(tools, VARIANTS, arguments.size, arguments.repeats)
    results = {
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": f"./tools/peers --size {arguments.size >> 20}MiB --repeats {arguments.repeats}",
        "machine": describe_machine(),
        "versions": versions(tools, arguments.commit),
        "disk_bytes": arguments.size,
        "changed_bytes": changed_extents(arguments.size) * CHANGED_EXTENT,
        # A client begins as a copy of this process, and the kernel counts that in: less than this cannot be told.
        "peak_memory_floor_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "runs": runs,
    }
    results["medians"] = medians(runs)
    results["goals"] = goals(results)
    return results


def changed_extents(size):
    return size * CHANGED_PERCENT // 100 // CHANGED_EXTENT


def disk_arguments(size):
    """A disk full of data, and 2% of it changed between its two snapshots."""
    changes = f"scattered:{changed_extents(size)}x{CHANGED_EXTENT}"
    return ["--disk", f"disk={size},pattern=dense,changes={changes},snapshots=2"]


def measure(tools, variants, size, repeats):
    """Runs every variant so often. Every other time they go in the opposite order: what warms up or wears down in the
    course of it is nobody's gain."""
    runs = []
    with Region(tools, *disk_arguments(size)) as source:
        with Region(tools, "--account", "target=disks", "--sink", "target") as target:
            for repeat in range(repeats):
                for variant in variants if repeat % 2 == 0 else reversed(variants):
                    blob = target.blob(f"{variant.name}-{repeat}.vhd")
                    job = Job(tools, source.snapshots[2], source.snapshots[1], blob)
                    variant.prepare(job)
                    run = measure_one(variant, job, source, target)
                    wall, cpu = run["wall_seconds"], run["cpu_seconds"]
                    print(f"    {variant.title}: {wall:.1f} s, {cpu:.2f} s of CPU", flush=True)
                    runs.append(run)
    return runs


def measure_one(variant, job, source, target):
    source.reset_counters()
    target.reset_counters()
    load = os.getloadavg()[0]
    machine_before = cpu_seconds_of_machine()
    servers_before = source.cpu_seconds() + target.cpu_seconds()
    usage = variant.run(job)
    servers = source.cpu_seconds() + target.cpu_seconds() - servers_before
    machine = cpu_seconds_of_machine() - machine_before
    return {
        "variant": variant.name,
        **asdict(usage),
        "servers_cpu_seconds": servers,
        # What others took of the machine meanwhile: of a run with much of it, the wall time means little.
        "others_cpu_seconds": max(0.0, machine - servers - usage.cpu_seconds),
        "load_average_before": load,
        "source": source.counters(),
        "target": target.counters(),
    }


def versions(tools, commit):
    sdk = "from azure.storage.blob import __version__; print(__version__)"
    return {
        "snapferry": f"{output_of([tools.snapferry, '--version'])} at {commit}",
        "azcopy": output_of([tools.azcopy, "--version"]),
        "sdk": "azure-storage-blob " + output_of([tools.sdk_python, "-c", sdk]),
        "python": output_of([tools.sdk_python, "--version"]),
    }


def output_of(arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
