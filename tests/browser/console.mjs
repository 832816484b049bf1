// Walks through the console as a new user would, in a real Chromium, and prints what it saw as one line of JSON.
//
//   node console.mjs CHROMIUM JSON
//
// JSON: url, key, source (a file:// address), webhook, pictures (a directory for a screenshot of each step).
import { join } from 'node:path';
import axe from 'axe-core';
import { DEADLINE_MS, launch, open } from './browser.mjs';

const { url, key, source, webhook, pictures } = JSON.parse(process.argv[3]);
/** The clip shows the event every 90 s. */
const FIRING_MS = 120000;
/** What is stored by then is judged. */
const BACKTEST_MS = 120000;
/** What comes of a firing is looked at by its page for about so long. */
const LOOKS_MS = 6000;
/** Who works, and what they take: not all may answer on a slow machine. */
const WORKERS = ['gateway', 'embeddings', 'alerts', 'ingest', 'demo-vlm', 'transcribe'];

/** Takes a picture of the page on which something failed. */
let failed;

/** How soon something stands on the page, in milliseconds, with nothing in any cache. */
async function paint() {
  const { page } = await open(browser);
  await page.goto(url);
  const painted = await page.evaluate(() => new Promise((resolve) => {
    const entries = (list) => {
      const found = list.getEntriesByName('first-contentful-paint')[0];
      if (found) resolve(found.startTime);
    };
    entries(performance);
    new PerformanceObserver(entries).observe({ type: 'paint', buffered: true });
  }));
  await page.context().close();
  return painted;
}

const browser = await launch(process.argv[2]);
try {
  // The best of three: what else runs on this machine is not known.
  const paints = [await paint(), await paint(), await paint()];
  const { page, errors, violations } = await open(browser, { viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
  page.setDefaultTimeout(DEADLINE_MS);
  failed = () => page.screenshot({ path: join(pictures, 'failed.png') });
  const seen = { steps: [], faults: [], paint_ms: Math.min(...paints) };

  const step = async (name) => {
    seen.steps.push(name);
    const number = String(seen.steps.length).padStart(2, '0');
    await page.screenshot({ path: join(pictures, `${number}-${name}.png`) });
    await page.evaluate(axe.source);
    const { violations: found } = await page.evaluate(() => window.axe.run());
    for (const { id, impact, nodes } of found) {
      if (impact === 'serious' || impact === 'critical') seen.faults.push(`${name}: ${id} ${nodes[0].html}`);
    }
  };
  const button = (name) => page.getByRole('button', { name });
  const link = (name) => page.getByRole('link', { name });
  const go = (name) => page.getByRole('navigation').getByRole('link', { name }).click();
  // By how much the video's time advances, once it plays.
  const advance = async () => {
    const video = page.locator('video').first();
    await page.waitForFunction(() => {
      const element = document.querySelector('video');
      return element && element.readyState >= 2 && !element.paused;
    });
    const before = await video.evaluate((element) => element.currentTime);
    await page.waitForFunction((at) => document.querySelector('video').currentTime >= at + 1, before);
    return { by: (await video.evaluate((element) => element.currentTime)) - before, width: await video.evaluate((element) => element.videoWidth) };
  };

  // Signing in, with a wrong key first.
  const answer = await page.goto(url);
  seen.status = answer.status();
  seen.policy = answer.headers()['content-security-policy'];
  const field = page.getByLabel('API key');
  await field.waitFor();
  await field.fill('not the key');
  await button('Sign in').click();
  seen.refusal = await page.getByRole('alert').innerText();
  await step('sign-in');
  await field.fill(key);
  await page.keyboard.press('Enter');

  // Connecting the clip.
  await page.getByText('No stream is connected yet').waitFor();
  await step('no-streams');
  await link('Connect a stream').first().click();
  await page.getByLabel('Source').fill(source);
  await page.getByLabel('Name').fill('Main street');
  await step('connect');
  const connected = Date.now();
  await button('Connect').click();

  // Captions and a picture.
  await page.locator('.entry.scene').first().waitFor();
  seen.caption_ms = Date.now() - connected;
  seen.caption = await page.locator('.entry.scene p').first().innerText();
  seen.live = await advance();
  await page.locator('.entry.speech').first().waitFor();
  await step('stream');

  // Searching, until there is something to be found.
  await go('Search');
  await page.getByLabel('Look for').fill('a bus moving slowly');
  await page.waitForFunction(() => {
    // What is seen first may be stored before there was a bus.
    const found = document.querySelector('.hit')?.textContent.includes('bus');
    const busy = [...document.querySelectorAll('[role=status]')].some(({ textContent }) => textContent.startsWith('Searching'));
    if (!found && !busy) document.querySelector('form[role=search]').requestSubmit();
    return found;
  }, null, { polling: 500, timeout: FIRING_MS });
  seen.hit = await page.locator('.hit .caption').first().innerText();
  seen.score = Number(await page.locator('.hit .score').first().innerText());
  await button(/^Watch Main street/).first().click();
  seen.found = await advance();
  await page.locator('.hit img').first().waitFor();
  await step('search');

  // An alert, judged by what is stored before it is made.
  const watchFor = async () => {
    await link('New alert').first().click();
    await page.getByLabel('What to watch for').fill('Detect when someone enters restricted area');
    await page.getByLabel('Short name').fill('restricted area');
    await button('Try it on what is stored').click();
    const said = page.getByText(/^It would (not )?have fired/);
    await said.waitFor({ timeout: BACKTEST_MS });
    return { said: await said.innerText(), by: await page.locator('.backtest .bases').innerText() };
  };
  await go('Alerts');
  await page.getByText('Nothing is watched for yet').waitFor();
  seen.tried = await watchFor();
  await page.getByLabel('Post it to').fill(webhook);
  await page.getByText('When it fires, how bad it is, what is told').click();
  await page.getByLabel('Windows until it closes').fill('2');
  await page.getByLabel('Severity').selectOption({ label: 'Critical: somebody has to act now' });
  await step('new-alert');
  await button('Create the alert').click();
  await page.getByText('It has not fired yet').or(page.locator('.hit')).first().waitFor();
  seen.terms = await page.locator('.facts').first().innerText();

  // Verdicts as they come. Meanwhile the connection is lost, and comes back by itself, with them.
  await go('Streams');
  await link('Main street').click();
  const verdict = page.locator('.verdicts li', { hasText: 'restricted area' });
  await verdict.locator('.score').waitFor();
  const judged = async () => Number.parseInt(await verdict.getByRole('img').getAttribute('aria-label'), 10);
  await page.context().setOffline(true);
  await page.getByText('The connection to the server is lost').waitFor();
  await step('lost');
  seen.verdicts_before = await judged();
  await page.context().setOffline(false);
  await page.getByText('The connection to the server is lost').waitFor({ state: 'detached' });
  await page.waitForFunction((before) => Number.parseInt(document.querySelector('.spark').getAttribute('aria-label'), 10) > before, seen.verdicts_before);
  seen.verdicts = await judged();
  seen.verdict = await verdict.innerText();
  await step('verdicts');

  // It fires, with its clip and its delivery.
  await go('Alerts');
  await link('restricted area').first().click();
  await page.locator('.hit').first().waitFor({ timeout: FIRING_MS });
  seen.fired = await page.locator('.hit .caption').first().innerText();
  seen.firing = await page.locator('.hit .head').first().innerText();
  // Later than its looks, it is seen when the page is opened anew.
  const looked = async (locator) => {
    for (const end = Date.now() + FIRING_MS; Date.now() < end;) {
      const there = await locator.waitFor({ state: 'attached', timeout: LOOKS_MS }).then(() => true, () => false);
      if (there) return;
      await go('Alerts');
      await link('restricted area').first().click();
    }
    throw new Error(`waited in vain for ${locator}`);
  };
  await looked(page.getByText(/^Delivered, /).first());
  await button(/^Watch restricted area/).first().click();
  seen.clip = await advance();
  await step('alert');

  // It is delivered once more, and then nothing is for a while.
  await button(/^Deliver again/).first().click();
  await page.getByText('It is in line again').waitFor();
  const again = page.locator('.attempts li', { hasText: 'delivered again' });
  await looked(again.first());
  await page.locator('details', { has: again }).first().locator('summary').click();
  seen.again = await again.first().innerText();
  await button('Mute for an hour').click();
  await page.getByText(/^muted until /).waitFor();
  await step('muted');
  await button('Unmute').click();
  await page.getByText(/^muted until /).waitFor({ state: 'detached' });

  // The same alert would have fired: to the moment.
  await go('Alerts');
  await link('restricted area').first().waitFor();
  await step('alerts');
  seen.would = await watchFor();
  await page.locator('.backtest .hit').getByRole('button', { name: /^Watch / }).first().click();
  seen.moment = await advance();
  await step('backtest');

  // The other pages.
  await go('System');
  const rows = (table) => page.getByRole('group', { name: table }).locator('tbody tr').allInnerTexts();
  for (const end = Date.now() + DEADLINE_MS; ;) {
    await page.getByRole('group', { name: 'Table of queues' }).waitFor();
    seen.workers = await rows('Table of workers');
    if (Date.now() > end || WORKERS.every((word) => seen.workers.some((row) => row.includes(word)))) break;
    await button('Look again').click();
    await page.waitForTimeout(500);
  }
  seen.queues = await rows('Table of queues');
  await button(/^Test call/).click();
  seen.test_call = await page.getByText(/^It answered /).innerText();
  await button(/^Show the secret/).click();
  seen.secret = await page.locator('code.secret').innerText();
  await button(/^Hide the secret/).click();
  await step('system');
  await go('Streams');
  await page.locator('.stream .thumbnail img').first().waitFor();
  await step('streams');

  // By keyboard alone into the stream.
  await link('Skip to the content').focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  seen.after_skip = await page.evaluate(() => document.activeElement.textContent);
  await link('Main street').focus();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Main street' }).waitFor();
  await page.locator('.entry.alert').first().waitFor();
  await advance();
  await step('live');

  // On a phone, in the dark.
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.setViewportSize({ width: 390, height: 844 });
  const phone = async (name) => {
    await step(name);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    seen.overflow = Math.max(seen.overflow ?? overflow, overflow);
  };
  await phone('phone');
  await go('Alerts');
  await link('restricted area').first().click();
  await button(/^Deliver again/).first().waitFor();
  await page.getByText('Change it').click();
  await page.getByText('When it fires, how bad it is, what is told').click();
  await phone('phone-alert');
  await go('System');
  await button(/^Test call/).waitFor();
  await phone('phone-system');
  await go('Streams');
  await link('Main street').waitFor();
  await phone('phone-streams');

  seen.addresses = await page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => name));
  await button('Sign out').click();
  await field.waitFor();

  seen.violations = await violations();
  seen.errors = errors;
  console.log(JSON.stringify(seen));
} catch (error) {
  await failed?.().catch(() => {});
  throw error;
} finally {
  await browser.close();
}
