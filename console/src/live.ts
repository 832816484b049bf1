// The one watch that feeds the console, and small ones of pages that want more. They go on from their cursors when they were lost;
// the one says so.
import { signal } from '@preact/signals';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { codeOf, collections, key, signOut, watching } from './api';
import type { WatchRequestSchema, WatchResponse } from './gen/sightline/v1/watch_pb';

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

/** What is wanted, and what is done with it. */
interface Wanted {
  filter: MessageInitShape<typeof WatchRequestSchema>;
  /** It stands: whatever happens from now on arrives. */
  ready: () => void;
  message: Listener;
  lost?: () => void;
}

/** A watch that is kept up: what ends its connection, and what ends its pause. */
interface Kept {
  abort?: AbortController;
  wake?: () => void;
}
const kept = new Set<Kept>();

/** Keeps a watch up with this tab's key until it is ended: after a loss it goes on from its cursor. */
export function keepWatching(wanted: Wanted): () => void {
  const watch: Kept = {};
  let ended = false;
  let cursor = '';
  kept.add(watch);

  /** Whether it ended because this page was too slow: what was dropped comes again after the cursor. */
  const once = async (ready: () => void): Promise<boolean> => {
    const abort = new AbortController();
    watch.abort = abort;
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
      for await (const response of watching.watch({ ...wanted.filter, cursor }, { signal: abort.signal, timeoutMs: 0 })) {
        if (ended) return false;
        heard = Date.now();
        cursor = response.cursor;
        const { message } = response;
        if (message.case === 'ready') ready();
        else if (message.case === 'lagged') return true;
        else wanted.message(message);
      }
      return false;
    } finally {
      clearInterval(pulse);
      abort.abort();
    }
  };

  const keep = async (): Promise<void> => {
    let pause = FIRST_PAUSE_MS;
    while (!ended && key.value !== '') {
      if (document.hidden) await hiddenNoMore();
      let lagged = false;
      try {
        lagged = await once(() => {
          pause = FIRST_PAUSE_MS;
          wanted.ready();
        });
      } catch (error) {
        const code = codeOf(error);
        if (code === Code.InvalidArgument) cursor = '';
        if (code === Code.Unauthenticated && !ended) signOut('This key is not taken any more. Sign in with another one.');
      }
      if (ended) return;
      if (!document.hidden && !lagged) wanted.lost?.();
      await new Promise<void>((resolve) => {
        watch.wake = resolve;
        setTimeout(resolve, pause * (0.75 + Math.random() / 2));
      });
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  };

  void keep();
  return () => {
    ended = true;
    kept.delete(watch);
    watch.abort?.abort();
    watch.wake?.();
  };
}

let end: (() => void) | undefined;

/** Watches everything but verdicts, which only pages that show them ask for, until `stopWatching`. */
export function startWatching(): void {
  stopWatching();
  connection.value = 'connecting';
  end = keepWatching({
    filter: {},
    ready: () => {
      connection.value = 'live';
      for (const listener of resumed) listener();
    },
    message: (message) => {
      for (const listener of listeners) listener(message);
    },
    lost: () => {
      connection.value = 'lost';
    },
  });
}

export function stopWatching(): void {
  end?.();
  end = undefined;
}

function hiddenNoMore(): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(), { once: true });
  });
}

function abortAll(): void {
  for (const { abort } of kept) abort?.abort();
}

let hiding: ReturnType<typeof setTimeout> | undefined;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(abortAll, HIDDEN_MS);
});
addEventListener('offline', abortAll);
addEventListener('online', () => {
  for (const { wake } of kept) wake?.();
});
