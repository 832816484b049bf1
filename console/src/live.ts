// The one watch that feeds the console. It says when it is lost, and goes on from its cursor when it is back.
import { signal } from '@preact/signals';
import { Code, ConnectError } from '@connectrpc/connect';
import { codeOf, collections, key, signOut, watching } from './api';
import type { WatchResponse } from './gen/sightline/v1/watch_pb';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** After so long a silence one small call finds out whether the server is still there. */
const SILENCE_MS = 20_000;
const ANSWER_MS = 5_000;
/** A tab that nobody sees gives its connection back: a browser has few for one server. */
const HIDDEN_MS = 30_000;

export type Connection = 'connecting' | 'live' | 'lost';
export const connection = signal<Connection>('connecting');

type Listener = (message: WatchResponse['message']) => void;
const listeners = new Set<Listener>();
const resumed = new Set<() => void>();

/** Calls back with everything that happens from now on. */
export function onMessage(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls back when watching begins, and when it began again: what is shown may be old. */
export function onResume(listener: () => void): () => void {
  resumed.add(listener);
  return () => resumed.delete(listener);
}

let cursor = '';
let current: AbortController | undefined;
let wake: (() => void) | undefined;
let generation = 0;

/** Watches with this tab's key until `stopWatching`. */
export function startWatching(): void {
  generation += 1;
  cursor = '';
  connection.value = 'connecting';
  void keepWatching(generation);
}

export function stopWatching(): void {
  generation += 1;
  current?.abort();
  wake?.();
}

async function keepWatching(mine: number): Promise<void> {
  let pause = FIRST_PAUSE_MS;
  while (mine === generation && key.value !== '') {
    if (document.hidden) await hiddenNoMore();
    let lagged = false;
    try {
      lagged = await watchOnce(mine, () => {
        pause = FIRST_PAUSE_MS;
      });
    } catch (error) {
      const code = codeOf(error);
      if (code === Code.InvalidArgument) cursor = '';
      if (code === Code.Unauthenticated && mine === generation) signOut('This key is not taken any more. Sign in with another one.');
    }
    if (mine !== generation) return;
    if (!document.hidden && !lagged) connection.value = 'lost';
    await new Promise<void>((resolve) => {
      wake = resolve;
      setTimeout(resolve, pause * (0.75 + Math.random() / 2));
    });
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

/** Whether it ended because this page was too slow: what was dropped comes again after the cursor. */
async function watchOnce(mine: number, ready: () => void): Promise<boolean> {
  const abort = new AbortController();
  current = abort;
  let heard = Date.now();
  const pulse = setInterval(() => {
    if (Date.now() - heard < SILENCE_MS) return;
    heard = Date.now();
    const call = collections.listCollections({ pageSize: 1 }, { timeoutMs: ANSWER_MS });
    call.catch((error: unknown) => {
      if (ConnectError.from(error).code !== Code.Unauthenticated) abort.abort();
    });
  }, SILENCE_MS / 4);
  try {
    // Without a deadline: it lasts as long as the page.
    for await (const response of watching.watch({ cursor }, { signal: abort.signal, timeoutMs: 0 })) {
      if (mine !== generation) return false;
      heard = Date.now();
      cursor = response.cursor;
      const { message } = response;
      if (message.case === 'ready') {
        ready();
        connection.value = 'live';
        for (const listener of resumed) listener();
      } else if (message.case === 'lagged') {
        return true;
      } else {
        for (const listener of listeners) listener(message);
      }
    }
    return false;
  } finally {
    clearInterval(pulse);
    abort.abort();
  }
}

function hiddenNoMore(): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(), { once: true });
  });
}

let hiding: ReturnType<typeof setTimeout> | undefined;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => current?.abort(), HIDDEN_MS);
});
addEventListener('offline', () => current?.abort());
addEventListener('online', () => wake?.());
