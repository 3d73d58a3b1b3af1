"""Who does which job, and how each is called.

    row a   a disk's snapshot whole into a page blob
    row b   the same by way of a file on this machine
    row c   a difference into a page blob that holds the snapshot before it

A variant begins with `prepare`, which is not measured, and does its job in `run`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from measure import run_client

SAMPLE_FLOW = Path(__file__).with_name("sample_flow.py")


@dataclass
class Tools:
    """Where the programs are, and where their files may lie."""

    snapferry: str
    azcopy: str
    sdk_python: str
    work: Path
    scratch: Path


@dataclass
class Job:
    """One run of a variant."""

    tools: Tools
    source: str
    previous: str
    target: str

    def log(self, name):
        return self.tools.work / f"{name}.log"

    def snapferry(self, name, source, previous=None, mode="stream", options=()):
        arguments = [self.tools.snapferry, "copy", "--output", "json", "--quiet", "--mode", mode, *options]
        # Nothing is read back: AzCopy does not either, and the region that is measured with has dropped it.
        arguments += ["--verify", "none"]
        environment = clean_environment(SNAPFERRY_SOURCE=source, SNAPFERRY_TARGET=self.target)
        if previous is not None:
            environment["SNAPFERRY_PREVIOUS"] = previous
        return run_client(arguments, environment, self.log(name))

    def azcopy(self, name, source, target, from_to):
        arguments = [self.tools.azcopy, "copy", source, target, "--from-to", from_to, "--log-level", "ERROR"]
        if not from_to.endswith("Local"):
            arguments += ["--blob-type", "PageBlob"]
        else:
            # As it does by itself for managed disks, whose stored MD5 is stale; on loopback it cannot tell them.
            arguments += ["--check-md5", "NoCheck"]
        environment = clean_environment(
            HOME=str(self.tools.work),
            AZCOPY_LOG_LOCATION=str(self.tools.work / "azcopy"),
            AZCOPY_JOB_PLAN_LOCATION=str(self.tools.work / "azcopy"),
            AZCOPY_DISABLE_SYSLOG="true",
            # Otherwise it holds itself to 4 Gbit/s a page blob from the start, which no server here asks of it.
            AZCOPY_PACE_PAGE_BLOBS="false",
        )
        return run_client(arguments, environment, self.log(name))


def clean_environment(**variables):
    """The environment without what a person has set for the programs that are measured."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY_", "AZCOPY_", "AZURE_"))
    }
    return {**kept, **variables}


def prepare_nothing(_job):
    pass


def copy_previous(job):
    """Makes the target hold the earlier snapshot."""
    job.snapferry("prepare", job.previous)


def azcopy_by_service(job):
    return job.azcopy("azcopy-by-service", job.source, job.target, "BlobBlob")


def azcopy_by_file(job):
    file = job.tools.scratch / "disk.vhd"
    try:
        download = job.azcopy("azcopy-download", job.source, str(file), "BlobLocal")
        upload = job.azcopy("azcopy-upload", str(file), job.target, "LocalBlob")
    finally:
        file.unlink(missing_ok=True)
    return download.then(upload)


def snapferry_stream(job):
    return job.snapferry("snapferry-stream", job.source)


def snapferry_server(job):
    return job.snapferry("snapferry-server", job.source, mode="server")


def difference_stream(job):
    return job.snapferry("difference-stream", job.source, job.previous)


def difference_server(job):
    return job.snapferry("difference-server", job.source, job.previous, mode="server")


def difference_exact(job):
    return job.snapferry("difference-exact", job.source, job.previous, options=["--join-gap", "0"])


def sample_flow(job):
    environment = clean_environment(SOURCE=job.source, PREVIOUS=job.previous, TARGET=job.target)
    # -B: compiled scripts are not left in the source tree.
    return run_client([job.tools.sdk_python, "-B", str(SAMPLE_FLOW)], environment, job.log("sample-flow"))


@dataclass(frozen=True)
class Variant:
    """A client doing a job."""

    name: str
    title: str
    run: Callable
    prepare: Callable = prepare_nothing


VARIANTS = [
    Variant("azcopy-by-service", "AzCopy, by service", azcopy_by_service),
    Variant("azcopy-by-file", "AzCopy, download and upload", azcopy_by_file),
    Variant("snapferry-server", "snapferry copy --mode server", snapferry_server),
    Variant("snapferry-stream", "snapferry copy", snapferry_stream),
    Variant("difference-stream", "snapferry copy --previous", difference_stream, copy_previous),
    Variant("difference-exact", "snapferry copy --previous --join-gap 0", difference_exact, copy_previous),
    Variant("difference-server", "snapferry copy --previous --mode server", difference_server, copy_previous),
    Variant("sample-flow", "the flow of Microsoft's sample", sample_flow, copy_previous),
]

# A row's variants. AzCopy can copy a difference only by copying the whole disk, so its line of row c is that of row a.
ROWS = [
    ("a", "page blob to page blob", ["azcopy-by-service", "snapferry-server", "snapferry-stream"]),
    ("b", "page blob to file to page blob", ["azcopy-by-file", "snapferry-stream"]),
    (
        "c",
        "a difference",
        ["azcopy-by-service", "sample-flow", "difference-server", "difference-stream", "difference-exact"],
    ),
]
