// An alert tried on what was: when it would have fired in the newest hour, and what nearly did. Where the server can't do that, the
// stored captions nearest in meaning.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { codeOf, events, indexes, recordings, words } from './api';
import {
  type BacktestResponse_Judged as Judged,
  type BacktestResponse_Progress as Progress,
  type BacktestResponse_Summary as Summary,
  type Firing,
  Firing_Basis as Basis,
  type PolicySchema,
} from './gen/sightline/v1/event_pb';
import type { Index } from './gen/sightline/v1/index_pb';
import { Hits } from './hits';
import { Player } from './player';
import { iso, ms, stamp, when } from './time';
import { Failure, Score, Thumbnail, useAction, useLoad } from './ui';

/** So much of what is stored is judged. */
const BACK_MS = 3_600_000;
/** Windows near the threshold that are listed. */
const NEAR = 100;
/** Captions that a search shows. */
const TRIED = 8;

/** What is tried. */
export interface Trial {
  prompt: string;
  index: Index;
  /** Unset: the server's. */
  threshold: number | undefined;
  policy: MessageInitShape<typeof PolicySchema>;
}

/** The newest stretch of an index of which something is stored; none if nothing is. */
async function newest({ id, rtstreamId, createTime }: Index): Promise<{ fromMs: number; toMs: number } | undefined> {
  const [{ scenes }, { stretches }] = await Promise.all([
    indexes.listScenes({ indexId: id, pageSize: 1 }),
    // A stream that is not recorded has no recording.
    recordings.getRecording({ rtstreamId }).catch(() => ({ stretches: [] })),
  ]);
  const toMs = Math.max(ms(scenes[0]?.endTime), ms(stretches.at(-1)?.endTime));
  if (toMs === 0) return undefined;
  // Before, nothing can be stored: it would only be counted as missing.
  const firstMs = Math.min(ms(createTime), ms(stretches[0]?.startTime ?? createTime));
  return { fromMs: firstMs < toMs ? Math.max(toMs - BACK_MS, firstMs) : toMs - BACK_MS, toMs };
}

function Similar({ because, trial: { prompt, index } }: { because: string; trial: Trial }) {
  const found = useLoad(() => indexes.search({ query: prompt, rtstreamId: index.rtstreamId, indexId: index.id, limit: TRIED }), []);
  return (
    <>
      <p class="detail">{because}</p>
      <p class="hint">
        These are the stored captions nearest in meaning to “{prompt}”, by similarity. It is not the judgement of the model: that one looks at the pictures
        of each new window once the alert is on, and its probability is another number than these scores.
      </p>
      <Failure text={found.failure} retry={found.reload} />
      {!found.value && found.failure === '' && <p class="quiet" role="status">Searching …</p>}
      {found.value && found.value.hits.length === 0 && <p>Nothing is stored for this index yet. The alert can be created all the same.</p>}
      {found.value && found.value.hits.length > 0 && <Hits hits={found.value.hits} />}
    </>
  );
}

/** What came of a backtest so far. */
interface Found {
  progress?: Progress;
  firings: Firing[];
  judged: Judged[];
  summary?: Summary;
  /** Nothing is stored that could be judged. */
  nothing?: boolean;
  stopped?: boolean;
  failure?: string;
  /** Why captions are searched instead. */
  instead?: string;
}

const INSTEAD = [Code.Unimplemented, Code.FailedPrecondition, Code.Unavailable];

/** Runs a backtest until it is done, stopped, or no longer shown. */
function useBacktest({ prompt, index, threshold, policy }: Trial): { found: Found; stop: () => void } {
  const [found, set] = useState<Found>({ firings: [], judged: [] });
  const running = useRef<AbortController | undefined>(undefined);
  useEffect(() => {
    const abort = new AbortController();
    running.current = abort;
    const { signal } = abort;
    const judge = async (): Promise<void> => {
      const stretch = await newest(index);
      if (signal.aborted) return;
      if (!stretch) return set((before) => ({ ...before, nothing: true }));
      const asked = { prompt, indexId: index.id, startTime: stamp(stretch.fromMs), endTime: stamp(stretch.toMs), policy };
      const request = threshold === undefined ? asked : { ...asked, threshold };
      // Without a deadline: it takes as long as the model does.
      for await (const { message } of events.backtest(request, { signal, timeoutMs: 0 })) {
        if (message.case === 'progress') set((before) => ({ ...before, progress: message.value }));
        else if (message.case === 'firing') set((before) => ({ ...before, firings: [message.value, ...before.firings] }));
        else if (message.case === 'judged') set((before) => ({ ...before, judged: [message.value, ...before.judged] }));
        else if (message.case === 'summary') set((before) => ({ ...before, summary: message.value }));
      }
    };
    judge().catch((error: unknown) => {
      if (signal.aborted) return;
      set((before) => ({ ...before, ...(INSTEAD.includes(codeOf(error)) ? { instead: words(error) } : { failure: words(error) }) }));
    });
    return () => abort.abort();
  }, []);
  const stop = (): void => {
    running.current?.abort();
    set((before) => ({ ...before, stopped: true }));
  };
  return { found, stop };
}

function counted(count: number | bigint, one: string, more: string): string {
  return `${count} ${Number(count) === 1 ? one : more}`;
}

/** By what it was judged. */
function Bases({ found: { summary, judged } }: { found: Found }) {
  const frames = summary ? Number(summary.fromFrames) : judged.filter(({ basis }) => basis === Basis.FRAMES).length;
  const scenes = summary ? Number(summary.fromScenes) : judged.filter(({ basis }) => basis === Basis.SIMILARITY).length;
  return (
    <>
      {summary && (
        <p class="bases">
          {frames > 0 && <>{counted(frames, 'window was', 'windows were')} judged by the recorded pictures, as new ones are. </>}
          {scenes > 0 && <>{counted(scenes, 'window was', 'windows were')} judged by the caption. </>}
          {summary.missing > 0n && <>Nothing is stored of {counted(summary.missing, 'window', 'windows')}.</>}
        </p>
      )}
      {scenes > 0 && (
        <p class="detail">
          Where nothing is recorded, the similarity of the stored caption is all there is. It is not calibrated: the same threshold means something else
          than once the alert is on.
        </p>
      )}
    </>
  );
}

function State({ found, stop }: { found: Found; stop: () => void }) {
  const { progress, summary } = found;
  const ended = summary !== undefined || found.stopped || found.failure !== undefined || found.instead !== undefined || found.nothing;
  if (found.nothing) return <p role="status">Nothing is stored for this index yet. The alert can be created all the same.</p>;
  const judged = Number(progress?.judged ?? 0);
  const windows = Number(progress?.windows ?? 0);
  return (
    <>
      <div class="actions">
        <p role="status">
          {summary && <strong>{summary.firings === 0n ? 'It would not have fired.' : `It would have fired ${counted(summary.firings, 'time', 'times')}.`}</strong>}
          {found.stopped && `Stopped after ${counted(judged, 'window', 'windows')} of ${windows}.`}
          {!ended && 'Looking at what is stored …'}
        </p>
        {!ended && <button type="button" onClick={stop}>Stop</button>}
      </div>
      {!ended && <progress aria-label="Windows judged" {...(progress ? { value: judged, max: Math.max(windows, 1) } : {})} />}
      {!ended && progress && <p class="quiet">{judged} of {counted(windows, 'window', 'windows')}</p>}
    </>
  );
}

function Would({ firing, playing, play }: { firing: Firing; playing: boolean; play: () => void }) {
  const shown = when(firing.startTime);
  return (
    <li class="card hit" {...(playing ? { 'aria-current': 'true' as const } : {})}>
      <Thumbnail rtstreamId={firing.rtstreamId} atMs={firing.streamUrl === '' ? 0 : (ms(firing.startTime) + ms(firing.endTime)) / 2} />
      <div>
        <p class="head"><Score value={firing.confidence} /> <time dateTime={iso(firing.startTime)}>{shown}</time> to <time dateTime={iso(firing.endTime)}>{when(firing.endTime)}</time></p>
        <p class="caption">{firing.explanation}</p>
        {firing.streamUrl === ''
          ? <p class="hint">Not recorded.</p>
          : <button type="button" onClick={play} aria-label={`Watch ${shown}`}>Watch</button>}
      </div>
    </li>
  );
}

function Near({ judged, busy, play }: { judged: Judged; busy: boolean; play: () => void }) {
  const shown = when(judged.startTime);
  return (
    <li>
      {judged.playerUrl === ''
        ? <span class="moment"><time dateTime={iso(judged.startTime)}>{shown}</time></span>
        : <button type="button" class="moment" disabled={busy} aria-label={`Watch ${shown}`} onClick={play}><time dateTime={iso(judged.startTime)}>{shown}</time></button>}{' '}
      <Score value={judged.probability} />{' '}
      <strong>{judged.reason === '' ? 'part of a firing' : judged.reason}</strong>{' '}
      {judged.basis === Basis.SIMILARITY && <span class="badge warn">by similarity</span>}{' '}
      {judged.text}
    </li>
  );
}

export function Backtest({ trial }: { trial: Trial }) {
  const { found, stop } = useBacktest(trial);
  const [chosen, choose] = useState<{ name: string; url: string; atMs: number }>();
  const { busy, failure, run } = useAction();
  const place = useRef<HTMLElement>(null);
  const stage = useRef<HTMLDivElement>(null);
  useEffect(() => place.current?.scrollIntoView({ block: 'start' }), []);
  useEffect(() => {
    if (chosen) stage.current?.scrollIntoView({ block: 'nearest' });
  }, [chosen?.name]);
  const watch = ({ startTime, endTime }: Judged): void => {
    if (!startTime || !endTime) return;
    run(async () => {
      const links = await recordings.generateStream({ rtstreamId: trial.index.rtstreamId, startTime, endTime });
      choose({ name: `window ${ms(startTime)}`, url: links.streamUrl, atMs: ms(startTime) });
    });
  };
  const near = found.judged.slice(0, NEAR);
  return (
    <section class="card backtest" ref={place} aria-label="Tried on what is stored">
      <h2>Tried on what is stored</h2>
      <State found={found} stop={stop} />
      <Failure text={found.failure ?? failure} />
      <Bases found={found} />
      {chosen && (
        <div class="stage found" ref={stage}>
          <Player url={chosen.url} atMs={chosen.atMs} label={`Tried, ${when(stamp(chosen.atMs))}`} />
        </div>
      )}
      {found.firings.length > 0 && (
        <ol class="hits" aria-label="When it would have fired, newest first">
          {found.firings.map((firing) => {
            const name = `firing ${ms(firing.startTime)}`;
            return (
              <Would key={name} firing={firing} playing={chosen?.name === name}
                play={() => choose({ name, url: firing.streamUrl, atMs: ms(firing.startTime) })} />
            );
          })}
        </ol>
      )}
      {near.length > 0 && (
        <details open={found.firings.length === 0}>
          <summary>{counted(found.judged.length, 'window', 'windows')} near the threshold or above it</summary>
          <ol class="lines near" aria-label="Windows near the threshold, newest first">
            {near.map((judged) => <Near key={ms(judged.startTime)} judged={judged} busy={busy} play={() => watch(judged)} />)}
          </ol>
        </details>
      )}
      {found.summary && found.firings.length === 0 && near.length === 0 && <p>Nothing came near the threshold. Try other words, or a lower one.</p>}
      {found.instead !== undefined && <Similar because={found.instead} trial={trial} />}
    </section>
  );
}
