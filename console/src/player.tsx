// A video that plays an HLS playlist: through hls.js, which the gateway serves, or as the browser itself can.
import { useEffect, useRef, useState } from 'preact/hooks';

const PAUSE_MS = 2000;
const MAX_RECOVERIES = 3;
/** What waits for the first segment of something live; the server itself waits up to 10 s. */
const PATIENCE = { maxNumRetry: 2, retryDelayMs: 1000, maxRetryDelayMs: 4000 };

interface Props {
  /** The playlist, as the API gave it. */
  url: string;
  /** The moment to start at, in wall time; unset: the start, or the newest of what is live. */
  atMs?: number | undefined;
  label: string;
  /** Called about four times a second with the wall time of the picture that is shown. */
  onTime?: (milliseconds: number) => void;
}

let library: Promise<unknown> | undefined;
/** Loads hls.js when the first video is shown, not with the page. */
async function hls(): Promise<typeof Hls | undefined> {
  library ??= import(/* @vite-ignore */ new URL(HLS_ADDRESS, document.baseURI).href);
  try {
    await library;
  } catch (error) {
    library = undefined;
    throw error;
  }
  return window.Hls;
}

/** The playlist's address on the server that this page came from: the policy allows no other, and it may have several names. */
export function here(url: string): string {
  const place = url.lastIndexOf('/manifests/');
  return place < 0 ? url : new URL(url.slice(place + 1), document.baseURI).href;
}

function reason(status: number): string {
  if (status === 403) return 'This link is not valid.';
  if (status === 404) return 'Nothing is recorded here, or it is not kept any more.';
  if (status === 410) return 'This link has expired. Load the page again for a new one.';
  return 'The recording cannot be loaded. Check the connection, and try again.';
}

const UNPLAYABLE = 'This browser cannot play the recording: it does not know how its pictures or sound are encoded.';
const NOT_YET = 'Nothing is recorded yet. Waiting …';

interface Playing {
  video: HTMLVideoElement;
  playlist: string;
  atMs: number | undefined;
  say: (text: string) => void;
}

/** Muted videos may start by themselves nearly everywhere; where not, the controls are there. */
function start(video: HTMLVideoElement): void {
  video.play().catch(() => {});
}

/** Where a moment lies in a playlist, in seconds of the player's time; -1 lets the player choose. */
function position(fragments: HlsFragment[], live: boolean, atMs: number | undefined): number {
  if (atMs === undefined) return live ? -1 : 0;
  for (const fragment of fragments.toReversed()) {
    if (fragment.programDateTime !== null && fragment.programDateTime <= atMs) {
      return fragment.start + Math.min((atMs - fragment.programDateTime) / 1000, fragment.duration);
    }
  }
  return 0;
}

function withHls(Library: typeof Hls, { video, playlist, atMs, say }: Playing): Hls {
  const player = new Library({
    autoStartLoad: false,
    backBufferLength: 60,
    enableWorker: false,
    manifestLoadPolicy: {
      default: { maxTimeToFirstByteMs: 20_000, maxLoadTimeMs: 30_000, timeoutRetry: PATIENCE, errorRetry: PATIENCE },
    },
  });
  let begun = false;
  let recoveries = 0;
  player.on('hlsManifestParsed', () => {
    if (!begun) player.startLoad(-1);
  });
  player.on('hlsLevelLoaded', (_, { details }) => {
    if (begun) return;
    begun = true;
    const place = position(details.fragments, details.live, atMs);
    if (place >= 0) player.startLoad(place);
    start(video);
  });
  player.on('hlsError', (_, error) => {
    if (!error.fatal) return;
    const status = error.response?.code ?? 0;
    const later = error.networkDetails?.getResponseHeader?.('retry-after');
    if (later && (status === 404 || status === 503)) {
      say(NOT_YET);
      setTimeout(() => player.loadSource(playlist), PAUSE_MS);
    } else if (error.type === 'mediaError' && recoveries < MAX_RECOVERIES) {
      recoveries += 1;
      player.recoverMediaError();
      start(video);
    } else {
      say(error.type === 'mediaError' ? UNPLAYABLE : reason(status));
      player.destroy();
    }
  });
  player.loadSource(playlist);
  player.attachMedia(video);
  return player;
}

type Dated = HTMLVideoElement & { getStartDate?: () => Date };

function natively({ video, playlist, atMs, say }: Playing): void {
  video.addEventListener('loadedmetadata', () => {
    const first = (video as Dated).getStartDate?.().getTime();
    if (atMs !== undefined && first) video.currentTime = Math.max(0, (atMs - first) / 1000);
  });
  video.addEventListener('error', () => say(UNPLAYABLE));
  video.src = playlist;
  start(video);
}

export function Player({ url, atMs, label, onTime }: Props) {
  const element = useRef<HTMLVideoElement>(null);
  const tell = useRef(onTime);
  tell.current = onTime;
  const [message, say] = useState('');
  useEffect(() => {
    const video = element.current;
    if (!video) return;
    let player: Hls | undefined;
    let gone = false;
    const playing: Playing = { video, playlist: here(url), atMs, say };
    say('');
    hls().then(
      (Library) => {
        if (gone) return;
        if (Library?.isSupported()) player = withHls(Library, playing);
        else if (video.canPlayType('application/vnd.apple.mpegurl')) natively(playing);
        else say('This browser cannot play HLS.');
      },
      () => say(reason(0)),
    );
    const tick = setInterval(() => {
      const date = player?.playingDate ?? null;
      if (date && !video.paused) tell.current?.(date.getTime());
    }, 250);
    return () => {
      gone = true;
      clearInterval(tick);
      player?.destroy();
      video.removeAttribute('src');
    };
  }, [url, atMs]);
  return (
    <div class="screen">
      <video ref={element} controls playsInline muted aria-label={label} onPlaying={() => say('')} />
      <p class="over" role="status" hidden={message === ''}>{message}</p>
    </div>
  );
}
