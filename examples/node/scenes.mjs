// Connects a camera or a file, describes it, and prints what happens: see examples/README.md.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { IndexService } from "./gen/sightline/v1/index_pb.js";
import { RtStreamService } from "./gen/sightline/v1/rtstream_pb.js";
import { WatchRequest_Kind, WatchService } from "./gen/sightline/v1/watch_pb.js";

const [baseUrl, url] = process.argv.slice(2);
const withKey = (next) => (call) => (call.header.set("x-access-token", process.env.SIGHTLINE_API_KEY), next(call));
const transport = createGrpcTransport({ baseUrl, interceptors: [withKey] });
const { rtstream } = await createClient(RtStreamService, transport).connectRtStream({ url });
const wanted = { rtstreamId: rtstream.id, prompt: "Describe activity" };
const { index } = await createClient(IndexService, transport).createVisualIndex(wanted);
const filter = { indexIds: [index.id], kinds: [WatchRequest_Kind.SCENE_INDEX] };
for await (const { message } of createClient(WatchService, transport).watch(filter)) {
  if (message.case === "scene") console.log(message.value.text);
}
