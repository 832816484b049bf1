// The frame of every page: who is signed in, where to go, whether the connection stands, and what has just fired.
import { useEffect, useState } from 'preact/hooks';
import { key, signOut } from './api';
import { connection, startWatching, stopWatching } from './live';
import { route, to } from './route';
import { clear, firings, streamName } from './store';
import { AlertPage } from './pages/alert';
import { AlertsPage } from './pages/alerts';
import { ConnectPage } from './pages/connect';
import { NewAlertPage } from './pages/new_alert';
import { SearchPage } from './pages/search';
import { SignInPage } from './pages/sign_in';
import { StreamPage } from './pages/stream';
import { StreamsPage } from './pages/streams';
import { SystemPage } from './pages/system';
import { Empty, Page } from './ui';

const PLACES = [
  ['streams', 'Streams'],
  ['search', 'Search'],
  ['alerts', 'Alerts'],
  ['system', 'System'],
] as const;

/** How long a firing is shown over the page. */
const TOAST_MS = 12_000;

function Here() {
  const [first = 'streams', second] = route.value.path;
  if (first === 'streams' && second === undefined) return <StreamsPage />;
  if (first === 'streams' && second === 'new') return <ConnectPage />;
  if (first === 'streams' && second !== undefined) return <StreamPage key={second} id={second} />;
  if (first === 'search') return <SearchPage />;
  if (first === 'alerts' && second === undefined) return <AlertsPage />;
  if (first === 'alerts' && second === 'new') return <NewAlertPage />;
  if (first === 'alerts' && second !== undefined) return <AlertPage key={second} id={second} />;
  if (first === 'system') return <SystemPage />;
  return (
    <Page title="Nothing is here">
      <Empty title="This address leads nowhere."><p><a href={to(['streams'])}>Go to the streams</a></p></Empty>
    </Page>
  );
}

function Toast() {
  const [newest] = firings.value;
  const [hidden, hide] = useState('');
  useEffect(() => {
    if (!newest) return;
    const timer = setTimeout(() => hide(newest.id), TOAST_MS);
    return () => clearTimeout(timer);
  }, [newest?.id]);
  const [place, id] = route.value.path;
  const shown = newest !== undefined && newest.id !== hidden && !(place === 'alerts' && id === newest.alertId);
  return (
    <div class="toasts" role="status">
      {shown && (
        <p class="toast">
          <strong>{newest.label}</strong> on {streamName(newest.rtstreamId)}{' '}
          <a href={to(['alerts', newest.alertId])}>See it</a>{' '}
          <button type="button" class="plain" aria-label="Dismiss" onClick={() => hide(newest.id)}>×</button>
        </p>
      )}
    </div>
  );
}

function Connection() {
  const lost = connection.value === 'lost';
  return (
    <div class="connection" role="status">
      {lost && <p>The connection to the server is lost. Trying again; what was missed will follow.</p>}
    </div>
  );
}

function SignedIn() {
  useEffect(() => {
    startWatching();
    return () => {
      stopWatching();
      clear();
    };
  }, [key.value]);
  const [first = 'streams'] = route.value.path;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.querySelector<HTMLElement>('main h1')?.focus();
      }}>Skip to the content</a>
      <header class="bar">
        <a class="brand" href={to(['streams'])}><img src="assets/icon.svg" alt="" width="24" height="24" /> Sightline</a>
        <nav aria-label="Main">
          {PLACES.map(([path, name]) => (
            <a key={path} href={to([path])} {...(first === path ? { 'aria-current': 'page' as const } : {})}>{name}</a>
          ))}
        </nav>
        <span class={`lamp ${connection.value}`} title={connection.value === 'live' ? 'Live' : 'Not connected'} />
        <button type="button" class="plain" onClick={() => signOut()}>Sign out</button>
      </header>
      <Connection />
      <main id="main"><Here /></main>
      <Toast />
    </>
  );
}

export function App() {
  return key.value === '' ? <SignInPage /> : <SignedIn />;
}
