"""Whether a variant does its job at all: what it wrote is held against the source, byte for byte."""

import urllib.request

from servers import Region
from variants import Job

PIECE = 4 * 1024 * 1024


class WrongCopy(Exception):
    """What was measured would have been a copy that is not one."""


def prove_variants(tools, variants, disk_arguments):
    """Runs every variant once, from a small disk into a region that keeps what it gets."""
    with Region(tools, *disk_arguments) as source:
        with Region(tools, "--account", "target=disks") as target:
            for variant in variants:
                job = Job(tools, source.snapshots[2], source.snapshots[1], target.blob(f"{variant.name}.vhd"))
                variant.prepare(job)
                variant.run(job)
                length = compare(job.source, job.target, variant.title)
                print(f"    {variant.title}: {length} bytes, all as at the source", flush=True)


def compare(source_url, target_url, title):
    """Gives how many bytes are alike, which is all of them."""
    length = length_of(source_url)
    if length_of(target_url) != length:
        raise WrongCopy(f"{title}: the target has {length_of(target_url)} bytes, the source {length}")
    for start in range(0, length, PIECE):
        end = min(start + PIECE, length)
        if read(source_url, start, end) != read(target_url, start, end):
            raise WrongCopy(f"{title}: bytes {start} to {end} of the target are not those of the source")
    return length


def length_of(url):
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as reply:
        return int(reply.headers["Content-Length"])


def read(url, start, end):
    request = urllib.request.Request(url, headers={"x-ms-range": f"bytes={start}-{end - 1}"})
    with urllib.request.urlopen(request) as reply:
        data = reply.read()
    if len(data) != end - start:
        raise WrongCopy(f"{len(data)} bytes came for a range of {end - start}")
    return data
