// Signing in with an API key.
import { useEffect, useRef, useState } from 'preact/hooks';
import { Code } from '@connectrpc/connect';
import { codeOf, signedOutBecause, signIn, tryKey, words } from '../api';
import { Failure, Field } from '../ui';

export function SignInPage() {
  const input = useRef<HTMLInputElement>(null);
  const [secret, setSecret] = useState('');
  const [remember, setRemember] = useState(false);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState(signedOutBecause.value);
  useEffect(() => {
    document.title = 'Sign in – Sightline';
    input.current?.focus();
  }, []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const tried = secret.trim();
    if (tried === '' || busy) return;
    setBusy(true);
    setFailure('');
    try {
      await tryKey(tried);
      signIn(tried, remember);
    } catch (error) {
      const wrong = codeOf(error) === Code.Unauthenticated;
      setFailure(wrong ? `This key is not taken. ${words(error)}` : words(error));
      setBusy(false);
      input.current?.focus();
    }
  };
  return (
    <main class="alone">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <h1><img src="assets/icon.svg" alt="" width="32" height="32" /> Sightline</h1>
        <p>Live video in; captions, transcripts, search and alerts out.</p>
        <Field label="API key" hint="The one that the server printed when it started, or that an operator gave you.">
          {(props) => (
            <input {...props} ref={input} type="password" autocomplete="current-password" spellcheck={false} required
              value={secret} onInput={(event) => setSecret(event.currentTarget.value)} />
          )}
        </Field>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          Stay signed in on this device
        </label>
        <Failure text={failure} />
        <button type="submit" class="main" disabled={busy}>{busy ? 'Signing in …' : 'Sign in'}</button>
      </form>
    </main>
  );
}
