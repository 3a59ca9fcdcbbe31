"""Private set intersection by openmined-psi, run by the Python of an environment of its own: JSON in, JSON out.

The library pins protobuf to a version that does not fit beside what else builder is installed with, so this file is
started as a program and imports nothing of builder. Source: elliptic curve Diffie-Hellman as in
github.com/OpenMined/PSI, with all elements sent (no filter that would give false matches).
"""

import json
import sys
from typing import Any


def ask(given: dict[str, Any]) -> dict[str, Any]:
    """Return a new private key of the site that asks, and its request for ``elements``."""
    import private_set_intersection.python as psi

    client = psi.client.CreateWithNewKey(given["membership"])
    request = client.CreateRequest(given["elements"])
    return {"key": client.GetPrivateKeyBytes().hex(), "message": request.SerializeToString().hex()}


def answer(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the request states, and the answer of a site that has ``elements``, under a key that is forgotten."""
    import private_set_intersection.python as psi

    request = psi.Request()
    request.ParseFromString(bytes.fromhex(given["message"]))
    stated = {"persons": len(request.encrypted_elements), "membership": request.reveal_intersection}
    if stated != {"persons": given["persons"], "membership": given["membership"]}:
        return stated
    server = psi.server.CreateWithNewKey(given["membership"])
    setup = server.CreateSetupMessage(1e-9, given["persons"], given["elements"], psi.DataStructure.RAW)
    message = server.ProcessRequest(request)
    return {**stated, "setup": setup.SerializeToString().hex(), "message": message.SerializeToString().hex()}


def match(given: dict[str, Any]) -> dict[str, Any]:
    """Return how many elements both sites have and, where membership is told, the places of those of the request."""
    import private_set_intersection.python as psi

    client = psi.client.CreateFromKey(bytes.fromhex(given["key"]), given["membership"])
    setup, message = psi.ServerSetup(), psi.Response()
    setup.ParseFromString(bytes.fromhex(given["setup"]))
    message.ParseFromString(bytes.fromhex(given["message"]))
    if given["membership"]:
        places = sorted(client.GetIntersection(setup, message))
        return {"size": len(places), "places": places}
    return {"size": client.GetIntersectionSize(setup, message), "places": []}


if __name__ == "__main__":
    found = {"ask": ask, "answer": answer, "match": match}[sys.argv[1]](json.load(sys.stdin))
    json.dump(found, sys.stdout)
