// One alert: its firings, each with its clip, and how they were delivered.
import { useEffect, useState } from 'preact/hooks';
import { events, PAGE } from '../api';
import type { Alert, Delivery, Firing } from '../gen/sightline/v1/event_pb';
import { onMessage } from '../live';
import { Player } from '../player';
import { go, to } from '../route';
import { streamName } from '../store';
import { iso, ms, when } from '../time';
import { Empty, Failure, Field, Page, Score, Thumbnail, useAction, useLoad } from '../ui';
import { OnOff, Switch } from './alerts';

/** Attempts are looked at again so long after a firing: the first has ended by then. */
const ATTEMPT_MS = 1500;

function Attempts({ attempts }: { attempts: Delivery[] }) {
  if (attempts.length === 0) return null;
  return (
    <details>
      <summary>{attempts.some(({ error }) => error === '') ? 'Delivered' : 'Not delivered yet'}, {attempts.length} {attempts.length === 1 ? 'attempt' : 'attempts'}</summary>
      <ol class="lines">
        {attempts.map((attempt) => (
          <li key={attempt.attempt}>
            <time dateTime={iso(attempt.endTime)}>{when(attempt.endTime)}</time> attempt {attempt.attempt}:{' '}
            {attempt.error === '' ? `${attempt.statusCode}, ${attempt.decisionTo2xxMs.toFixed(0)} ms after the decision` : `${attempt.statusCode || 'no answer'}, ${attempt.error}`}
          </li>
        ))}
      </ol>
    </details>
  );
}

function Fired({ firing, attempts, playing, play }: { firing: Firing; attempts: Delivery[]; playing: boolean; play: () => void }) {
  const shown = when(firing.startTime);
  return (
    <li class="card hit" {...(playing ? { 'aria-current': 'true' as const } : {})}>
      <Thumbnail rtstreamId={firing.rtstreamId} atMs={firing.streamUrl === '' ? 0 : (ms(firing.startTime) + ms(firing.endTime)) / 2} />
      <div>
        <p class="head"><Score value={firing.confidence} /> <time dateTime={iso(firing.startTime)}>{shown}</time></p>
        <p class="caption">{firing.explanation}</p>
        {firing.streamUrl === ''
          ? <p class="hint">Not recorded.</p>
          : (
            <p class="actions">
              <button type="button" onClick={play} aria-label={`Watch ${firing.label} at ${shown}`}>Watch</button>
              <a href={firing.playerUrl} target="_blank" rel="noopener">A page that plays it</a>
            </p>
          )}
        <Attempts attempts={attempts} />
      </div>
    </li>
  );
}

function Firings({ alertId, callback }: { alertId: string; callback: boolean }) {
  const [arrived, setArrived] = useState<Firing[]>([]);
  const [chosen, choose] = useState('');
  const stored = useLoad(async () => (await events.listFirings({ alertId, pageSize: 100 })).firings, [alertId]);
  const attempts = useLoad(async () => (callback ? (await events.listDeliveries({ alertId, pageSize: PAGE })).deliveries : []), [alertId, callback]);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    const end = onMessage((message) => {
      if (message.case !== 'alert' || message.value.alertId !== alertId) return;
      const firing = message.value;
      setArrived((before) => [firing, ...before.filter(({ id }) => id !== firing.id)]);
      clearTimeout(timer);
      timer = setTimeout(attempts.reload, ATTEMPT_MS);
    });
    return () => {
      clearTimeout(timer);
      end();
    };
  }, [alertId, attempts.reload]);
  const list = [...arrived, ...(stored.value ?? []).filter(({ id }) => !arrived.some((other) => other.id === id))];
  const playing = list.find(({ id }) => id === chosen);
  return (
    <section class="part" aria-label="Firings">
      <h2>Firings</h2>
      <Failure text={stored.failure || attempts.failure} retry={stored.reload} />
      {playing && (
        <div class="stage found">
          <Player url={playing.streamUrl} atMs={ms(playing.startTime)} label={`Firing of ${playing.label}`} />
        </div>
      )}
      {stored.value && list.length === 0 && <Empty title="It has not fired yet."><p>It appears here when it does. Keep the stream running; nothing needs to be reloaded.</p></Empty>}
      <ol class="hits">
        {list.map((firing) => (
          <Fired key={firing.id} firing={firing} playing={firing.id === chosen} play={() => choose(firing.id)}
            attempts={(attempts.value ?? []).filter((attempt) => attempt.firingId === firing.id)} />
        ))}
      </ol>
    </section>
  );
}

function Change({ alert, changed }: { alert: Alert; changed: () => void }) {
  const [threshold, setThreshold] = useState(alert.threshold.toFixed(2));
  const [callbackUrl, setCallback] = useState(alert.callbackUrl);
  const { busy, failure, run } = useAction();
  const submit = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      await events.updateAlert({ alertId: alert.id, threshold: Number(threshold), callbackUrl: callbackUrl.trim() });
      changed();
    });
  };
  return (
    <details>
      <summary>Change it</summary>
      <form class="form" onSubmit={submit}>
        <Field label="Probability from which it fires">
          {(props) => <input {...props} type="number" required min="0.01" max="1" step="0.01" value={threshold} onInput={(event) => setThreshold(event.currentTarget.value)} />}
        </Field>
        <Field label="Post it to" hint="A webhook's address. Empty: it is seen here alone.">
          {(props) => <input {...props} type="url" value={callbackUrl} onInput={(event) => setCallback(event.currentTarget.value)} />}
        </Field>
        <Failure text={failure} />
        <button type="submit" disabled={busy}>Save</button>
      </form>
    </details>
  );
}

export function AlertPage({ id }: { id: string }) {
  const { busy, failure, run } = useAction();
  const read = useLoad(async () => {
    const { alert } = await events.getAlert({ alertId: id });
    const { event } = await events.getEvent({ eventId: alert?.eventId ?? '' });
    return alert && event ? { alert, event } : undefined;
  }, [id]);
  if (!read.value) {
    return (
      <Page title="Alert">
        {read.failure === '' ? <p class="quiet" role="status">Loading …</p> : <Empty title={read.failure}><p><a href={to(['alerts'])}>Go to the alerts</a></p></Empty>}
      </Page>
    );
  }
  const { alert, event } = read.value;
  const remove = (): void => {
    if (!confirm(`Delete the alert ${event.label}?`)) return;
    run(async () => {
      await events.deleteAlert({ alertId: id });
      go(['alerts']);
    });
  };
  const actions = <><OnOff alert={alert} /><Switch alert={alert} changed={read.reload} /></>;
  return (
    <Page title={event.label} actions={actions}>
      <p class="caption">{event.prompt}</p>
      <p class="quiet">
        On <a href={to(['streams', alert.rtstreamId])}>{streamName(alert.rtstreamId)}</a>, from a probability of {alert.threshold.toFixed(2)};{' '}
        {alert.callbackUrl === '' ? 'seen here alone' : <>posted to {alert.callbackUrl}</>}
      </p>
      <Firings alertId={id} callback={alert.callbackUrl !== ''} />
      <Change alert={alert} changed={read.reload} />
      <Failure text={failure} />
      <p><button type="button" class="danger" disabled={busy} onClick={remove}>Delete the alert</button></p>
    </Page>
  );
}
