// A new alert: what to watch for, tried on what is stored, and whom to tell.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { events, requestId } from '../api';
import { Backtest, type Trial } from '../backtest';
import { Index_Kind } from '../gen/sightline/v1/index_pb';
import { DEFAULT, PolicyFields, policyOf } from '../policy';
import { go, route, to } from '../route';
import { indexesOf, loaded, order, streamName } from '../store';
import { Empty, Failure, Field, Page, useAction, useLoad } from '../ui';

export function NewAlertPage() {
  const [prompt, setPrompt] = useState('');
  const [label, setLabel] = useState('');
  const [rtstreamId, setStream] = useState(route.value.query.get('stream') ?? '');
  const [indexId, setIndex] = useState('');
  const [threshold, setThreshold] = useState('');
  const [callbackUrl, setCallback] = useState('');
  const [terms, setTerms] = useState(DEFAULT);
  const [trial, setTrial] = useState<Trial & { round: number }>();
  const { busy, failure, run } = useAction();
  const stream = rtstreamId || order.value[0] || '';
  const list = useLoad(async () => (stream === '' ? [] : (await indexesOf(stream)).filter(({ kind }) => kind !== Index_Kind.AUDIO)), [stream]);
  useEffect(() => {
    setIndex(list.value?.[0]?.id ?? '');
  }, [list.value]);
  const ids = useMemo(() => ({ event: requestId(), alert: requestId() }), [prompt, label, indexId, threshold, callbackUrl, terms]);

  const create = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const made = await events.createEvent({ prompt: prompt.trim(), label: label.trim(), requestId: ids.event });
      const { severity, delivery } = terms;
      const wanted = {
        eventId: made.event?.id ?? '', indexId, callbackUrl: callbackUrl.trim(), requestId: ids.alert, policy: policyOf(terms), severity, delivery,
      };
      const { alert } = await events.createAlert(threshold === '' ? wanted : { ...wanted, threshold: Number(threshold) });
      go(['alerts', alert?.id ?? '']);
    });
  };
  const index = list.value?.find(({ id }) => id === indexId);
  const attempt = (): void => {
    if (!index) return;
    const wanted = { prompt: prompt.trim(), index, policy: policyOf(terms), threshold: threshold === '' ? undefined : Number(threshold) };
    setTrial({ ...wanted, round: (trial?.round ?? 0) + 1 });
  };

  if (loaded.value && order.value.length === 0) {
    return (
      <Page title="New alert">
        <Empty title="There is no stream to watch yet."><p><a class="button main" href={to(['streams', 'new'])}>Connect a stream</a></p></Empty>
      </Page>
    );
  }
  return (
    <Page title="New alert">
      <form class="card form" onSubmit={create}>
        <Field label="What to watch for" hint="In your own words, for example: Detect when someone enters restricted area">
          {(props) => <textarea {...props} rows={2} required maxLength={1000} value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />}
        </Field>
        <Field label="Short name" hint="Firings carry it.">
          {(props) => <input {...props} type="text" required maxLength={100} value={label} onInput={(event) => setLabel(event.currentTarget.value)} />}
        </Field>
        <div class="row">
          <Field label="Stream">
            {(props) => (
              <select {...props} value={stream} onChange={(event) => setStream(event.currentTarget.value)}>
                {order.value.map((id) => <option key={id} value={id}>{streamName(id)}</option>)}
              </select>
            )}
          </Field>
          <Field label="Index">
            {(props) => (
              <select {...props} required value={indexId} onChange={(event) => setIndex(event.currentTarget.value)}>
                {(list.value ?? []).map((index) => <option key={index.id} value={index.id}>{index.name}</option>)}
              </select>
            )}
          </Field>
        </div>
        {list.value?.length === 0 && stream !== '' && <p class="detail">This stream has no index. <a href={to(['streams', stream])}>Add one first</a>.</p>}
        <Failure text={list.failure} retry={list.reload} />
        <div class="row">
          <Field label="Probability from which it fires" hint="0 to 1; empty takes the server's.">
            {(props) => <input {...props} type="number" min="0.01" max="1" step="0.01" value={threshold} onInput={(event) => setThreshold(event.currentTarget.value)} />}
          </Field>
          <Field label="Post it to" hint="A webhook's address. Empty: it is seen here alone.">
            {(props) => <input {...props} type="url" value={callbackUrl} onInput={(event) => setCallback(event.currentTarget.value)} />}
          </Field>
        </div>
        <PolicyFields terms={terms} set={setTerms} />
        <p><button type="button" disabled={prompt.trim() === '' || index === undefined} onClick={attempt}>Try it on what is stored</button></p>
        <Failure text={failure} />
        <button type="submit" class="main" disabled={busy || indexId === ''}>{busy ? 'Creating …' : 'Create the alert'}</button>
      </form>
      {trial && <Backtest key={trial.round} trial={trial} />}
    </Page>
  );
}
