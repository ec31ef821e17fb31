"""Calls a running server as another service would, and compares every answer.

    client.py PROTO_FOLDER FOLDER_FOR_CODE

Where the server is stands in MAXBOT_GRPC_ADDR, a key that may write in WEIR_KEY. If it speaks TLS, WEIR_GRPC_CA is the file
of whom to trust. The profile 12345 is Иван Петров.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

PROTO, CODE = sys.argv[1:3]
SERVICE = "weir.profiles.v1.ProfileService"
PATIENCE = 60

made = protoc.main(
    ["protoc", f"-I{PROTO}", f"-I{resources.files('grpc_tools') / '_proto'}", f"--python_out={CODE}", f"--grpc_python_out={CODE}", "weir/profiles/v1/profiles.proto"]
)
assert made == 0, "the official compiler refuses the definitions"
sys.path.insert(0, CODE)
from weir.profiles.v1 import profiles_pb2 as pb, profiles_pb2_grpc  # noqa: E402

address, authority = os.environ["MAXBOT_GRPC_ADDR"], os.environ.get("WEIR_GRPC_CA")
if authority:
    with open(authority, "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
else:
    channel = grpc.insecure_channel(address)
stub = profiles_pb2_grpc.ProfileServiceStub(channel)
key = (("authorization", f"Bearer {os.environ['WEIR_KEY']}"),)


def refusal(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("a call was answered that should be refused")


# Without a key there is health, and what the server can do; nothing else.
health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE)
assert health.status == health_pb2.HealthCheckResponse.SERVING, health
unsigned = lambda: stub.GetProfile(pb.GetProfileRequest(user_id="12345"), timeout=PATIENCE)  # noqa: E731
assert refusal(unsigned) == grpc.StatusCode.UNAUTHENTICATED

reflection = ProtoReflectionDescriptorDatabase(channel)
assert SERVICE in reflection.get_services(), reflection.get_services()
methods = DescriptorPool(reflection).FindServiceByName(SERVICE).methods_by_name
assert set(methods) == {"GetProfile", "BatchGetProfiles", "SetUserProvidedName", "WatchProfile"}, methods

profile = stub.GetProfile(pb.GetProfileRequest(user_id="12345"), metadata=key, timeout=PATIENCE).profile
assert profile.display_name == "Иван Петров" and profile.has_full_name, profile
assert profile.source == pb.NAME_SOURCE_WEBHOOK and not profile.HasField("user_provided_name"), profile
assert profile.last_updated.ToJsonString().endswith("Z"), profile

missing = lambda: stub.GetProfile(pb.GetProfileRequest(user_id="0"), metadata=key, timeout=PATIENCE)  # noqa: E731
assert refusal(missing) == grpc.StatusCode.NOT_FOUND

several = pb.BatchGetProfilesRequest(user_ids=["0", "12345"])
found = stub.BatchGetProfiles(several, metadata=key, timeout=PATIENCE)
assert list(found.profiles) == [profile] and list(found.not_found) == ["0"], found

watch = stub.WatchProfile(pb.WatchProfileRequest(user_id="12345"), metadata=key, timeout=PATIENCE)
first = next(watch)
assert first.profile == profile and first.cause == "", first
with ThreadPoolExecutor(1) as another:
    heard = another.submit(next, watch)
    change = pb.SetUserProvidedNameRequest(user_id="12345", name="Анна Ким")
    changed = stub.SetUserProvidedName(change, metadata=key, timeout=PATIENCE).profile
    second = heard.result(PATIENCE)
assert changed.display_name == "Анна Ким" and changed.source == pb.NAME_SOURCE_USER_INPUT, changed
assert second.profile == changed and second.cause == "user_input" and second.revision > first.revision, second
watch.cancel()

again = stub.WatchProfile(
    pb.WatchProfileRequest(user_id="12345", after_revision=first.revision), metadata=key, timeout=PATIENCE
)
assert next(again) == second
again.cancel()
channel.close()
