// All alerts, and what fired since the page was opened.
import { all, events, PAGE } from '../api';
import { type Alert, Alert_State, type Event } from '../gen/sightline/v1/event_pb';
import { SeverityBadge } from '../policy';
import { to } from '../route';
import { firings, streamName } from '../store';
import { when } from '../time';
import { Empty, Failure, Page, Score, useAction, useLoad } from '../ui';

export async function listAlerts(): Promise<{ alerts: Alert[]; events: Map<string, Event> }> {
  const [alerts, list] = await Promise.all([
    all(async (pageToken) => {
      const answer = await events.listAlerts({ pageSize: PAGE, pageToken });
      return { items: answer.alerts, nextPageToken: answer.nextPageToken };
    }),
    all(async (pageToken) => {
      const answer = await events.listEvents({ pageSize: PAGE, pageToken });
      return { items: answer.events, nextPageToken: answer.nextPageToken };
    }),
  ]);
  return { alerts, events: new Map(list.map((event) => [event.id, event])) };
}

export function Switch({ alert, changed }: { alert: Alert; changed: () => void }) {
  const { busy, failure, run } = useAction();
  const on = alert.state === Alert_State.ENABLED;
  const press = (): void => run(async () => {
    await (on ? events.disableAlert({ alertId: alert.id }) : events.enableAlert({ alertId: alert.id }));
    changed();
  });
  return (
    <>
      <button type="button" disabled={busy} onClick={press}>{on ? 'Switch off' : 'Switch on'}</button>
      <Failure text={failure} />
    </>
  );
}

export function OnOff({ alert }: { alert: Alert }) {
  const on = alert.state === Alert_State.ENABLED;
  return <span class={`badge ${on ? 'good' : 'quiet'}`}>{on ? 'on' : 'off'}</span>;
}

/** Whom it tells. */
export function told({ callbackUrl, sinks }: Alert): string {
  const receivers = [...(callbackUrl === '' ? [] : [callbackUrl]), ...sinks];
  return receivers.length === 0 ? 'seen here alone' : `posted to ${receivers.join(', ')}`;
}

function Row({ alert, event, changed }: { alert: Alert; event: Event | undefined; changed: () => void }) {
  const fired = firings.value.filter((firing) => firing.alertId === alert.id).length;
  return (
    <li class="card">
      <div class="head">
        <h2><a href={to(['alerts', alert.id])}>{event?.label ?? alert.id}</a></h2>
        <SeverityBadge severity={alert.severity} />
        <OnOff alert={alert} />
      </div>
      <p class="caption">{event?.prompt}</p>
      <p class="quiet">
        On <a href={to(['streams', alert.rtstreamId])}>{streamName(alert.rtstreamId)}</a>, from a probability of {alert.threshold.toFixed(2)}; {told(alert)}
        {fired > 0 && <>; fired {fired} × since this page was opened</>}
      </p>
      <div class="actions"><Switch alert={alert} changed={changed} /></div>
    </li>
  );
}

function Latest() {
  const list = firings.value;
  if (list.length === 0) return null;
  return (
    <section class="card" aria-label="Latest firings">
      <h2>Just fired</h2>
      <ol class="lines">
        {list.map((firing) => (
          <li key={firing.id}>
            <time>{when(firing.startTime)}</time> <a href={to(['alerts', firing.alertId])}>{firing.label}</a> on {streamName(firing.rtstreamId)} <Score value={firing.confidence} />
          </li>
        ))}
      </ol>
    </section>
  );
}

export function AlertsPage() {
  const list = useLoad(listAlerts, []);
  const create = <a class="button main" href={to(['alerts', 'new'])}>New alert</a>;
  return (
    <Page title="Alerts" actions={create}>
      <Failure text={list.failure} retry={list.reload} />
      <Latest />
      {!list.value && list.failure === '' && <p class="quiet" role="status">Loading …</p>}
      {list.value && list.value.alerts.length === 0 && (
        <Empty title="Nothing is watched for yet.">
          <p>Say in your own words what should not be missed, try it on what is stored, and be told when it happens.</p>
          <p>{create}</p>
        </Empty>
      )}
      {list.value && (
        <ul class="grid">
          {list.value.alerts.toReversed().map((alert) => (
            <Row key={alert.id} alert={alert} event={list.value?.events.get(alert.eventId)} changed={list.reload} />
          ))}
        </ul>
      )}
    </Page>
  );
}
