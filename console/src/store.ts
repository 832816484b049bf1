// What the console knows of streams: read once, then kept current by the watch, so that no stream is ever polled.
import { batch, type Signal, signal } from '@preact/signals';
import { Code } from '@connectrpc/connect';
import { all, codeOf, indexes, lanes, PAGE, streams, words } from './api';
import type { Firing } from './gen/sightline/v1/event_pb';
import type { Index, Scene } from './gen/sightline/v1/index_pb';
import { type RtStream, RtStream_State } from './gen/sightline/v1/rtstream_pb';
import { onMessage, onResume } from './live';
import { ms } from './time';

/** Two lists in this time are one. */
const REFRESH_MS = 2_000;
/** Firings that are remembered for the overview. */
const FIRINGS = 50;

/** One stream, and what of it has arrived since the page was opened. */
export interface Known {
  stream: RtStream;
  scene?: Scene;
  said?: string;
  /** When the newest sampled frame was captured. */
  lastFrameMs: number;
  /** Sampled frames per second, as the newest window had them. */
  fps: number;
  /** Windows that were left out between those that arrived, on all indexes. */
  missed: number;
  reconnects: number;
  firings: number;
}

export const order = signal<string[]>([]);
export const loaded = signal(false);
export const failure = signal('');
/** Newest first. */
export const firings = signal<Firing[]>([]);
const known = new Map<string, Signal<Known>>();
/** The newest window of each index. */
const windows = new Map<string, bigint>();

export function knownStream(id: string): Signal<Known> | undefined {
  return known.get(id);
}

export function streamName(id: string): string {
  const stream = known.get(id)?.value.stream;
  return stream?.name || id;
}

/** Takes a stream as the server has it now. */
export function put(stream: RtStream): void {
  const place = known.get(stream.id);
  if (place) {
    place.value = { ...place.value, stream };
  } else {
    const fresh = { stream, lastFrameMs: 0, fps: 0, missed: 0, reconnects: 0, firings: 0 };
    known.set(stream.id, signal(fresh));
    order.value = [stream.id, ...order.value];
  }
}

export function forget(id: string): void {
  known.delete(id);
  order.value = order.value.filter((other) => other !== id);
}

/** Reads the list of streams. */
export async function refresh(): Promise<void> {
  try {
    const list = await all(async (pageToken) => {
      const answer = await streams.listRtStreams({ pageSize: PAGE, pageToken });
      return { items: answer.rtstreams, nextPageToken: answer.nextPageToken };
    });
    batch(() => {
      for (const stream of list) put(stream);
      order.value = list.map((stream) => stream.id);
      const kept = new Set(order.value);
      for (const id of known.keys()) if (!kept.has(id)) known.delete(id);
      loaded.value = true;
      failure.value = '';
    });
  } catch (error) {
    failure.value = words(error);
  }
}

let coming: ReturnType<typeof setTimeout> | undefined;
function refreshSoon(): void {
  coming ??= setTimeout(() => {
    coming = undefined;
    void refresh();
  }, REFRESH_MS);
}

/** Reads one stream anew: its state was changed by the watch, and a stream has more than a state. */
export async function reread(id: string): Promise<void> {
  try {
    const { rtstream } = await streams.getRtStream({ rtstreamId: id });
    if (rtstream) put(rtstream);
  } catch (error) {
    if (codeOf(error) === Code.NotFound) forget(id);
  }
}

const ofStream = new Map<string, Promise<Index[]>>();

/** The indexes of a stream; read again when `fresh`. */
export function indexesOf(rtstreamId: string, fresh = false): Promise<Index[]> {
  let list = fresh ? undefined : ofStream.get(rtstreamId);
  if (!list) {
    list = all(async (pageToken) => {
      const answer = await indexes.listIndexes({ rtstreamId, pageSize: PAGE, pageToken });
      return { items: answer.indexes, nextPageToken: answer.nextPageToken };
    });
    ofStream.set(rtstreamId, list);
    list.catch(() => ofStream.delete(rtstreamId));
  }
  return list;
}

/** Streams whose newest scene was asked for. */
const acquainted = new Set<string>();
const asking = lanes(4);

/** Reads the newest scene of a stream that nothing has arrived of yet, once. */
export async function acquaint(id: string): Promise<void> {
  if (acquainted.has(id)) return;
  acquainted.add(id);
  await asking(async () => {
    try {
      const newest = await Promise.all((await indexesOf(id)).map(({ id: indexId }) => indexes.listScenes({ indexId, pageSize: 1 })));
      const scenes = newest.flatMap((answer) => answer.scenes).sort((a, b) => ms(a.endTime) - ms(b.endTime));
      if (knownStream(id)?.value.scene === undefined) scenes.slice(-1).forEach(described);
    } catch {
      acquainted.delete(id);
    }
  });
}

function change(id: string, by: (before: Known) => Partial<Known>): void {
  const place = known.get(id);
  if (!place) return refreshSoon();
  place.value = { ...place.value, ...by(place.value) };
}

/** Takes a scene into its stream: newest frame, how many a second, and what was left out before it. */
function described(scene: Scene): void {
  const newest = windows.get(scene.indexId);
  const missed = newest !== undefined && scene.window > newest ? Number(scene.window - newest - 1n) : 0;
  if (newest === undefined || scene.window > newest) windows.set(scene.indexId, scene.window);
  const seconds = (ms(scene.endTime) - ms(scene.startTime)) / 1000;
  change(scene.rtstreamId, (before) => ({
    scene,
    lastFrameMs: Math.max(before.lastFrameMs, ms(scene.frameTimes.at(-1))),
    fps: seconds > 0 ? scene.frameTimes.length / seconds : before.fps,
    missed: before.missed + missed,
  }));
}

type Message = Parameters<Parameters<typeof onMessage>[0]>[0];

function apply(message: Message): void {
  switch (message.case) {
    case 'streamStatus': {
      const { rtstreamId, state, detail, attempt } = message.value;
      change(rtstreamId, (before) => ({
        // What is told of a running stream is no reason for concern.
        stream: { ...before.stream, state, stateDetail: state === RtStream_State.ACTIVE ? '' : detail, attempt },
        reconnects: before.reconnects + (state === RtStream_State.RECONNECTING && attempt <= 1 ? 1 : 0),
      }));
      break;
    }
    case 'scene':
      described(message.value);
      break;
    case 'transcript': {
      const { rtstreamId, text } = message.value;
      change(rtstreamId, () => ({ said: text }));
      break;
    }
    case 'alert': {
      const firing = message.value;
      const goesOn = firings.value.some((other) => other.id === firing.id);
      // What is known of a firing changes where it stands: nobody is told of it twice.
      firings.value = goesOn
        ? firings.value.map((other) => (other.id === firing.id ? firing : other))
        : [firing, ...firings.value].slice(0, FIRINGS);
      if (!goesOn) change(firing.rtstreamId, (before) => ({ firings: before.firings + 1 }));
      break;
    }
    default:
  }
}

// What arrives between two pictures on the screen is taken at once: many streams cost one update, not many.
let waiting: Message[] = [];
function take(): void {
  const messages = waiting;
  waiting = [];
  batch(() => messages.forEach(apply));
}
onMessage((message) => {
  waiting.push(message);
  if (waiting.length === 1) {
    if (document.hidden) setTimeout(take, 0);
    else requestAnimationFrame(take);
  }
});
onResume(() => void refresh());

/** Forgets everything: somebody else may sign in. */
export function clear(): void {
  known.clear();
  windows.clear();
  ofStream.clear();
  acquainted.clear();
  batch(() => {
    order.value = [];
    firings.value = [];
    loaded.value = false;
    failure.value = '';
  });
}
