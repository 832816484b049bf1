// All streams at a glance, kept current by the watch.
import { useRef, useState } from 'preact/hooks';
import { useComputed } from '@preact/signals';
import { streams } from '../api';
import { RtStream_RecordingState } from '../gen/sightline/v1/rtstream_pb';
import { to } from '../route';
import { acquaint, failure, knownStream, loaded, order, put, refresh } from '../store';
import { ago } from '../time';
import { Empty, Failure, isRunning, now, Page, StateBadge, Thumbnail, useAction, useInView } from '../ui';

/** A picture of a stream is at most so old. */
const PICTURE_MS = 60_000;

export function StartStop({ id }: { id: string }) {
  const stream = knownStream(id)?.value.stream;
  const { busy, failure: wrong, run } = useAction();
  if (!stream) return null;
  const running = isRunning(stream.state);
  const press = (): void => run(async () => {
    const answer = running ? await streams.stopRtStream({ rtstreamId: id }) : await streams.startRtStream({ rtstreamId: id });
    if (answer.rtstream) put(answer.rtstream);
  });
  return (
    <>
      <button type="button" disabled={busy} onClick={press} aria-label={`${running ? 'Stop' : 'Start'} ${stream.name}`}>
        {running ? 'Stop' : 'Start'}
      </button>
      <Failure text={wrong} />
    </>
  );
}

function LastFrame({ lastFrameMs }: { lastFrameMs: number }) {
  const text = useComputed(() => ago(lastFrameMs, now.value));
  return <>{text}</>;
}

function Card({ id }: { id: string }) {
  const known = knownStream(id)?.value;
  const [shown, setShown] = useState(0);
  const place = useRef<HTMLLIElement>(null);
  useInView(place, () => void acquaint(id), [id]);
  if (!known) return null;
  const { stream, scene, lastFrameMs } = known;
  // The first frame that is known, and then another a minute later.
  if (lastFrameMs - shown >= PICTURE_MS) setShown(lastFrameMs);
  const recorded = stream.recordingState !== RtStream_RecordingState.UNSPECIFIED;
  return (
    <li class="card stream" ref={place}>
      <a href={to(['streams', id])} class="picture" tabIndex={-1} aria-hidden="true">
        <Thumbnail rtstreamId={id} atMs={recorded ? shown : 0} />
      </a>
      <div class="head">
        <h2><a href={to(['streams', id])}>{stream.name}</a></h2>
        <StateBadge state={stream.state} />
      </div>
      {stream.stateDetail !== '' && <p class="detail">{stream.stateDetail}</p>}
      <p class="caption">{scene ? scene.text : <span class="quiet">Nothing is described yet.</span>}</p>
      <dl class="facts">
        <div><dt>Last frame</dt><dd>{lastFrameMs === 0 ? '–' : <LastFrame lastFrameMs={lastFrameMs} />}</dd></div>
        <div><dt>Frames/s</dt><dd>{known.fps === 0 ? '–' : known.fps.toFixed(1)}</dd></div>
        <div><dt>Missed</dt><dd>{known.missed}</dd></div>
        <div><dt>Reconnects</dt><dd>{Math.max(known.reconnects, stream.attempt)}</dd></div>
        <div><dt>Alerts</dt><dd>{known.firings}</dd></div>
      </dl>
      <div class="actions"><StartStop id={id} /></div>
    </li>
  );
}

export function StreamsPage() {
  const ids = order.value;
  const connect = <a class="button main" href={to(['streams', 'new'])}>Connect a stream</a>;
  return (
    <Page title="Streams" actions={connect}>
      <Failure text={failure.value} retry={() => void refresh()} />
      {!loaded.value && failure.value === '' && <p class="quiet" role="status">Loading …</p>}
      {loaded.value && ids.length === 0 && (
        <Empty title="No stream is connected yet.">
          <p>Connect a camera (rtsp://) or a video file, and its captions and words appear here as they come.</p>
          <p>{connect}</p>
        </Empty>
      )}
      {ids.length > 0 && (
        <>
          <ul class="grid">{ids.map((id) => <Card key={id} id={id} />)}</ul>
          <p class="hint">Missed windows, reconnects and alerts are counted from when this page was opened.</p>
        </>
      )}
    </Page>
  );
}
