// What the scripts here share: a real Chromium with a fresh profile, and pages that tell what went wrong on them.
import { chromium } from 'playwright-core';

export const DEADLINE_MS = 60000;

export function launch(executablePath) {
  return chromium.launch({
    executablePath,
    headless: true,
    timeout: DEADLINE_MS,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

// A page in a new context, which has a fresh profile. `errors` and `violations()` say what its scripts, its console and its
// content security policy complained about.
export async function open(browser, options = {}) {
  const page = await (await browser.newContext(options)).newPage();
  const errors = [];
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('dialog', (dialog) => dialog.dismiss());
  await page.addInitScript(() => {
    window.seen = { playing: null, violations: [] };
    document.addEventListener('securitypolicyviolation', (event) => {
      window.seen.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
    });
  });
  const violations = () => page.evaluate(() => window.seen.violations);
  return { page, errors, violations };
}
