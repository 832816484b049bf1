// Opens a player page in a real Chromium and prints what it saw as one line of JSON.
//
//   node play.mjs CHROMIUM URL SEEK_SECONDS
//
// Times are milliseconds from the start of the navigation, as the page measures them.
import { DEADLINE_MS, launch, open } from './browser.mjs';

const [executablePath, url, seek] = process.argv.slice(2);
const browser = await launch(executablePath);

try {
  const { page, errors, violations } = await open(browser);
  await page.addInitScript(() => {
    // A picture on the screen, not merely the wish to play.
    const watch = (video) => {
      video.requestVideoFrameCallback((now) => {
        window.seen.playing ??= now;
      });
      // Where it plays from; a picture of what was loaded first may stand there before.
      video.addEventListener('playing', () => {
        window.seen.start ??= video.currentTime;
      });
    };
    new MutationObserver((_, observer) => {
      const video = document.querySelector('video');
      if (video) {
        observer.disconnect();
        watch(video);
      }
    }).observe(document, { childList: true, subtree: true });
  });

  const answer = await page.goto(url, { timeout: DEADLINE_MS });
  // Either it plays, or the page says why it does not.
  await page.waitForFunction(() => {
    const said = document.querySelector('#message, [role=alert]');
    return window.seen.playing || (said && !said.hidden && !said.textContent.startsWith('Nothing is recorded yet'));
  }, null, { timeout: DEADLINE_MS / 2, polling: 20 }).catch(() => null);
  const playing = await page.evaluate(() => window.seen.playing);
  const video = () => page.evaluate(() => {
    const element = document.querySelector('video');
    return element && { at: element.currentTime, width: element.videoWidth, duration: element.duration };
  });
  const text = (selector) => page.evaluate((name) => document.querySelector(name)?.innerText ?? null, selector);

  const before = await video();
  let after = before;
  let sought = null;
  if (playing !== null) {
    await page.waitForFunction((at) => document.querySelector('video').currentTime >= at + 1, before.at, {
      timeout: DEADLINE_MS / 3,
      polling: 20,
    }).catch(() => null);
    after = await video();
    // Lands where it was sent, and shows that: paused, so that it has not gone on before it is looked at.
    sought = await page.evaluate(({ to, patience }) => new Promise((resolve) => {
      const element = document.querySelector('video');
      element.pause();
      const started = performance.now();
      let landed = null;
      let frame = null;
      const tell = () => resolve({ landed, frame, ms: performance.now() - started });
      const shown = () => landed !== null && frame !== null && Math.abs(frame - to) < 0.2;
      const note = (_, { mediaTime }) => {
        frame = mediaTime;
        if (shown()) tell();
        else element.requestVideoFrameCallback(note);
      };
      element.requestVideoFrameCallback(note);
      element.addEventListener('seeked', () => {
        landed = element.currentTime;
        if (shown()) tell();
      }, { once: true });
      setTimeout(tell, patience);
      element.currentTime = to;
    }), { to: Number(seek), patience: DEADLINE_MS / 3 });
    await page.evaluate(() => document.querySelector('video').play());
    await page.waitForFunction((to) => document.querySelector('video').currentTime > to, Number(seek), { timeout: DEADLINE_MS / 3, polling: 20 });
  }
  console.log(JSON.stringify({
    status: answer.status(),
    playing_ms: playing,
    width: before?.width ?? 0,
    duration: before?.duration ?? null,
    start: await page.evaluate(() => window.seen.start ?? null),
    advanced: before && after ? after.at - before.at : 0,
    sought,
    title: await text('#title'),
    description: await text('#description'),
    message: await text('#message'),
    images: await page.evaluate(() => document.images.length),
    ran: await page.evaluate(() => Boolean(window.ran)),
    violations: await violations(),
    errors,
  }));
} finally {
  await browser.close();
}
