// What happens on one stream: captions, speech and firings in the order of their time.
import { useEffect, useState } from 'preact/hooks';
import { events, indexes, PAGE, streams } from './api';
import type { Firing } from './gen/sightline/v1/event_pb';
import type { Scene } from './gen/sightline/v1/index_pb';
import type { TranscriptSegment } from './gen/sightline/v1/rtstream_pb';
import { onMessage, onResume } from './live';
import { to } from './route';
import { indexesOf } from './store';
import { iso, ms, stamp, when } from './time';
import { Empty, type Loaded, useLoad } from './ui';

/** What is kept of it on the page. */
const ENTRIES = 300;
const SCENES = 60;
/** So much of the transcript is read when the page is opened. */
const BACK_MS = 3_600_000;

export interface Entry {
  id: string;
  kind: 'scene' | 'speech' | 'alert';
  startMs: number;
  endMs: number;
  time: string;
  shown: string;
  text: string;
  /** The label of a firing. */
  label: string;
  alertId: string;
  /** Empty where nothing is recorded. */
  streamUrl: string;
}

function entry(kind: Entry['kind'], from: Scene | TranscriptSegment | Firing, text: string): Entry {
  return {
    id: from.id,
    kind,
    startMs: ms(from.startTime),
    endMs: ms(from.endTime),
    time: iso(from.startTime),
    shown: when(from.startTime),
    text,
    label: 'label' in from ? from.label : '',
    alertId: 'alertId' in from ? from.alertId : '',
    streamUrl: from.streamUrl,
  };
}

const ofScene = (scene: Scene): Entry => entry('scene', scene, scene.text);
const ofSpeech = (segment: TranscriptSegment): Entry => entry('speech', segment, segment.text);
const ofFiring = (firing: Firing): Entry => entry('alert', firing, firing.explanation);

async function stored(rtstreamId: string): Promise<Entry[]> {
  const visual = await indexesOf(rtstreamId);
  const scenes = await Promise.all(visual.map(async ({ id }) => (await indexes.listScenes({ indexId: id, pageSize: SCENES })).scenes));
  const found = scenes.flat().map(ofScene);
  const newestMs = found.length > 0 ? Math.max(...found.map(({ endMs }) => endMs)) : Date.now();
  const speech = await streams.listTranscript({ rtstreamId, pageSize: PAGE, startTime: stamp(newestMs - BACK_MS) });
  const { alerts } = await events.listAlerts({ rtstreamId, pageSize: PAGE });
  // Servers before the filter by stream give all alerts.
  const own = alerts.filter((alert) => alert.rtstreamId === rtstreamId);
  const fired = await Promise.all(own.map(async ({ id }) => (await events.listFirings({ alertId: id, pageSize: SCENES })).firings));
  return [...found, ...speech.segments.map(ofSpeech), ...fired.flat().map(ofFiring)];
}

/** Each once, newest first. */
function merged(before: Entry[], more: Entry[]): Entry[] {
  const byId = new Map([...before, ...more].map((item) => [item.id, item]));
  return [...byId.values()].sort((a, b) => b.startMs - a.startMs || b.endMs - a.endMs).slice(0, ENTRIES);
}

export interface FeedState {
  entries: Entry[];
  failure: string;
  reload: () => void;
}

/** What is stored of a stream, and then what arrives. */
export function useFeed(rtstreamId: string, running: boolean): FeedState {
  const [arrived, setArrived] = useState<Entry[]>([]);
  const read: Loaded<Entry[]> = useLoad(() => stored(rtstreamId), [rtstreamId, running]);
  useEffect(() => onMessage((message) => {
    if (message.case !== 'scene' && message.case !== 'transcript' && message.case !== 'alert') return;
    if (message.value.rtstreamId !== rtstreamId) return;
    const item = message.case === 'scene' ? ofScene(message.value) : message.case === 'transcript' ? ofSpeech(message.value) : ofFiring(message.value);
    setArrived((before) => merged(before, [item]));
  }), [rtstreamId]);
  // Back after a loss: the watch brings what it can, the lists have the rest.
  useEffect(() => onResume(read.reload), [read.reload]);
  return { entries: merged(read.value ?? [], arrived), failure: read.failure, reload: read.reload };
}

const KINDS: Record<Entry['kind'], string> = { scene: 'Captions', speech: 'Speech', alert: 'Alerts' };

function Line({ item, current, jump }: { item: Entry; current: boolean; jump: (item: Entry) => void }) {
  const time = <time dateTime={item.time}>{item.shown}</time>;
  return (
    <li class={`entry ${item.kind}`} {...(current ? { 'aria-current': 'true' as const } : {})}>
      {item.streamUrl === ''
        ? <span class="moment">{time}</span>
        : <button type="button" class="moment" aria-label={`Watch ${item.shown}`} onClick={() => jump(item)}>{time}</button>}
      <p>
        {item.kind === 'alert' && <><a class="badge bad" href={to(['alerts', item.alertId])}>{item.label}</a>{' '}</>}
        {item.kind === 'speech' ? <q>{item.text}</q> : item.text}
      </p>
    </li>
  );
}

/** The list; each line plays its moment. */
export function Feed({ entries, atMs, jump }: { entries: Entry[]; atMs: number; jump: (item: Entry) => void }) {
  const [hidden, setHidden] = useState<Entry['kind'][]>([]);
  const toggle = (kind: Entry['kind']): void => {
    setHidden(hidden.includes(kind) ? hidden.filter((other) => other !== kind) : [...hidden, kind]);
  };
  const shown = entries.filter(({ kind }) => !hidden.includes(kind));
  return (
    <>
      <div class="filters" role="group" aria-label="Show">
        {(Object.keys(KINDS) as Entry['kind'][]).map((kind) => (
          <button key={kind} type="button" class="chip" aria-pressed={!hidden.includes(kind)} onClick={() => toggle(kind)}>{KINDS[kind]}</button>
        ))}
      </div>
      {shown.length === 0
        ? <Empty title="Nothing has arrived yet."><p>Captions, speech and alerts appear here as they come, while the stream runs.</p></Empty>
        : (
          <ol class="feed" tabIndex={0} aria-label="Captions, speech and alerts, newest first">
            {shown.map((item) => (
              <Line key={item.id} item={item} current={item.startMs <= atMs && atMs < item.endMs} jump={jump} />
            ))}
          </ol>
        )}
    </>
  );
}
