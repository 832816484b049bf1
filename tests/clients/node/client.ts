// A TypeScript client of the gRPC API, generated from the protos (connect): connects the sample clip, describes it, watches, lists,
// searches, and is refused. Prints one JSON object.
//
//   node client.js SERVER CLIP_URL      with the key in SIGHTLINE_API_KEY
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "./gen/error_info_pb.js";
import { IndexService } from "./gen/sightline/v1/index_pb.js";
import { RtStream_Playback, RtStreamService } from "./gen/sightline/v1/rtstream_pb.js";
import { WatchRequest_Kind, WatchService } from "./gen/sightline/v1/watch_pb.js";

const [baseUrl, url] = process.argv.slice(2);
const key = process.env.SIGHTLINE_API_KEY ?? "";
const deadline = { timeoutMs: 110_000 };

const withKey: Interceptor = (next) => (request) => {
  request.header.set("x-access-token", key);
  return next(request);
};
const transport = createGrpcTransport({ baseUrl, interceptors: [withKey] });
const streams = createClient(RtStreamService, transport);
const indexes = createClient(IndexService, transport);
const watching = createClient(WatchService, transport);

async function refusal(call: Promise<unknown>): Promise<[string, string | undefined]> {
  try {
    await call;
    return ["nothing", undefined];
  } catch (error) {
    const refused = ConnectError.from(error);
    return [Code[refused.code], refused.findDetails(ErrorInfoSchema)[0]?.reason];
  }
}

/** The texts of the first scenes, and their last cursor. */
async function scenes(rtstreamId: string, indexId: string, count: number, cursor = "") {
  const kinds = [WatchRequest_Kind.SCENE_INDEX];
  const request = { rtstreamIds: [rtstreamId], indexIds: [indexId], kinds, cursor };
  const texts: string[] = [];
  for await (const response of watching.watch(request, deadline)) {
    if (response.message.case === "ready" && cursor === "") {
      await streams.startRtStream({ rtstreamId }, deadline);
    }
    if (response.message.case === "scene") {
      texts.push(response.message.value.text);
      cursor = response.cursor;
      if (texts.length === count) break;
    }
  }
  return { texts, cursor };
}

/** What a search finds, as soon as two scenes can be found and one of them says what is looked for. */
async function found(rtstreamId: string, query: string) {
  const end = Date.now() + 110_000;
  for (;;) {
    const { hits } = await indexes.search({ query, rtstreamId }, deadline);
    if ((hits.length > 1 && hits[0].score > 0.5) || Date.now() > end) return hits;
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

const source = { url, name: "from TypeScript", playback: RtStream_Playback.FAST, startStopped: true };
const { rtstream } = await streams.connectRtStream(source, deadline);
const rtstreamId = rtstream!.id;
const { index } = await indexes.createVisualIndex({ rtstreamId, prompt: "Describe activity" }, deadline);
const indexId = index!.id;
const first = await scenes(rtstreamId, indexId, 2);
const next = await scenes(rtstreamId, indexId, 1, first.cursor);
const hits = await found(rtstreamId, first.texts[0]);
const page = await indexes.listScenes({ indexId, pageSize: 1 }, deadline);
const unknown = await refusal(streams.getRtStream({ rtstreamId: "rts-unknown" }, deadline));
const wrong = await refusal(indexes.search({ query: "", rtstreamId }, deadline));
await streams.deleteRtStream({ rtstreamId }, deadline);
const gone = await refusal(streams.getRtStream({ rtstreamId }, deadline));
console.log(
  JSON.stringify({
    watched: [...first.texts, ...next.texts],
    listed: [page.scenes.length, page.nextPageToken !== ""],
    best: hits[0]?.score,
    unknown,
    wrong,
    gone,
  }),
);
