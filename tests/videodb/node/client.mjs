// VideoDB's official client for Node makes the calls that it has of RtStreams, with nothing changed but the base URL.
//
//   node client.mjs BASE_URL API_KEY CLIP_URL WEBHOOK_URL
//
// Prints one JSON object: what the client's attributes hold.
import { connect } from 'videodb';

const [baseUrl, apiKey, url, hook] = process.argv.slice(2);

/** What `poll` returns, once that is something. */
async function wait(what, poll, seconds = 120) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    const found = await poll();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`waited in vain for ${what}`);
}

/** The kind of error that a call rejects with, and why. */
async function refused(call) {
  try {
    return ['nothing', String(await call())];
  } catch (error) {
    return [error.constructor.name, String(error.cause?.cause ?? error.cause ?? error.message)];
  }
}

const connection = connect({ apiKey, baseUrl });
const socket = await connection.connectWebsocket();
await socket.connect();
const heard = {};
socket.onMessage((message) => {
  // Nothing of what is still being said is kept.
  if (message.data?.is_final ?? true) heard[message.channel] ??= message;
});

const collection = await connection.getCollection();
const connected = await collection.connectRTStream(
  url, 'Node', ['video', 'audio'], 30, true, true, socket.connectionId,
);
const stream = await collection.getRTStream(connected.id);
const listed = await collection.listRTStreams({ limit: 5, name: 'node' });

const visuals = await stream.indexVisuals({
  prompt: 'Describe activity',
  batchConfig: { type: 'time', value: 5, frameCount: 2 },
  name: 'Activity',
  socketId: socket.connectionId,
});
await visuals.updateSceneIndex('Describe the activity');
const same = await stream.getSceneIndex(visuals.rtstreamIndexId);
const speech = await stream.indexAudio({ batchConfig: { type: 'sentence', value: 1 }, socketId: socket.connectionId });
const scenes = await stream.indexScenes({ extractionConfig: { time: 10, frame_count: 2 } });
await scenes.stop();
const indexes = await stream.listSceneIndexes();

const event = await connection.createEvent('a vehicle moving fast', 'fast');
const eventId = event.eventId ?? event;
const alert = await visuals.createAlert(eventId, hook, socket.connectionId);
await visuals.disableAlert(alert);
const [disabled] = await visuals.listAlerts();
await visuals.enableAlert(alert);
const [enabled] = await visuals.listAlerts();

const records = await wait('scenes', async () => {
  const page = await visuals.getScenes(0, 4102444800, 1, 2);
  return page.scenes.length === 2 && page;
});
const said = await wait('words', async () => {
  const transcript = await stream.getTranscript({ pageSize: 5 });
  return transcript.transcriptionRecords.length > 0 && transcript.transcriptionRecords;
});
const shots = await wait('shots', async () => {
  const found = await stream.search({ query: 'a car', indexType: 'scene', resultThreshold: 2 });
  return found.shots.length > 0 && found.shots;
});
const across = await collection.search('a car', undefined, undefined, 1, undefined, undefined, [], 'rtstream');
const stopped = await stream.stopTranscript('force');
const started = await stream.startTranscript(socket.connectionId);
await wait('every channel', () => ['transcript', 'scene_index', 'audio_index', 'alert'].every((name) => heard[name]));

const told = {
  stream: [stream.name, stream.status, stream.collectionId, stream.sampleRate],
  listed: listed.map((one) => one.id === stream.id),
  visuals: [visuals.extractionType, visuals.extractionConfig, visuals.name, visuals.status],
  prompt: same.prompt,
  speech: [speech.extractionType, speech.extractionConfig],
  scenes: [scenes.extractionType, scenes.prompt],
  indexes: indexes.map((one) => one.status),
  alert: [disabled.status, enabled.status, enabled.label],
  records: [records.nextPage, records.scenes.every((one) => one.start < one.end && one.description)],
  said: Boolean(said[0].text && said[0].wordTimestamps.length),
  shots: [shots[0].sceneIndexName, shots[0].searchScore > 0, await shots[0].generateStream()],
  across: across.shots.map((one) => one.rtstreamName),
  transcription: [stopped.status, started.status],
  heard: Object.values(heard).every((one) => one.rtstream_id === stream.id && one.data.text),
  key: await refused(() => connect({ apiKey: 'wrong', baseUrl }).getCollection()),
  unknown: await refused(() => collection.getRTStream('rts-unknown')),
  outside: await refused(() => connection.checkUsage()),
};
await stream.stop();
await socket.close();
console.log(JSON.stringify(told));
