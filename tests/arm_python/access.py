"""Gets a SAS for a snapshot of the group `disks`, reads with it, and ends it."""

from azure.core.exceptions import HttpResponseError
from connect import connect, read_page

GROUP = "disks"
ASKED = {"access": "Read", "durationInSeconds": 3600}

client, session, [name] = connect()


def sas_of(access):
    # This client takes what the status tells as the result itself, and finds it there only if it looks.
    return access.access_sas or access["properties"]["output"]["accessSAS"]


url = sas_of(client.snapshots.begin_grant_access(GROUP, name, ASKED).result())
assert read_page(session, url) == b"\x07" * 512
assert client.snapshots.get(GROUP, name).properties.disk_state == "ActiveSAS"
try:
    client.snapshots.begin_grant_access(GROUP, name, ASKED).result()
    raise AssertionError("a second SAS was given")
except HttpResponseError as error:
    assert (error.status_code, error.error.code) == (409, "OperationNotAllowed"), error
try:
    client.snapshots.begin_delete(GROUP, name).result()
    raise AssertionError("a snapshot with a SAS was deleted")
except HttpResponseError as error:
    assert error.status_code == 409, error
client.snapshots.begin_revoke_access(GROUP, name).result()
assert read_page(session, url) is None
assert client.snapshots.get(GROUP, name).properties.disk_state == "Unattached"
