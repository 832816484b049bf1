// One alert: its firings, each with its clip, and how they were delivered.
import { useEffect, useState } from 'preact/hooks';
import { events, PAGE } from '../api';
import {
  type Alert,
  type Delivery,
  Delivery_Outcome as Outcome,
  type Firing,
  Firing_Basis as Basis,
  Firing_State as FiringState,
  Phase,
  Severity,
} from '../gen/sightline/v1/event_pb';
import { onMessage, onResume } from '../live';
import { Player } from '../player';
import { PolicyFacts, PolicyFields, policyOf, SeverityBadge, termsOf } from '../policy';
import { go, to } from '../route';
import { streamName } from '../store';
import { iso, ms, stamp, when } from '../time';
import { Empty, Failure, Field, now, Page, Score, Thumbnail, useAction, useLoad } from '../ui';
import { OnOff, Switch, told } from './alerts';

/** Attempts are looked at again so long after a firing, or after one was asked for, and so often: the first has ended by then. */
const ATTEMPT_MS = 1500;
const LOOKS = 3;
const MUTE_MS = 3_600_000;

const PHASES: Record<Phase, string> = {
  [Phase.UNSPECIFIED]: '',
  [Phase.FIRED]: 'fired',
  [Phase.ENRICHED]: 'enriched',
  [Phase.CLOSED]: 'closed',
};

const BASES: Record<Basis, string> = {
  [Basis.UNSPECIFIED]: '',
  [Basis.FRAMES]: 'by the pictures',
  [Basis.TEXT]: 'by the text',
  [Basis.SIMILARITY]: 'by similarity, which is not calibrated',
  [Basis.HEALTH]: 'by the state of the stream',
};

/** Servers before outcomes tell errors alone. */
function outcomeOf({ outcome, error }: Delivery): Outcome {
  if (outcome !== Outcome.UNSPECIFIED) return outcome;
  return error === '' ? Outcome.DELIVERED : Outcome.RETRYING;
}

/** What came of a firing's messages, of which each goes to each receiver; attempts are newest first. */
function summary(attempts: Delivery[]): string {
  const newest = new Map<string, Outcome>();
  for (const attempt of attempts) {
    const message = `${attempt.endpointId} ${attempt.sink} ${attempt.phase}`;
    if (!newest.has(message)) newest.set(message, outcomeOf(attempt));
  }
  const outcomes = [...newest.values()];
  if (outcomes.includes(Outcome.FAILED)) return 'Not delivered and given up';
  return outcomes.includes(Outcome.RETRYING) ? 'Not delivered yet' : 'Delivered';
}

function Attempt({ attempt }: { attempt: Delivery }) {
  const { phase, sink, statusCode, error, decisionTo2xxMs, durationMs, redelivery, retryTime } = attempt;
  const outcome = outcomeOf(attempt);
  return (
    <li>
      <time dateTime={iso(attempt.endTime)}>{when(attempt.endTime)}</time>{' '}
      {phase !== Phase.UNSPECIFIED && <span class="badge quiet">{PHASES[phase]}</span>}{' '}
      {sink !== '' && <>to {sink}, </>}
      {redelivery && 'delivered again, '}attempt {attempt.attempt}:{' '}
      {error !== '' && `${statusCode || 'no answer'}, ${error}`}
      {error === '' && (decisionTo2xxMs > 0 ? `${statusCode || 'taken'}, ${decisionTo2xxMs.toFixed(0)} ms after the decision` : `${statusCode || 'taken'} in ${durationMs.toFixed(0)} ms`)}
      {outcome === Outcome.RETRYING && (retryTime ? `; tried again at ${when(retryTime)}` : '; tried again')}
      {outcome === Outcome.FAILED && '; given up'}
    </li>
  );
}

function Attempts({ firing, attempts, again }: { firing: Firing; attempts: Delivery[]; again: () => void }) {
  const { busy, failure, run } = useAction();
  const [asked, setAsked] = useState(false);
  const redeliver = (): void => run(async () => {
    await events.redeliver({ alertId: firing.alertId, firingId: firing.id });
    setAsked(true);
    again();
  });
  return (
    <>
      {attempts.length > 0 && (
        <details>
          <summary>{summary(attempts)}, {attempts.length} {attempts.length === 1 ? 'attempt' : 'attempts'}</summary>
          <ol class="lines attempts">{attempts.map((attempt) => <Attempt key={`${attempt.phase} ${attempt.attempt} ${ms(attempt.endTime)}`} attempt={attempt} />)}</ol>
        </details>
      )}
      <p class="actions">
        <button type="button" disabled={busy} onClick={redeliver} aria-label={`Deliver again: ${firing.label} at ${when(firing.startTime)}`}>Deliver again</button>
        <span role="status">{asked && 'It is in line again.'}</span>
      </p>
      <Failure text={failure} />
    </>
  );
}

interface FiredProps {
  firing: Firing;
  /** None where nothing is delivered. */
  attempts: Delivery[] | undefined;
  playing: boolean;
  play: () => void;
  again: () => void;
}

function Fired({ firing, attempts, playing, play, again }: FiredProps) {
  const shown = when(firing.startTime);
  return (
    <li class="card hit" {...(playing ? { 'aria-current': 'true' as const } : {})}>
      <Thumbnail rtstreamId={firing.rtstreamId} atMs={firing.streamUrl === '' ? 0 : (ms(firing.startTime) + ms(firing.endTime)) / 2} />
      <div>
        <p class="head">
          <Score value={firing.confidence} /> <time dateTime={iso(firing.startTime)}>{shown}</time>
          {firing.state === FiringState.OPEN && <span class="badge busy">open</span>}
          {firing.state === FiringState.CLOSED && <span class="badge quiet">closed</span>}
          {firing.severity !== Severity.UNSPECIFIED && <SeverityBadge severity={firing.severity} />}
          {firing.basis !== Basis.UNSPECIFIED && <span class="hint">{BASES[firing.basis]}</span>}
        </p>
        <p class="caption">{firing.explanation}</p>
        {firing.streamUrl === ''
          ? <p class="hint">Not recorded.</p>
          : (
            <p class="actions">
              <button type="button" onClick={play} aria-label={`Watch ${firing.label} at ${shown}`}>Watch</button>
              <a href={firing.playerUrl} target="_blank" rel="noopener">A page that plays it</a>
            </p>
          )}
        {attempts && <Attempts firing={firing} attempts={attempts} again={again} />}
      </div>
    </li>
  );
}

function Firings({ alertId, delivered }: { alertId: string; delivered: boolean }) {
  const [arrived, setArrived] = useState<Firing[]>([]);
  const [chosen, choose] = useState('');
  const [looks, setLooks] = useState(0);
  const stored = useLoad(async () => (await events.listFirings({ alertId, pageSize: 100 })).firings, [alertId]);
  const attempts = useLoad(async () => (delivered ? (await events.listDeliveries({ alertId, pageSize: PAGE })).deliveries : []), [alertId, delivered]);
  useEffect(() => onMessage((message) => {
    if (message.case !== 'alert' || message.value.alertId !== alertId) return;
    const firing = message.value;
    setArrived((before) => [firing, ...before.filter(({ id }) => id !== firing.id)]);
    setLooks(LOOKS);
  }), [alertId]);
  useEffect(() => {
    if (looks === 0) return;
    const timer = setTimeout(() => {
      attempts.reload();
      setLooks((left) => left - 1);
    }, ATTEMPT_MS);
    return () => clearTimeout(timer);
  }, [looks, attempts.reload]);
  // What was read may be older than what has arrived since; back after a loss it is newer.
  useEffect(() => onResume(() => {
    stored.reload();
    attempts.reload();
  }), [stored.reload, attempts.reload]);
  const list = [...arrived, ...(stored.value ?? []).filter(({ id }) => !arrived.some((other) => other.id === id))]
    .sort((a, b) => ms(b.startTime) - ms(a.startTime));
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
          <Fired key={firing.id} firing={firing} playing={firing.id === chosen} play={() => choose(firing.id)} again={() => setLooks(LOOKS)}
            attempts={delivered ? (attempts.value ?? []).filter((attempt) => attempt.firingId === firing.id) : undefined} />
        ))}
      </ol>
    </section>
  );
}

function Change({ alert, changed }: { alert: Alert; changed: () => void }) {
  const [threshold, setThreshold] = useState(alert.threshold.toFixed(2));
  const [callbackUrl, setCallback] = useState(alert.callbackUrl);
  const [terms, setTerms] = useState(() => termsOf(alert));
  const { busy, failure, run } = useAction();
  const submit = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const { severity, delivery } = terms;
      const policy = policyOf(terms, alert.policy);
      await events.updateAlert({ alertId: alert.id, threshold: Number(threshold), callbackUrl: callbackUrl.trim(), policy, severity, delivery });
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
        <PolicyFields terms={terms} set={setTerms} />
        <Failure text={failure} />
        <button type="submit" disabled={busy}>Save</button>
      </form>
    </details>
  );
}

/** Whether nothing is delivered of it for now, and what to do about that. */
function Mute({ alert, changed }: { alert: Alert; changed: () => void }) {
  const { busy, failure, run } = useAction();
  const muted = ms(alert.muteTime) > now.value;
  const press = (): void => run(async () => {
    // A time in the past ends the silence.
    await events.updateAlert({ alertId: alert.id, muteTime: stamp(muted ? 0 : Date.now() + MUTE_MS) });
    changed();
  });
  return (
    <>
      {muted && <span class="badge warn">muted until {when(alert.muteTime)}</span>}
      <button type="button" disabled={busy} onClick={press}>{muted ? 'Unmute' : 'Mute for an hour'}</button>
      <Failure text={failure} />
    </>
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
  const actions = <><OnOff alert={alert} /><Mute alert={alert} changed={read.reload} /><Switch alert={alert} changed={read.reload} /></>;
  return (
    <Page title={event.label} actions={actions}>
      <p class="caption">{event.prompt}</p>
      <p class="quiet">
        On <a href={to(['streams', alert.rtstreamId])}>{streamName(alert.rtstreamId)}</a>, from a probability of {alert.threshold.toFixed(2)}; {told(alert)}
      </p>
      <PolicyFacts alert={alert} />
      <Firings alertId={id} delivered={alert.callbackUrl !== '' || alert.sinks.length > 0} />
      <Change alert={alert} changed={read.reload} />
      <Failure text={failure} />
      <p><button type="button" class="danger" disabled={busy} onClick={remove}>Delete the alert</button></p>
    </Page>
  );
}
