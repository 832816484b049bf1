// Plays the playlist that the page's video names: through Media Source Extensions where they are, otherwise as the browser
// itself can. While nothing is recorded yet it asks again.
(() => {
  'use strict';

  const video = document.getElementById('video');
  const message = document.getElementById('message');
  const playlist = new URL(video.dataset.playlist, document.baseURI).href;
  const PAUSE_MS = 2000;
  const MAX_RECOVERIES = 3;
  let recoveries = 0;

  const say = (text) => {
    message.textContent = text;
    message.hidden = text === '';
  };
  video.addEventListener('playing', () => {
    recoveries = 0;
    say('');
  });

  // Muted videos may start by themselves nearly everywhere; where not, the controls are there.
  const play = () => video.play().catch(() => {});

  const reason = (status) => {
    if (status === 403) return 'This link is not valid.';
    if (status === 404) return 'Nothing is recorded here, or it is not kept any more.';
    if (status === 410) return 'This link has expired.';
    return 'The recording cannot be loaded. Check the connection, and load the page again.';
  };

  const withHls = () => {
    const hls = new window.Hls({
      // Recordings may be long; what was played is dropped after a minute.
      backBufferLength: 60,
      // A worker has to read hls.js once more before it does anything, which takes longer than taking segments apart here.
      enableWorker: false,
      // The first segment is on its way while the video is made ready.
      startFragPrefetch: true,
      // The server waits up to 10 s for the first segment of what is being recorded.
      manifestLoadPolicy: {
        default: {
          maxTimeToFirstByteMs: 20000,
          maxLoadTimeMs: 30000,
          timeoutRetry: { maxNumRetry: 2, retryDelayMs: 1000, maxRetryDelayMs: 4000 },
          errorRetry: { maxNumRetry: 2, retryDelayMs: 1000, maxRetryDelayMs: 4000 },
        },
      },
    });
    hls.on(window.Hls.Events.MANIFEST_PARSED, play);
    hls.on(window.Hls.Events.ERROR, (_, error) => {
      if (!error.fatal) return;
      const answer = error.networkDetails;
      const status = error.response ? error.response.code : 0;
      const later = answer && answer.getResponseHeader && answer.getResponseHeader('retry-after');
      if (later && (status === 404 || status === 503)) {
        say('Nothing is recorded yet. Waiting …');
        setTimeout(() => hls.loadSource(playlist), PAUSE_MS);
      } else if (error.type === window.Hls.ErrorTypes.MEDIA_ERROR && recoveries < MAX_RECOVERIES) {
        recoveries += 1;
        hls.recoverMediaError();
        play();
      } else if (error.type === window.Hls.ErrorTypes.MEDIA_ERROR) {
        say('This browser cannot play the recording: it does not know how its pictures or sound are encoded.');
        hls.destroy();
      } else {
        say(reason(status));
        hls.destroy();
      }
    });
    hls.loadSource(playlist);
    hls.attachMedia(video);
  };

  const natively = () => {
    video.addEventListener('error', async () => {
      const answer = await fetch(playlist).catch(() => null);
      if (answer && answer.headers.has('retry-after')) {
        say('Nothing is recorded yet. Waiting …');
        setTimeout(() => {
          video.src = playlist;
          play();
        }, PAUSE_MS);
      } else if (answer && answer.ok) {
        say('This browser cannot play the recording: it does not know how its pictures or sound are encoded.');
      } else {
        say(reason(answer ? answer.status : 0));
      }
    });
    video.src = playlist;
    play();
  };

  if (window.Hls && window.Hls.isSupported()) {
    withHls();
  } else if (video.canPlayType('application/vnd.apple.mpegurl')) {
    natively();
  } else {
    say('This browser cannot play HLS.');
  }
})();
