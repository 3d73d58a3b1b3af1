"""A client of azure-mgmt-compute for the emulator, with tokens from its managed identity's endpoint."""

import argparse
import time

import requests
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient


class EmulatedIdentity:
    def __init__(self, session, endpoint, header):
        self.session, self.endpoint, self.header = session, endpoint, header

    def get_token(self, *scopes, **_):
        resource = scopes[0].removesuffix("/.default")
        reply = self.session.get(
            self.endpoint,
            params={"resource": resource, "api-version": "2019-08-01"},
            headers={"X-IDENTITY-HEADER": self.header},
            timeout=30,
        )
        reply.raise_for_status()
        body = reply.json()
        assert body["token_type"] == "Bearer" and int(body["expires_on"]) > time.time()
        return AccessToken(body["access_token"], int(body["expires_on"]))


def connect():
    parser = argparse.ArgumentParser()
    for name in ["endpoint", "subscription", "identity-endpoint", "identity-header", "certificate"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    # For the tokens, and for what is read with a SAS. No proxy that the environment may name.
    session = requests.Session()
    session.trust_env, session.verify = False, args.certificate
    client = ComputeManagementClient(
        EmulatedIdentity(session, args.identity_endpoint, args.identity_header),
        args.subscription,
        base_url=args.endpoint,
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=args.certificate,
        use_env_settings=False,
        polling_interval=0,
    )
    return client, session, args.arguments


def read_page(session, url):
    """The first page of what a SAS opens; none if it opens nothing."""
    reply = session.get(
        url, headers={"x-ms-version": "2021-12-02", "x-ms-range": "bytes=0-511"}, timeout=30
    )
    assert reply.status_code in (206, 403), reply.text
    return reply.content if reply.status_code == 206 else None
