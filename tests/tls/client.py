"""Talks to a gateway over TLS as Python programs do: grpcio, and requests for REST.

Arguments: the port on this machine, the file of the trusted authority, the API key.
"""

import pathlib
import sys

import grpc
import requests

METHOD = "/sightline.v1.RtStreamService/ListRtStreams"


def main():
    """What each client sees of the one stream there, and what one sees that does not trust the authority."""
    port, ca, key = sys.argv[1:]
    trusted = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes())
    with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
        # An empty message asks for the first page; what comes back holds the stream's id in the clear.
        listed = channel.unary_unary(METHOD)(b"", metadata=[("x-access-token", key)], timeout=30)
        print("grpcio:", listed[listed.index(b"rts-") :][:4].decode())
    url, headers = f"https://localhost:{port}/rtstream", {"x-access-token": key}
    answer = requests.get(url, headers=headers, verify=ca, timeout=30)
    answer.raise_for_status()
    print("requests:", answer.json()["data"]["results"][0]["id"][:4])
    try:
        requests.get(url, headers=headers, timeout=30)
        print("untrusted: let through")
    except requests.exceptions.SSLError:
        print("untrusted: refused")


main()
