"""Connects a camera or a file, describes it, and prints what happens: see examples/README.md."""
import os, sys
import grpc
from sightline.v1 import index_pb2, index_pb2_grpc, rtstream_pb2, rtstream_pb2_grpc, watch_pb2, watch_pb2_grpc

server, url = sys.argv[1:]
key = (("x-access-token", os.environ["SIGHTLINE_API_KEY"]),)
channel = grpc.insecure_channel(server)
streams, indexes = rtstream_pb2_grpc.RtStreamServiceStub(channel), index_pb2_grpc.IndexServiceStub(channel)
stream = streams.ConnectRtStream(rtstream_pb2.ConnectRtStreamRequest(url=url), metadata=key, timeout=30).rtstream
wanted = index_pb2.CreateVisualIndexRequest(rtstream_id=stream.id, prompt="Describe activity")
index = indexes.CreateVisualIndex(wanted, metadata=key, timeout=30).index
kinds = [watch_pb2.WatchRequest.KIND_SCENE_INDEX]
watch = watch_pb2_grpc.WatchServiceStub(channel).Watch(watch_pb2.WatchRequest(index_ids=[index.id], kinds=kinds), metadata=key)
for message in watch:
    if message.HasField("scene"):
        print(message.scene.text, flush=True)
