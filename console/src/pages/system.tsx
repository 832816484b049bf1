// How the platform is doing, as far as its API says.
import { indexes, lanes } from '../api';
import type { Index } from '../gen/sightline/v1/index_pb';
import { connection } from '../live';
import { to } from '../route';
import { indexesOf, knownStream, order, streamName } from '../store';
import { Failure, Page, stateName, useLoad } from '../ui';
import { Endpoints } from './endpoints';
import { Keys } from './keys';
import { Platform } from './workers';

/** Many streams are asked for one after the other. */
const asking = lanes(4);

interface Known {
  index: Index;
  /** The model that wrote its newest scene. */
  revision: string;
}

async function look(ids: string[]): Promise<Known[]> {
  const lists = await Promise.all(ids.map((id) => asking(() => indexesOf(id, true))));
  return Promise.all(lists.flat().map((index) => asking(async () => {
    const indexId = index.id;
    // Lists of indexes have no counts.
    const [counted, newest] = await Promise.all([indexes.getIndex({ indexId }), indexes.listScenes({ indexId, pageSize: 1 })]);
    return { index: counted.index ?? index, revision: newest.scenes[0]?.modelRevision ?? '' };
  })));
}

function States() {
  const counts = new Map<string, number>();
  for (const id of order.value) {
    const stream = knownStream(id)?.value.stream;
    if (stream) counts.set(stateName(stream.state), (counts.get(stateName(stream.state)) ?? 0) + 1);
  }
  return (
    <dl class="facts">
      <div><dt>Streams</dt><dd>{order.value.length}</dd></div>
      {[...counts].map(([name, count]) => <div key={name}><dt>{name}</dt><dd>{count}</dd></div>)}
      <div><dt>Connection</dt><dd>{connection.value}</dd></div>
    </dl>
  );
}

async function health(): Promise<string> {
  const answer = await fetch(new URL('healthz', document.baseURI), { cache: 'no-store' });
  return (await answer.text()).trim();
}

export function SystemPage() {
  const ids = order.value;
  const found = useLoad(() => look(ids), [ids.join()]);
  const gateway = useLoad(health, [connection.value]);
  return (
    <Page title="System">
      <section class="card" aria-label="State">
        <h2>State</h2>
        <States />
        <p>Gateway: {gateway.value ?? (gateway.failure || '…')}</p>
      </section>
      <Platform />
      <section class="card" aria-label="Indexes">
        <h2>Indexes</h2>
        <Failure text={found.failure} retry={found.reload} />
        {found.value?.length === 0 && <p>There is no index yet. <a href={to(['streams', 'new'])}>Connect a stream</a> to have it described.</p>}
        {found.value && found.value.length > 0 && (
          <div class="scroll" tabIndex={0} role="group" aria-label="Table of indexes">
            <table>
              <thead><tr><th scope="col">Stream</th><th scope="col">Index</th><th scope="col">Described</th><th scope="col">Missing</th><th scope="col">Model</th><th scope="col">Its newest revision</th></tr></thead>
              <tbody>
                {found.value.map(({ index, revision }) => (
                  <tr key={index.id}>
                    <th scope="row"><a href={to(['streams', index.rtstreamId])}>{streamName(index.rtstreamId)}</a></th>
                    <td>{index.name}</td>
                    <td class="number">{String(index.stats?.described ?? '–')}</td>
                    <td class="number">{String(index.stats?.missing ?? '–')}</td>
                    <td>{index.model}</td>
                    <td>{revision || 'nothing described yet'}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      <Endpoints />
      <Keys />
    </Page>
  );
}
