"""A put and a get over TLS with the files that `stead cert` makes.

Arguments: a target, a tenant, and the files of the CA, of a certificate and of its key. Prints the value that was read.
"""

import sys

import grpc

from stead.v1 import kv_pb2 as kv
from stead.v1 import kv_pb2_grpc as rpc


def read(path):
    with open(path, "rb") as file:
        return file.read()


target, tenant, ca, certificate, key = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
with grpc.secure_channel(target, credentials) as channel:
    store = rpc.KvServiceStub(channel)
    store.Put(kv.PutRequest(tenant=tenant, key=b"secure", value=b"over TLS"), timeout=30)
    print(store.Get(kv.GetRequest(tenant=tenant, key=b"secure"), timeout=30).item.value.decode())
