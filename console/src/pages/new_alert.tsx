// A new alert: what to watch for, tried on what is stored, and whom to tell.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { events, indexes, requestId } from '../api';
import { Index_Kind } from '../gen/sightline/v1/index_pb';
import { Hits } from '../hits';
import { go, route, to } from '../route';
import { indexesOf, loaded, order, streamName } from '../store';
import { Empty, Failure, Field, Page, useAction, useLoad } from '../ui';

const TRIED = 8;

function Trial({ prompt, rtstreamId, indexId }: { prompt: string; rtstreamId: string; indexId: string }) {
  const found = useLoad(() => indexes.search({ query: prompt, rtstreamId, indexId, limit: TRIED }), []);
  return (
    <section class="card" aria-label="Tried on what is stored">
      <h2>Tried on what is stored</h2>
      <p class="hint">
        These are the stored captions nearest in meaning to “{prompt}”, by similarity. It is not the judgement of the model: that one looks at the pictures
        of each new window once the alert is on, and its probability is another number than these scores.
      </p>
      <Failure text={found.failure} retry={found.reload} />
      {!found.value && found.failure === '' && <p class="quiet" role="status">Searching …</p>}
      {found.value && found.value.hits.length === 0 && <p>Nothing is stored for this index yet. The alert can be created all the same.</p>}
      {found.value && found.value.hits.length > 0 && <Hits hits={found.value.hits} />}
    </section>
  );
}

export function NewAlertPage() {
  const [prompt, setPrompt] = useState('');
  const [label, setLabel] = useState('');
  const [rtstreamId, setStream] = useState(route.value.query.get('stream') ?? '');
  const [indexId, setIndex] = useState('');
  const [threshold, setThreshold] = useState('');
  const [callbackUrl, setCallback] = useState('');
  const [trial, setTrial] = useState<{ prompt: string; indexId: string; round: number }>();
  const { busy, failure, run } = useAction();
  const stream = rtstreamId || order.value[0] || '';
  const list = useLoad(async () => (stream === '' ? [] : (await indexesOf(stream)).filter(({ kind }) => kind !== Index_Kind.AUDIO)), [stream]);
  useEffect(() => {
    setIndex(list.value?.[0]?.id ?? '');
  }, [list.value]);
  const ids = useMemo(() => ({ event: requestId(), alert: requestId() }), [prompt, label, indexId, threshold, callbackUrl]);

  const create = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const made = await events.createEvent({ prompt: prompt.trim(), label: label.trim(), requestId: ids.event });
      const wanted = { eventId: made.event?.id ?? '', indexId, callbackUrl: callbackUrl.trim(), requestId: ids.alert };
      const { alert } = await events.createAlert(threshold === '' ? wanted : { ...wanted, threshold: Number(threshold) });
      go(['alerts', alert?.id ?? '']);
    });
  };
  const attempt = (): void => setTrial({ prompt: prompt.trim(), indexId, round: (trial?.round ?? 0) + 1 });

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
        <p><button type="button" disabled={prompt.trim() === '' || indexId === ''} onClick={attempt}>Try it on what is stored</button></p>
        <div class="row">
          <Field label="Probability from which it fires" hint="0 to 1; empty takes the server's.">
            {(props) => <input {...props} type="number" min="0.01" max="1" step="0.01" value={threshold} onInput={(event) => setThreshold(event.currentTarget.value)} />}
          </Field>
          <Field label="Post it to" hint="A webhook's address. Empty: it is seen here alone.">
            {(props) => <input {...props} type="url" value={callbackUrl} onInput={(event) => setCallback(event.currentTarget.value)} />}
          </Field>
        </div>
        <Failure text={failure} />
        <button type="submit" class="main" disabled={busy || indexId === ''}>{busy ? 'Creating …' : 'Create the alert'}</button>
      </form>
      {trial && <Trial key={trial.round} prompt={trial.prompt} rtstreamId={stream} indexId={trial.indexId} />}
    </Page>
  );
}
