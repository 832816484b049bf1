"""A Python client of the gRPC API, generated from the protos (grpcio): connects the sample clip, describes it, watches, lists,
searches, and is refused. Prints one JSON object.

    client.py GENERATED SERVER CLIP_URL      with the key in SIGHTLINE_API_KEY

Where the folder GENERATED has nothing yet, the protos are compiled into it first.
"""

import json
import os
import pathlib
import sys
import time

import grpc
import grpc_tools
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

GENERATED, SERVER, CLIP = sys.argv[1:]
KEY = (("x-access-token", os.environ["SIGHTLINE_API_KEY"]),)
DEADLINE = 110


def generate():
    """Compiles the public protos."""
    protos = pathlib.Path(__file__).resolve().parents[3] / "proto"
    files = sorted(str(file) for file in (protos / "sightline/v1").glob("*.proto"))
    known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    out = [f"--python_out={GENERATED}", f"--grpc_python_out={GENERATED}"]
    if protoc.main(["protoc", f"-I{protos}", f"-I{known}", *out, *files]):
        raise SystemExit("the protos do not compile")


if not os.path.isdir(os.path.join(GENERATED, "sightline")):
    generate()
sys.path.insert(0, GENERATED)
from sightline.v1 import index_pb2, index_pb2_grpc, rtstream_pb2, rtstream_pb2_grpc, watch_pb2, watch_pb2_grpc  # noqa: E402

channel = grpc.insecure_channel(SERVER.removeprefix("http://"))
streams = rtstream_pb2_grpc.RtStreamServiceStub(channel)
indexes = index_pb2_grpc.IndexServiceStub(channel)
watching = watch_pb2_grpc.WatchServiceStub(channel)


def call(method, request):
    """What a method answers, within the deadline."""
    return method(request, metadata=KEY, timeout=DEADLINE)


def refusal(method, request):
    """The code, the stable reason and the fields at fault."""
    try:
        call(method, request)
    except grpc.RpcError as error:
        info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)
            detail.Unpack(fields)
        return [error.code().name, info.reason, [violation.field for violation in fields.field_violations]]
    return ["nothing"]


def scenes(stream, index, count, cursor=""):
    """The texts of the next scenes, and the last cursor. Starts the stream once the watch is in place, unless it goes on."""
    request = watch_pb2.WatchRequest(
        rtstream_ids=[stream.id], index_ids=[index.id], kinds=[watch_pb2.WatchRequest.KIND_SCENE_INDEX], cursor=cursor
    )
    texts = []
    messages = call(watching.Watch, request)
    for message in messages:
        if message.HasField("ready") and not cursor:
            call(streams.StartRtStream, rtstream_pb2.StartRtStreamRequest(rtstream_id=stream.id))
        if message.HasField("scene"):
            texts.append(message.scene.text)
            if len(texts) == count:
                messages.cancel()
                return texts, message.cursor
    raise RuntimeError("the watch ended")


def found(stream, query):
    """What a search finds, as soon as two scenes can be found and one of them says what is looked for."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        hits = call(indexes.Search, index_pb2.SearchRequest(query=query, rtstream_id=stream.id)).hits
        if len(hits) > 1 and hits[0].score > 0.5:
            return hits
        time.sleep(0.1)
    raise TimeoutError(query)


stream = call(
    streams.ConnectRtStream,
    rtstream_pb2.ConnectRtStreamRequest(
        url=CLIP, name="from Python", playback=rtstream_pb2.RtStream.PLAYBACK_FAST, start_stopped=True
    ),
).rtstream
index = call(
    indexes.CreateVisualIndex, index_pb2.CreateVisualIndexRequest(rtstream_id=stream.id, prompt="Describe activity")
).index
first, cursor = scenes(stream, index, 2)
following, _ = scenes(stream, index, 1, cursor)
hits = found(stream, first[0])
page = call(indexes.ListScenes, index_pb2.ListScenesRequest(index_id=index.id, page_size=1))
unknown = refusal(streams.GetRtStream, rtstream_pb2.GetRtStreamRequest(rtstream_id="rts-unknown"))
wrong = refusal(indexes.Search, index_pb2.SearchRequest(query="", rtstream_id=stream.id))
call(streams.DeleteRtStream, rtstream_pb2.DeleteRtStreamRequest(rtstream_id=stream.id))
gone = refusal(streams.GetRtStream, rtstream_pb2.GetRtStreamRequest(rtstream_id=stream.id))
told = {
    "watched": first + following,
    "listed": [len(page.scenes), page.next_page_token != ""],
    "best": hits[0].score,
    "unknown": unknown,
    "wrong": wrong,
    "gone": gone,
}
print(json.dumps(told))
