// Looks at the console's pages while much happens whose every text is HTML, and prints what it saw as one line of JSON.
//
//   node console_texts.mjs CHROMIUM JSON
//
// JSON: url, key, stream and alert (ids), text (what must be seen as it is), seconds (how long the overview is watched).
import { DEADLINE_MS, launch, open } from './browser.mjs';

const { url, key, stream, alert, text, seconds } = JSON.parse(process.argv[3]);
const browser = await launch(process.argv[2]);

try {
  const { page, errors, violations } = await open(browser, { viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(DEADLINE_MS);
  const calls = [];
  page.on('request', (request) => request.method() === 'POST' && calls.push(request.url().split('/').pop()));
  // Watches under way: each page has as many as it needs.
  const watches = new Set();
  // Other calls that have no answer yet.
  const under = new Set();
  page.on('request', (request) => {
    if (request.url().endsWith('/Watch')) watches.add(request);
    else if (request.method() === 'POST') under.add(request);
  });
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, (request) => watches.delete(request) || under.delete(request));
  const watching = async (expected) => {
    for (const until = Date.now() + DEADLINE_MS; watches.size !== expected && Date.now() < until;) await page.waitForTimeout(50);
    return watches.size;
  };
  const seen = { pages: {}, watches: {} };
  // The page at this address, once the text stands on it; and what would only be there if it had not stayed text.
  const look = async (name, address) => {
    await page.goto(`${url}#/${address}`);
    await page.getByText(text).first().waitFor({ state: 'attached' });
    seen.pages[name] = await page.evaluate(() => ({
      ran: Boolean(window.ran),
      made: document.querySelectorAll('img[src=x], script:not([src]), iframe, b').length,
    }));
  };

  await page.goto(url);
  await page.getByLabel('API key').fill(key);
  await page.keyboard.press('Enter');
  await look('streams', 'streams');
  seen.streams = await page.locator('.stream').count();

  // All streams at once, for some seconds: how many calls it takes, and the pauses between two pictures on the screen.
  // What is read when a stream first comes into view is not counted.
  for (let before = -1; before < calls.length || under.size > 0;) {
    before = calls.length;
    await page.waitForTimeout(2000);
  }
  calls.length = 0;
  seen.frames = await page.evaluate((until) => new Promise((resolve) => {
    const pauses = [];
    const started = performance.now();
    let last = started;
    const frame = (now) => {
      pauses.push(now - last);
      last = now;
      if (now - started < until) requestAnimationFrame(frame);
      else resolve({ count: pauses.length, longest: Math.max(...pauses), slow: pauses.filter((pause) => pause > 100).length });
    };
    requestAnimationFrame(frame);
  }), seconds * 1000);
  seen.calls = calls.slice();
  seen.watches.streams = await watching(1);
  const described = page.locator('.stream .caption', { hasText: 'described' });
  await described.nth(9).waitFor({ state: 'attached' });
  seen.described = await described.count();

  await look('stream', `streams/${stream}`);
  await page.locator('.entry.scene', { hasText: text }).first().waitFor();
  await page.locator('.entry.speech', { hasText: text }).first().waitFor();
  await page.locator('.verdicts li', { hasText: text }).first().waitFor();
  seen.watches.stream = await watching(2);
  await look('alerts', 'alerts');
  await look('alert', `alerts/${alert}`);
  await look('system', 'system');
  await look('new alert', 'alerts/new');
  // Until what was told is stored.
  await page.goto(`${url}#/search?q=${encodeURIComponent(text)}`);
  await page.waitForFunction(() => {
    const found = document.querySelector('.hit');
    const busy = [...document.querySelectorAll('[role=status]')].some(({ textContent }) => textContent.startsWith('Searching'));
    if (!found && !busy) document.querySelector('form[role=search]')?.requestSubmit();
    return found;
  }, null, { polling: 500 });
  await look('search', `search?q=${encodeURIComponent(text)}`);
  await page.locator('.hit', { hasText: text }).first().waitFor();
  seen.watches.search = await watching(1);

  seen.violations = await violations();
  seen.errors = errors;
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
