// The public API over gRPC-web: one client per service, the key, and errors in words.
import { signal } from '@preact/signals';
import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';
import { CollectionService } from './gen/sightline/v1/collection_pb';
import { EndpointService } from './gen/sightline/v1/endpoint_pb';
import { EventService } from './gen/sightline/v1/event_pb';
import { IndexService } from './gen/sightline/v1/index_pb';
import { KeyService } from './gen/sightline/v1/key_pb';
import { RecordingService } from './gen/sightline/v1/recording_pb';
import { RtStreamService } from './gen/sightline/v1/rtstream_pb';
import { SystemService } from './gen/sightline/v1/system_pb';
import { WatchService } from './gen/sightline/v1/watch_pb';

const KEPT = 'sightline-key';
/** A page of a list; also the most that one list shows. */
export const PAGE = 1000;
const DEADLINE_MS = 30_000;

/** The key that is sent with each call; empty: nobody is signed in. */
export const key = signal(sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT) ?? '');
/** Why the last key was given up, in words. */
export const signedOutBecause = signal('');

/** Keeps the key for this tab, or for this browser. It is never part of an address. */
export function signIn(secret: string, remember: boolean): void {
  (remember ? localStorage : sessionStorage).setItem(KEPT, secret);
  signedOutBecause.value = '';
  key.value = secret;
}

export function signOut(because = ''): void {
  sessionStorage.removeItem(KEPT);
  localStorage.removeItem(KEPT);
  signedOutBecause.value = because;
  key.value = '';
}

/** Sends the key; a key that is not taken any more ends the session. */
const authorize: Interceptor = (next) => async (request) => {
  const sent = key.value;
  if (!request.header.has('authorization')) {
    request.header.set('authorization', `Bearer ${sent}`);
    try {
      return await next(request);
    } catch (error) {
      if (ConnectError.from(error).code === Code.Unauthenticated && sent !== '' && sent === key.value) {
        signOut('This key is not taken any more. Sign in with another one.');
      }
      throw error;
    }
  }
  return next(request);
};

const transport = createGrpcWebTransport({
  baseUrl: new URL('.', document.baseURI).href.replace(/\/$/, ''),
  interceptors: [authorize],
  defaultTimeoutMs: DEADLINE_MS,
});

export const streams: Client<typeof RtStreamService> = createClient(RtStreamService, transport);
export const indexes: Client<typeof IndexService> = createClient(IndexService, transport);
export const events: Client<typeof EventService> = createClient(EventService, transport);
export const endpoints: Client<typeof EndpointService> = createClient(EndpointService, transport);
export const recordings: Client<typeof RecordingService> = createClient(RecordingService, transport);
export const collections: Client<typeof CollectionService> = createClient(CollectionService, transport);
export const keys: Client<typeof KeyService> = createClient(KeyService, transport);
export const system: Client<typeof SystemService> = createClient(SystemService, transport);
export const watching: Client<typeof WatchService> = createClient(WatchService, transport);

/** Whether the server takes this key; throws what it says otherwise. */
export async function tryKey(secret: string): Promise<void> {
  await collections.listCollections({ pageSize: 1 }, { headers: { authorization: `Bearer ${secret}` } });
}

/** An id that makes a call safe to repeat. Pages over plain HTTP have no `randomUUID`. */
export function requestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** All pages of a list, up to `most` items. */
export async function all<Item>(
  page: (pageToken: string) => Promise<{ items: Item[]; nextPageToken: string }>,
  most = PAGE,
): Promise<Item[]> {
  const found: Item[] = [];
  let token = '';
  do {
    const { items, nextPageToken } = await page(token);
    found.push(...items);
    token = nextPageToken;
  } while (token !== '' && found.length < most);
  return found;
}

/** Runs what it is given, at most `width` at a time, in the order in which it was given. */
export function lanes(width: number): <Result>(work: () => Promise<Result>) => Promise<Result> {
  let free = width;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else free -= 1;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    }
  };
}

export function codeOf(error: unknown): Code {
  return ConnectError.from(error).code;
}

/** An error as a sentence for people. */
export function words(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.Unimplemented) return 'This server is older than the console and cannot do this yet.';
  if (code === Code.Unknown || (code === Code.Unavailable && rawMessage === '') || code === Code.DeadlineExceeded) {
    return 'The server does not answer. Check the connection; it is tried again.';
  }
  return sentence(rawMessage);
}

function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === '') return 'It did not work, and the server did not say why.';
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
