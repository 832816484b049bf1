// What is asked of a stream's pictures: its indexes, and adding one.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { indexes, requestId } from '../api';
import { type Index, Index_Kind, Index_State } from '../gen/sightline/v1/index_pb';
import { indexesOf } from '../store';
import { Failure, Field, useAction, useLoad } from '../ui';

/** So often the counts are read again. */
const COUNTS_MS = 15_000;

function Row({ index, changed }: { index: Index; changed: () => void }) {
  const { busy, failure, run } = useAction();
  const running = index.state === Index_State.RUNNING;
  const press = (): void => run(async () => {
    await (running ? indexes.stopIndex({ indexId: index.id }) : indexes.startIndex({ indexId: index.id }));
    changed();
  });
  return (
    <tr>
      <th scope="row">{index.name}</th>
      <td>{index.kind === Index_Kind.AUDIO ? 'speech' : 'pictures'}</td>
      <td class="wide">{index.prompt}</td>
      <td><span class={`badge ${running ? 'good' : 'quiet'}`}>{running ? 'running' : 'stopped'}</span></td>
      <td class="number">{String(index.stats?.described ?? '–')}</td>
      <td class="number">{String(index.stats?.missing ?? '–')}</td>
      <td>
        <button type="button" disabled={busy} onClick={press} aria-label={`${running ? 'Stop' : 'Start'} ${index.name}`}>{running ? 'Stop' : 'Start'}</button>
        <Failure text={failure} />
      </td>
    </tr>
  );
}

function Add({ rtstreamId, added }: { rtstreamId: string; added: () => void }) {
  const [name, setName] = useState('');
  const [prompt, setPrompt] = useState('');
  const [speech, setSpeech] = useState(false);
  const { busy, failure, run } = useAction();
  const id = useMemo(requestId, [name, prompt, speech]);
  const submit = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const wanted = { rtstreamId, name: name.trim(), prompt: prompt.trim(), requestId: id };
      await (speech ? indexes.createAudioIndex(wanted) : indexes.createVisualIndex(wanted));
      setName('');
      setPrompt('');
      added();
    });
  };
  return (
    <details>
      <summary>Add an index</summary>
      <form class="form" onSubmit={submit}>
        <Field label="Of">
          {(props) => (
            <select {...props} value={speech ? 'speech' : 'pictures'} onChange={(event) => setSpeech(event.currentTarget.value === 'speech')}>
              <option value="pictures">pictures: every 5 seconds are described</option>
              <option value="speech">speech: every 10 words of the transcript</option>
            </select>
          )}
        </Field>
        <Field label="Index name">
          {(props) => <input {...props} type="text" required maxLength={200} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label="Prompt" hint={speech ? 'What a model is asked of the words; may be empty.' : 'The model is asked this of every window from now on.'}>
          {(props) => <textarea {...props} rows={2} required={!speech} maxLength={4000} value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />}
        </Field>
        <Failure text={failure} />
        <button type="submit" disabled={busy}>Add the index</button>
      </form>
    </details>
  );
}

/** The indexes of a stream with their counts, which lists do not have. */
async function counted(rtstreamId: string): Promise<Index[]> {
  const list = await indexesOf(rtstreamId, true);
  return Promise.all(list.map(async (index) => (await indexes.getIndex({ indexId: index.id })).index ?? index));
}

export function Indexes({ rtstreamId }: { rtstreamId: string }) {
  const list = useLoad(() => counted(rtstreamId), [rtstreamId]);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || list.reload(), COUNTS_MS);
    return () => clearInterval(timer);
  }, [list.reload]);
  return (
    <section class="card" aria-label="Indexes">
      <h2>Indexes</h2>
      <Failure text={list.failure} retry={list.reload} />
      {list.value && list.value.length === 0 && <p>Nothing is asked of this stream's pictures yet. Add an index to have them described.</p>}
      {list.value && list.value.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Table of indexes">
          <table>
            <thead><tr><th scope="col">Name</th><th scope="col">Of</th><th scope="col">Prompt</th><th scope="col">State</th><th scope="col">Described</th><th scope="col">Missing</th><th scope="col">Change</th></tr></thead>
            <tbody>{list.value.map((index) => <Row key={index.id} index={index} changed={list.reload} />)}</tbody>
          </table>
        </div>
      )}
      <Add rtstreamId={rtstreamId} added={list.reload} />
    </section>
  );
}
