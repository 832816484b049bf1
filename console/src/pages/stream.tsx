// One stream as it goes on: its picture, what is described, said and found, and what is asked of it.
import { useState } from 'preact/hooks';
import { Code } from '@connectrpc/connect';
import { codeOf, recordings, streams } from '../api';
import { Feed, useFeed } from '../feed';
import { type RtStream, RtStream_RecordingState as Recording, Transcription_State } from '../gen/sightline/v1/rtstream_pb';
import { Player } from '../player';
import { go, to } from '../route';
import { forget, knownStream, loaded, put } from '../store';
import { ms, stamp } from '../time';
import { Verdicts } from '../verdicts';
import { Empty, Failure, isRunning, Page, StateBadge, useAction, useLoad } from '../ui';
import { Indexes } from './indexes';
import { StartStop } from './streams';

/** How far before the newest frame a live picture begins: what is newer may not be recorded yet. */
const BEHIND_MS = 8_000;

/** Something to play. */
interface Shown {
  url: string;
  atMs?: number;
  live: boolean;
}

/** What a stream shows by itself: the newest while it runs, the last stretch of its recording when it does not. */
async function itself(stream: RtStream, newestMs: number): Promise<Shown | undefined> {
  const rtstreamId = stream.id;
  if (isRunning(stream.state)) {
    const from = Math.max((newestMs || Date.now()) - BEHIND_MS, ms(stream.epoch));
    const links = await recordings.generateStream({ rtstreamId, startTime: stamp(from) });
    return { url: links.streamUrl, live: true };
  }
  const { stretches } = await recordings.getRecording({ rtstreamId });
  const last = stretches.at(-1);
  if (!last?.startTime || !last.endTime) return undefined;
  const links = await recordings.generateStream({ rtstreamId, startTime: last.startTime, endTime: last.endTime });
  return { url: links.streamUrl, live: false };
}

function notPlayable(stream: RtStream): string {
  switch (stream.recordingState) {
    case Recording.UNSPECIFIED:
      return 'This stream is not recorded, so there is nothing to play. Connect it again with recording on.';
    case Recording.UNSUPPORTED:
      return `This stream can't be recorded: ${stream.recordingDetail}`;
    default:
      return 'Nothing is recorded yet. Start the stream to record it.';
  }
}

function Screen({ stream, moment, back, onTime }: { stream: RtStream; moment: Shown | undefined; back: () => void; onTime: (at: number) => void }) {
  const running = isRunning(stream.state);
  const own = useLoad(() => itself(stream, knownStream(stream.id)?.value.lastFrameMs ?? 0), [stream.id, running]);
  const unrecorded = stream.recordingState === Recording.UNSPECIFIED || stream.recordingState === Recording.UNSUPPORTED;
  if (unrecorded) return <div class="screen blank"><p>{notPlayable(stream)}</p></div>;
  const shown = moment ?? own.value;
  return (
    <>
      {shown
        ? <Player url={shown.url} atMs={shown.atMs} label={`${stream.name}, ${shown.live ? 'live' : 'recorded'}`} onTime={onTime} />
        : <div class="screen blank"><p>{own.failure || (running ? 'Loading …' : notPlayable(stream))}</p></div>}
      {stream.recordingDetail !== '' && <p class="detail">Recording: {stream.recordingDetail}</p>}
      {moment && <p><button type="button" onClick={back}>{running ? 'Back to live' : 'Back to the whole recording'}</button></p>}
    </>
  );
}

function Shows({ stream }: { stream: RtStream }) {
  const [moment, setMoment] = useState<Shown>();
  const [at, setAt] = useState(0);
  const feed = useFeed(stream.id, isRunning(stream.state));
  const current = feed.entries.filter((entry) => entry.kind === 'scene' && entry.startMs <= at && at < entry.endMs);
  return (
    <div class="split">
      <section class="stage" aria-label="Picture">
        <Screen stream={stream} moment={moment} back={() => setMoment(undefined)} onTime={setAt} />
        <div class="now">{current.map((entry) => <p key={entry.id}>{entry.text}</p>)}</div>
      </section>
      <section class="part" aria-label="What happens">
        <Verdicts rtstreamId={stream.id} />
        <Failure text={feed.failure} retry={feed.reload} />
        <Feed entries={feed.entries} atMs={at} jump={(entry) => setMoment({ url: entry.streamUrl, atMs: entry.startMs, live: false })} />
      </section>
    </div>
  );
}

function Speech({ stream }: { stream: RtStream }) {
  const { busy, failure, run } = useAction();
  const state = stream.transcription?.state ?? Transcription_State.UNSPECIFIED;
  const on = state === Transcription_State.UNSPECIFIED ? stream.transcribe : state === Transcription_State.RUNNING;
  const press = (): void => run(async () => {
    const rtstreamId = stream.id;
    const answer = on ? await streams.stopTranscription({ rtstreamId }) : await streams.startTranscription({ rtstreamId });
    if (answer.rtstream) put(answer.rtstream);
  });
  return (
    <section class="card" aria-label="Speech">
      <div class="actions">
        <h2>Speech</h2>
        <span class={`badge ${on ? 'good' : 'quiet'}`}>{on ? 'transcribed' : 'not transcribed'}</span>
        <button type="button" disabled={busy} onClick={press}>{on ? 'Stop transcribing' : 'Transcribe from now on'}</button>
      </div>
      <Failure text={failure} />
    </section>
  );
}

function Delete({ stream }: { stream: RtStream }) {
  const { busy, failure, run } = useAction();
  const press = (): void => {
    if (!confirm(`Delete ${stream.name}, with its captions, transcript, alerts and recording?`)) return;
    run(async () => {
      await streams.deleteRtStream({ rtstreamId: stream.id });
      forget(stream.id);
      go(['streams']);
    });
  };
  return (
    <>
      <button type="button" class="danger" disabled={busy} onClick={press}>Delete the stream</button>
      <Failure text={failure} />
    </>
  );
}

export function StreamPage({ id }: { id: string }) {
  const known = knownStream(id)?.value;
  const read = useLoad(async () => {
    try {
      const { rtstream } = await streams.getRtStream({ rtstreamId: id });
      if (rtstream) put(rtstream);
    } catch (error) {
      if (codeOf(error) === Code.NotFound) forget(id);
      throw error;
    }
  }, [id]);
  if (!known) {
    return (
      <Page title="Stream">
        {read.failure === '' && !loaded.value
          ? <p class="quiet" role="status">Loading …</p>
          : <Empty title={read.failure || 'Loading …'}><p><a href={to(['streams'])}>Go to the streams</a></p></Empty>}
      </Page>
    );
  }
  const { stream } = known;
  const actions = (
    <>
      <StateBadge state={stream.state} />
      <StartStop id={id} />
      <a class="button" href={to(['search'], { in: id })}>Search it</a>
      <a class="button main" href={to(['alerts', 'new'], { stream: id })}>New alert</a>
    </>
  );
  return (
    <Page title={stream.name} actions={actions}>
      <p class="quiet source">{stream.url}</p>
      {stream.stateDetail !== '' && <p class="detail">{stream.stateDetail}</p>}
      <Shows stream={stream} />
      <Indexes rtstreamId={id} />
      <Speech stream={stream} />
      <p><Delete stream={stream} /></p>
    </Page>
  );
}
