// The keys that may call, for operators.
import { useState } from 'preact/hooks';
import { Code } from '@connectrpc/connect';
import { all, codeOf, keys, PAGE } from '../api';
import type { Key } from '../gen/sightline/v1/key_pb';
import { when } from '../time';
import { Failure, Field, useAction, useLoad } from '../ui';

/** Nothing where the caller is no operator. */
async function list(): Promise<Key[] | undefined> {
  try {
    return await all(async (pageToken) => {
      const answer = await keys.listKeys({ pageSize: PAGE, pageToken });
      return { items: answer.keys, nextPageToken: answer.nextPageToken };
    });
  } catch (error) {
    if ([Code.PermissionDenied, Code.Unimplemented].includes(codeOf(error))) return undefined;
    throw error;
  }
}

function Row({ item, changed }: { item: Key; changed: () => void }) {
  const { busy, failure, run } = useAction();
  const revoke = (): void => {
    if (!confirm(`Revoke the key ${item.name}? Whoever uses it is cut off at once.`)) return;
    run(async () => {
      await keys.revokeKey({ keyId: item.id });
      changed();
    });
  };
  return (
    <tr>
      <th scope="row">{item.name}</th>
      <td>{item.tenant}</td>
      <td>{item.operator ? 'yes' : 'no'}</td>
      <td>{when(item.createTime)}</td>
      <td>
        <button type="button" class="danger" disabled={busy} onClick={revoke} aria-label={`Revoke ${item.name}`}>Revoke</button>
        <Failure text={failure} />
      </td>
    </tr>
  );
}

function Create({ created }: { created: () => void }) {
  const [name, setName] = useState('');
  const [tenant, setTenant] = useState('default');
  const [operator, setOperator] = useState(false);
  const [secret, setSecret] = useState('');
  const { busy, failure, run } = useAction();
  const submit = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const answer = await keys.createKey({ name: name.trim(), tenant: tenant.trim(), operator });
      setSecret(answer.secret);
      setName('');
      created();
    });
  };
  return (
    <details>
      <summary>Create a key</summary>
      <form class="form" onSubmit={submit}>
        <Field label="Key name">
          {(props) => <input {...props} type="text" required maxLength={200} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label="Tenant" hint="Whose streams and alerts it sees. Empty: a new tenant of its own.">
          {(props) => <input {...props} type="text" maxLength={64} value={tenant} onInput={(event) => setTenant(event.currentTarget.value)} />}
        </Field>
        <label class="check">
          <input type="checkbox" checked={operator} onChange={(event) => setOperator(event.currentTarget.checked)} />
          It may create and revoke keys
        </label>
        <Failure text={failure} />
        <button type="submit" disabled={busy}>Create the key</button>
        {secret !== '' && <p role="status">Copy it now, it is shown only once: <code class="secret">{secret}</code></p>}
      </form>
    </details>
  );
}

export function Keys() {
  const found = useLoad(list, []);
  if (!found.value) return <Failure text={found.failure} retry={found.reload} />;
  return (
    <section class="card" aria-label="Keys">
      <h2>Keys</h2>
      {found.value.length === 0 && <p>Only the keys that the server was started with are there.</p>}
      {found.value.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Table of keys">
          <table>
            <thead><tr><th scope="col">Name</th><th scope="col">Tenant</th><th scope="col">Operator</th><th scope="col">Created</th><th scope="col">Change</th></tr></thead>
            <tbody>{found.value.map((item) => <Row key={item.id} item={item} changed={found.reload} />)}</tbody>
          </table>
        </div>
      )}
      <Create created={found.reload} />
    </section>
  );
}
