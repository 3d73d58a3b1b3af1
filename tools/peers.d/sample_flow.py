"""The flow of Microsoft's sample, with Microsoft's own client for Python.

The sample (Azure-Samples/managed-disks-dotnet-backup-with-incremental-snapshots) brings a page blob from one snapshot
of a disk to the next: it lists the difference, clears what was given back, copies what changed by Put Page From URL, at
most 4 MiB at a time and one call after the other, and takes a snapshot of the blob.

Two things are done otherwise, as a wrong copy's speed cannot be compared with anything. The sample cuts a range into
pieces and forgets to add where the range begins, so every range lands at the beginning of the blob; here the beginning
is added. And it asks once for the difference, of which the service tells 10,000 ranges at most; here it is asked for in
windows.

The URLs, each with its SAS, come in the environment: SOURCE and PREVIOUS are snapshots, TARGET is the page blob.
"""

import os

from azure.storage.blob import BlobClient

PIECE = 4 * 1024 * 1024
WINDOW = 1024 * 1024 * 1024


def clear(target, extents):
    for extent in extents:
        target.clear_page(extent["start"], extent["end"] - extent["start"] + 1)


def copy(source_url, target, extents):
    for extent in extents:
        # The last byte belongs to the range.
        end = extent["end"] + 1
        # The sample has range(0, length, PIECE) here.
        for offset in range(extent["start"], end, PIECE):
            length = min(PIECE, end - offset)
            target.upload_pages_from_url(source_url, offset, length, source_offset=offset)


def main():
    source_url = os.environ["SOURCE"]
    source = BlobClient.from_blob_url(source_url)
    target = BlobClient.from_blob_url(os.environ["TARGET"])

    size = source.get_blob_properties().size
    for window in range(0, size, WINDOW):
        changed, cleared = source.get_page_range_diff_for_managed_disk(
            os.environ["PREVIOUS"], window, min(WINDOW, size - window)
        )
        clear(target, cleared)
        copy(source_url, target, changed)
    target.create_snapshot()


if __name__ == "__main__":
    main()
