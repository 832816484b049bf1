// How likely what is watched for on a stream is happening, window by window, as it is judged.
import { useEffect, useState } from 'preact/hooks';
import { events, PAGE } from './api';
import { type Alert, Alert_State, Firing_Basis as Basis } from './gen/sightline/v1/event_pb';
import { type Verdict, WatchRequest_Kind } from './gen/sightline/v1/watch_pb';
import { keepWatching } from './live';
import { to } from './route';
import { ms } from './time';
import { Failure, Score, useLoad } from './ui';

/** Windows of each event that are shown. */
const WINDOWS = 30;
const WIDTH = 120;
const HEIGHT = 28;
/** Room for the thickness of the line. */
const EDGE = 2;

/** An event on an index, and the alerts that wait for it. */
interface Watched {
  key: string;
  label: string;
  alerts: Alert[];
}

const keyOf = ({ indexId, eventId }: { indexId: string; eventId: string }): string => `${indexId} ${eventId}`;

async function label(eventId: string): Promise<string> {
  try {
    return (await events.getEvent({ eventId })).event?.label || eventId;
  } catch {
    return eventId;
  }
}

async function watched(rtstreamId: string): Promise<Watched[]> {
  const { alerts } = await events.listAlerts({ rtstreamId, pageSize: PAGE });
  const on = alerts.filter((alert) => alert.rtstreamId === rtstreamId && alert.state === Alert_State.ENABLED);
  const keys = [...new Set(on.map(keyOf))];
  return Promise.all(keys.map(async (key) => {
    const waiting = on.filter((alert) => keyOf(alert) === key);
    return { key, alerts: waiting, label: await label(waiting[0]?.eventId ?? '') };
  }));
}

/** One after the other in time, each window once. */
function extended(before: Verdict[], verdict: Verdict): Verdict[] {
  const others = before.filter((other) => ms(other.startTime) !== ms(verdict.startTime));
  return [...others, verdict].sort((a, b) => ms(a.startTime) - ms(b.startTime)).slice(-WINDOWS);
}

const y = (probability: number): string => (HEIGHT - EDGE - probability * (HEIGHT - 2 * EDGE)).toFixed(1);

/** The newest windows from left to right, with the threshold as a line across. */
function Sparkline({ values, threshold }: { values: number[]; threshold: number }) {
  const x = (place: number): string => (WIDTH - EDGE - ((values.length - 1 - place) * (WIDTH - 2 * EDGE)) / (WINDOWS - 1)).toFixed(1);
  const name = values.length === 0
    ? 'No window yet'
    : `${values.length} ${values.length === 1 ? 'window' : 'windows'}, from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
  const last = values.at(-1);
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label={name}>
      <line class="level" x1={0} x2={WIDTH} y1={y(threshold)} y2={y(threshold)} />
      <polyline points={values.map((value, place) => `${x(place)},${y(value)}`).join(' ')} />
      {last !== undefined && <circle cx={x(values.length - 1)} cy={y(last)} r={EDGE} />}
    </svg>
  );
}

function Row({ item, verdicts }: { item: Watched; verdicts: Verdict[] }) {
  const newest = verdicts.at(-1);
  const threshold = Math.min(...item.alerts.map((alert) => alert.threshold));
  const counts = newest !== undefined && newest.probability >= threshold;
  return (
    <li>
      <a class="label" href={to(['alerts', item.alerts[0]?.id ?? ''])}>{item.label}</a>
      {newest && <Score value={newest.probability} />}
      <Sparkline values={verdicts.map(({ probability }) => probability)} threshold={threshold} />
      {newest
        ? <span class={`badge ${counts ? 'warn' : 'quiet'}`}>{counts ? `counts, from ${threshold.toFixed(2)}` : `below ${threshold.toFixed(2)}`}</span>
        : <span class="quiet">no window judged yet</span>}
      {newest?.basis === Basis.SIMILARITY && <span class="hint">by similarity, which is not calibrated: no model was there to judge</span>}
    </li>
  );
}

/** Verdicts as they come, while this is shown: nobody else asks for them. */
export function Verdicts({ rtstreamId }: { rtstreamId: string }) {
  const [byKey, setByKey] = useState<Map<string, Verdict[]>>(new Map());
  const read = useLoad(() => watched(rtstreamId), [rtstreamId]);
  useEffect(() => keepWatching({
    filter: { rtstreamIds: [rtstreamId], kinds: [WatchRequest_Kind.VERDICT] },
    ready: read.reload,
    message: (message) => {
      if (message.case !== 'verdict') return;
      const verdict = message.value;
      setByKey((before) => new Map(before).set(keyOf(verdict), extended(before.get(keyOf(verdict)) ?? [], verdict)));
    },
  }), [rtstreamId, read.reload]);
  // Somebody has made an alert in the meantime.
  const unknown = [...byKey.keys()].filter((key) => !read.value?.some((item) => item.key === key)).join();
  useEffect(() => {
    if (unknown !== '') read.reload();
  }, [unknown, read.reload]);
  return (
    <section class="card" aria-label="Verdicts">
      <h2>Verdicts</h2>
      <Failure text={read.failure} retry={read.reload} />
      {read.value?.length === 0 && <p class="quiet">Nothing is watched for here. <a href={to(['alerts', 'new'], { stream: rtstreamId })}>Say what should not be missed</a>.</p>}
      <ul class="verdicts">{(read.value ?? []).map((item) => <Row key={item.key} item={item} verdicts={byKey.get(item.key) ?? []} />)}</ul>
    </section>
  );
}
