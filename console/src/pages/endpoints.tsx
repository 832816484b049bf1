// The receivers of webhooks: whether they are delivered to, a test call, and the secrets that webhooks are signed with.
import { useState } from 'preact/hooks';
import { Code } from '@connectrpc/connect';
import { all, codeOf, endpoints, PAGE } from '../api';
import { type Endpoint, Endpoint_State, type TestEndpointResponse } from '../gen/sightline/v1/endpoint_pb';
import { when } from '../time';
import { Failure, useAction, useLoad } from '../ui';

/** Nothing where the server is older than endpoints. */
async function list(): Promise<Endpoint[] | undefined> {
  try {
    return await all(async (pageToken) => {
      const answer = await endpoints.listEndpoints({ pageSize: PAGE, pageToken });
      return { items: answer.endpoints, nextPageToken: answer.nextPageToken };
    });
  } catch (error) {
    if (codeOf(error) === Code.Unimplemented) return undefined;
    throw error;
  }
}

function result({ statusCode, error, durationMs }: TestEndpointResponse): string {
  const took = `${durationMs.toFixed(0)} ms`;
  return error === '' ? `It answered ${statusCode} in ${took}.` : `${statusCode === 0 ? 'No answer' : `It answered ${statusCode}`} in ${took}: ${error}`;
}

function Receiver({ endpoint, changed }: { endpoint: Endpoint; changed: () => void }) {
  const { id: endpointId, url, state, detail, changeTime, oldExpireTime } = endpoint;
  const [tested, setTested] = useState<TestEndpointResponse>();
  const [secret, setSecret] = useState('');
  const { busy, failure, run } = useAction();
  const on = state !== Endpoint_State.DISABLED;
  const test = (): void => run(async () => {
    setTested(undefined);
    setTested(await endpoints.testEndpoint({ endpointId }));
  });
  const enable = (): void => run(async () => {
    await endpoints.enableEndpoint({ endpointId });
    changed();
  });
  const show = (): void => {
    if (secret !== '') return setSecret('');
    run(async () => setSecret((await endpoints.getEndpointSecret({ endpointId })).secret));
  };
  const rotate = (): void => {
    if (!confirm(`Make a new secret for ${url}? Webhooks are signed by the old one too for a day.`)) return;
    run(async () => {
      setSecret((await endpoints.rotateEndpointSecret({ endpointId })).secret);
      changed();
    });
  };
  return (
    <li class="part">
      <div class="head">
        <strong class="label">{url}</strong>
        <span class={`badge ${on ? 'good' : 'bad'}`}>{on ? 'enabled' : 'disabled'}</span>
      </div>
      {!on && <p class="detail">{detail}{changeTime && <>, since <time>{when(changeTime)}</time></>}</p>}
      {oldExpireTime && <p class="hint">Signed by the old secret too until {when(oldExpireTime)}.</p>}
      <div class="actions">
        <button type="button" disabled={busy} onClick={test} aria-label={`Test call to ${url}`}>Test call</button>
        {!on && <button type="button" class="main" disabled={busy} onClick={enable} aria-label={`Enable ${url}`}>Enable</button>}
        <button type="button" disabled={busy} onClick={show} aria-expanded={secret !== ''} aria-label={`${secret === '' ? 'Show' : 'Hide'} the secret of ${url}`}>
          {secret === '' ? 'Show the secret' : 'Hide the secret'}
        </button>
        <button type="button" disabled={busy} onClick={rotate} aria-label={`Rotate the secret of ${url}`}>Rotate</button>
      </div>
      <p role="status">{tested && <span class={tested.error === '' ? 'passed' : 'detail'}>{result(tested)}</span>}</p>
      {secret !== '' && <p>Secret: <code class="secret">{secret}</code></p>}
      <Failure text={failure} />
    </li>
  );
}

export function Endpoints() {
  const found = useLoad(list, []);
  if (!found.value) return <Failure text={found.failure} retry={found.reload} />;
  return (
    <section class="card" aria-label="Receivers of webhooks">
      <h2>Receivers of webhooks</h2>
      <Failure text={found.failure} retry={found.reload} />
      {found.value.length === 0 && <p>No alert has posted anywhere yet.</p>}
      <ul class="receivers">{found.value.map((endpoint) => <Receiver key={endpoint.id} endpoint={endpoint} changed={found.reload} />)}</ul>
    </section>
  );
}
