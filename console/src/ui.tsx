// The parts that pages are made of.
import type { ComponentChildren, RefObject } from 'preact';
import { useCallback, useEffect, useId, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { recordings, words } from './api';
import { RtStream_State } from './gen/sightline/v1/rtstream_pb';
import { here } from './player';
import { stamp } from './time';

/** The time, every second, for words such as "12 s ago". */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

/** A page: its title, what can be done on it, and its content. Coming to it moves the focus to its title. */
export function Page({ title, actions, children }: { title: string; actions?: ComponentChildren; children: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} – Sightline`;
  }, [title]);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, []);
  return (
    <>
      <header class="title">
        <h1 ref={heading} tabIndex={-1}>{title}</h1>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

/** There is nothing, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="strong">{title}</p>
      {children}
    </div>
  );
}

export function Failure({ text, retry }: { text: string; retry?: () => void }) {
  if (text === '') return null;
  return (
    <div class="failure" role="alert">
      <p>{text}</p>
      {retry && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

/** A labelled field, with a hint that screen readers read with it. */
export function Field({ label, hint, children }: { label: string; hint?: string; children: (props: { id: string; 'aria-describedby'?: string }) => ComponentChildren }) {
  const id = useId();
  const props = hint ? { id, 'aria-describedby': `${id}-hint` } : { id };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(props)}
      {hint && <p id={`${id}-hint`} class="hint">{hint}</p>}
    </div>
  );
}

/** Something that is read, and how that goes. */
export interface Loaded<Value> {
  value: Value | undefined;
  failure: string;
  reload: () => void;
}

/** Reads when the page is shown and whenever `from` changes. What was read stays while it is read again. */
export function useLoad<Value>(load: () => Promise<Value>, from: unknown[]): Loaded<Value> {
  const [state, set] = useState<{ value: Value | undefined; failure: string }>({ value: undefined, failure: '' });
  const latest = useRef(0);
  const reload = useCallback(() => {
    const mine = ++latest.current;
    load().then(
      (value) => mine === latest.current && set({ value, failure: '' }),
      (error: unknown) => mine === latest.current && set((before) => ({ ...before, failure: words(error) })),
    );
  }, from);
  useEffect(() => {
    reload();
    return () => {
      latest.current += 1;
    };
  }, [reload]);
  return { ...state, reload };
}

/** Runs what a form or a button asks for: once at a time, and what goes wrong is said. */
export function useAction(): { busy: boolean; failure: string; run: (work: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState('');
  const run = (work: () => Promise<void>): void => {
    if (busy) return;
    setBusy(true);
    setFailure('');
    work()
      .catch((error: unknown) => setFailure(words(error)))
      .finally(() => setBusy(false));
  };
  return { busy, failure, run };
}

const STATES: Record<RtStream_State, [name: string, kind: string]> = {
  [RtStream_State.UNSPECIFIED]: ['unknown', 'quiet'],
  [RtStream_State.CONNECTING]: ['connecting', 'busy'],
  [RtStream_State.ACTIVE]: ['active', 'good'],
  [RtStream_State.RECONNECTING]: ['reconnecting', 'warn'],
  [RtStream_State.STOPPED]: ['stopped', 'quiet'],
  [RtStream_State.FAILED]: ['failed', 'bad'],
  [RtStream_State.ENDED]: ['ended', 'quiet'],
};

export function stateName(state: RtStream_State): string {
  return STATES[state]?.[0] ?? 'unknown';
}

export function StateBadge({ state }: { state: RtStream_State }) {
  const [name, kind] = STATES[state] ?? ['unknown', 'quiet'];
  return <span class={`badge ${kind}`}>{name}</span>;
}

export function isRunning(state: RtStream_State): boolean {
  return [RtStream_State.CONNECTING, RtStream_State.ACTIVE, RtStream_State.RECONNECTING].includes(state);
}

/** A score or probability, 0 to 1, as a bar and a number. */
export function Score({ value }: { value: number }) {
  return (
    <span class="score">
      <meter min={0} max={1} value={value} aria-hidden="true" />
      {value.toFixed(2)}
    </span>
  );
}

/** Does something once an element has come into view, and again whenever `from` has changed. */
export function useInView(place: RefObject<Element | null>, act: () => (() => void) | undefined, from: unknown[]): void {
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    let end: (() => void) | undefined;
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      end = act();
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      end?.();
    };
  }, from);
}

const pictures = new Map<string, Promise<string>>();
/** Addresses of pictures that are remembered; then all are asked for anew. */
const PICTURES = 500;

function picture(rtstreamId: string, atMs: number): Promise<string> {
  const name = `${rtstreamId} ${atMs}`;
  let found = pictures.get(name);
  if (!found) {
    if (pictures.size >= PICTURES) pictures.clear();
    found = recordings
      .generateStream({ rtstreamId, startTime: stamp(atMs), endTime: stamp(atMs + 1000) })
      .then((links) => here(links.thumbnailUrl));
    pictures.set(name, found);
    found.catch(() => pictures.delete(name));
  }
  return found;
}

/** What was just captured is recorded some seconds later: a picture that is not there yet is asked for so often again. */
const TRIES = 4;
const PAUSE_MS = 4000;

/** The recorded picture of a moment; a blank where there is none. Asked for when it comes into view. */
export function Thumbnail({ rtstreamId, atMs }: { rtstreamId: string; atMs: number }) {
  const place = useRef<HTMLDivElement>(null);
  const [address, setAddress] = useState('');
  const [tries, setTries] = useState(0);
  const again = (): void => {
    setAddress('');
    if (tries + 1 < TRIES) setTimeout(setTries, PAUSE_MS, tries + 1);
  };
  useInView(place, () => {
    if (atMs === 0) return undefined;
    let gone = false;
    picture(rtstreamId, atMs).then(
      (found) => !gone && setAddress(found),
      () => {},
    );
    return () => {
      gone = true;
    };
  }, [rtstreamId, atMs, tries]);
  return (
    <div class="thumbnail" ref={place}>
      {address !== '' && <img src={address} alt="" onError={again} />}
    </div>
  );
}
