"""Makes, lists, shows, copies and deletes resources of the emulator's group `disks`, in the region `westeurope`."""

import time

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from connect import connect

GROUP = "disks"


def refused(call, status, code):
    try:
        call()
    except HttpResponseError as error:
        assert (error.status_code, error.error.code) == (status, code), error
        return error
    raise AssertionError("it was not refused")


def snapshot_of(source, option="Copy", location="westeurope"):
    creation = {"createOption": option, "sourceResourceId": source}
    return {"location": location, "properties": {"incremental": True, "creationData": creation}}


client, _, [disk_name] = connect()

# The first request is throttled: the client waits as long as it is told, and asks again.
start = time.monotonic()
disk = client.disks.get(GROUP, disk_name)
assert time.monotonic() - start >= 1
assert disk.name == disk_name and disk.location == "westeurope"
assert disk.properties.disk_size_bytes == 1 << 20 and disk.properties.disk_state == "Unattached"
assert disk.properties.time_created.tzinfo is not None

made = [client.snapshots.begin_create_or_update(GROUP, f"snap-{n}", snapshot_of(disk.id)).result() for n in range(5)]
assert all(snapshot.properties.provisioning_state == "Succeeded" for snapshot in made)
families = {snapshot.properties.incremental_snapshot_family_id for snapshot in made}
assert len(families) == 1 and None not in families
times = [snapshot.properties.time_created for snapshot in made]
assert times == sorted(times) and len(set(times)) == 5
shown = client.snapshots.get(GROUP.upper(), "SNAP-2")
assert shown.id == made[2].id and shown.properties.unique_id == made[2].properties.unique_id
assert shown.properties.creation_data.source_unique_id == disk.properties.unique_id
assert shown.properties.creation_data.logical_sector_size == 512
assert shown.properties.completion_percent == 100 and shown.properties.incremental is True

names = [f"snap-{n}" for n in range(5)]
assert [snapshot.name for snapshot in client.snapshots.list_by_resource_group(GROUP)] == names
assert [snapshot.name for snapshot in client.snapshots.list()] == names
assert [len(list(page)) for page in client.snapshots.list().by_page()] == [2, 2, 1]
assert [disk.name for disk in client.disks.list_by_resource_group(GROUP)] == [disk_name]

changed = client.snapshots.begin_update(GROUP, "snap-0", {"tags": {"sealed": "yes"}}).result()
assert changed.tags == {"sealed": "yes"} == client.snapshots.get(GROUP, "snap-0").tags

body = snapshot_of(made[4].id, "CopyStart", "northeurope")
copy = client.snapshots.begin_create_or_update(GROUP, "copy", body).result()
percents = [copy.properties.completion_percent]
while percents[-1] < 100:
    time.sleep(0.1)
    percents.append(client.snapshots.get(GROUP, "copy").properties.completion_percent)
assert percents == sorted(percents) and len(set(percents)) > 3, percents
assert copy.location == "northeurope"

empty = {"location": "westeurope", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}}
assert client.disks.begin_create_or_update(GROUP, "empty", empty).result().properties.disk_size_bytes == 4 << 30
restored = snapshot_of(made[0].id)
del restored["properties"]["incremental"]
restored = client.disks.begin_create_or_update(GROUP, "restored", restored).result()
assert restored.properties.disk_size_bytes == 1 << 20
assert restored.properties.creation_data.source_resource_id == made[0].id
client.disks.begin_delete(GROUP, "empty").result()

for name in [*names, "copy"]:
    client.snapshots.begin_delete(GROUP, name).result()
assert list(client.snapshots.list()) == []
error = refused(lambda: client.snapshots.get(GROUP, "copy"), 404, "ResourceNotFound")
assert isinstance(error, ResourceNotFoundError)
refused(lambda: client.snapshots.get("nowhere", "copy"), 404, "ResourceGroupNotFound")
