"""Operations of Stead with Google's stock client, `google.api_core`: waits for a move, lists it, and cancels another.

Arguments: the address of a node, what to do, the tenant and the region that it moves to.
"""

import sys

import grpc
from google.api_core import exceptions, operation, operations_v1

from stead.admin.v1 import operation_pb2, tenant_pb2, tenant_pb2_grpc

address, verb, tenant, region = sys.argv[1:]
channel = grpc.insecure_channel(address)
operations = operations_v1.OperationsClient(channel)


def begin():
    stub = tenant_pb2_grpc.TenantServiceStub(channel)
    request = tenant_pb2.MoveTenantRequest(name=tenant, region=region, reason="api_core")
    begun = stub.MoveTenant(request, timeout=10)
    return operation.from_gapic(
        begun, operations, operation_pb2.MoveTenantResponse, metadata_type=operation_pb2.OperationMetadata
    )


def wait():
    moving = begin()
    moved = moving.result(timeout=60)
    print("moved", moved.home.region, moved.epoch)
    steps = [operation_pb2.OperationMetadata.StepName.Name(step.name) for step in moving.metadata.steps]
    print("steps", *steps)
    for listed in operations.list_operations("operations", f"tenant={tenant}"):
        print("listed", listed.name == moving.operation.name, listed.done)
    try:
        moving.cancel()
        operations.cancel_operation(moving.operation.name)
    except exceptions.GoogleAPICallError as refused:
        print("too late", refused.grpc_status_code.name)


def cancel():
    moving = begin()
    try:
        moving.result(timeout=3)
    except (exceptions.RetryError, exceptions.GoogleAPICallError, TimeoutError) as error:
        print("gave up", isinstance(error, exceptions.Cancelled))
    # The client's timeout has ended nothing.
    listed = operations.list_operations("operations", f"tenant={tenant} AND done=false")
    print("in flight", [found.name for found in listed] == [moving.operation.name])
    print("cancelled", moving.cancel())
    try:
        moving.result(timeout=60)
    except exceptions.GoogleAPICallError as error:
        print("ended", error.grpc_status_code.name)
    print("in flight", len(list(operations.list_operations("operations", "done=false"))))


{"wait": wait, "cancel": cancel}[verb]()
