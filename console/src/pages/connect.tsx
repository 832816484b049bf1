// Connecting a camera or a file: recorded, transcribed and described from its first frame on.
import { useMemo, useState } from 'preact/hooks';
import { indexes, requestId, streams } from '../api';
import { RtStream_Playback } from '../gen/sightline/v1/rtstream_pb';
import { go } from '../route';
import { put } from '../store';
import { Failure, Field, Page, useAction } from '../ui';

const PROMPT = 'Describe activity and detect unusual behavior';

export function ConnectPage() {
  const [url, setUrl] = useState('');
  const [name, setName] = useState('');
  const [prompt, setPrompt] = useState(PROMPT);
  const [store, setStore] = useState(true);
  const [transcribe, setTranscribe] = useState(true);
  const [fast, setFast] = useState(false);
  const file = url.trim().startsWith('file:');
  const playback = file && fast ? RtStream_Playback.FAST : RtStream_Playback.REAL_TIME;
  const { busy, failure, run } = useAction();
  // The same form sent again, after an error on the way, goes on with the same stream.
  const ids = useMemo(() => ({ stream: requestId(), index: requestId() }), [url, name, prompt, store, transcribe, playback]);

  const submit = (event: Event): void => {
    event.preventDefault();
    run(async () => {
      const wanted = { url: url.trim(), name: name.trim(), store, transcribe, playback, requestId: ids.stream };
      // Stopped, so that the index is there before the first frame.
      const { rtstream } = await streams.connectRtStream({ ...wanted, startStopped: true });
      const rtstreamId = rtstream?.id ?? '';
      if (prompt.trim() !== '') {
        await indexes.createVisualIndex({ rtstreamId, name: 'scenes', prompt: prompt.trim(), requestId: ids.index });
      }
      const started = await streams.startRtStream({ rtstreamId });
      if (started.rtstream) put(started.rtstream);
      go(['streams', rtstreamId]);
    });
  };

  return (
    <Page title="Connect a stream">
      <form class="card form" onSubmit={submit}>
        <Field label="Source" hint="rtsp://…, rtmp://…, srt://… or http(s)://… (a playlist, an endless stream or a file), or file:///… below the folder that the server was given with --media-root. Credentials in it are stored encrypted and never shown again.">
          {(props) => <input {...props} type="text" inputMode="url" spellcheck={false} autocomplete="off" required value={url} onInput={(event) => setUrl(event.currentTarget.value)} />}
        </Field>
        <Field label="Name">
          {(props) => <input {...props} type="text" required maxLength={200} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label="What to describe" hint="The model is asked this of every 5 seconds. Empty: pictures are not described.">
          {(props) => <textarea {...props} rows={2} maxLength={4000} value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />}
        </Field>
        <label class="check">
          <input type="checkbox" checked={store} onChange={(event) => setStore(event.currentTarget.checked)} />
          Record it, so that what is found can be watched
        </label>
        <label class="check">
          <input type="checkbox" checked={transcribe} onChange={(event) => setTranscribe(event.currentTarget.checked)} />
          Transcribe what is said
        </label>
        {file && (
          <label class="check">
            <input type="checkbox" checked={fast} onChange={(event) => setFast(event.currentTarget.checked)} />
            Play the file as fast as it can be described, not in real time
          </label>
        )}
        <Failure text={failure} />
        <button type="submit" class="main" disabled={busy}>{busy ? 'Connecting …' : 'Connect'}</button>
      </form>
    </Page>
  );
}
