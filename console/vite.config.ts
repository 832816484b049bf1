// Builds the page into dist/page/: index.html, and beside it what it loads, all of it also compressed.
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

/** The address at which the gateway serves its hls.js, as services/gateway/src/playback/assets.rs makes it. */
function hlsAddress(): string {
  const file = readFileSync(join(import.meta.dirname, '../services/gateway/assets/hls.js/hls.min.js'));
  const hash = createHash('sha256').update(file).digest().subarray(0, 12).toString('base64url');
  return `assets/hls.js?${hash}`;
}

let folder = '';
/** The gateway compresses nothing itself. */
const compressed: Plugin = {
  name: 'compressed',
  apply: 'build',
  configResolved({ build }) {
    folder = join(import.meta.dirname, build.outDir, build.assetsDir);
  },
  closeBundle() {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
    }
  },
};

export default defineConfig({
  base: './',
  define: { HLS_ADDRESS: JSON.stringify(hlsAddress()) },
  plugins: [compressed],
  build: {
    outDir: 'dist/page',
    emptyOutDir: true,
    // Not assets/: there the gateway serves what player pages load.
    assetsDir: 'console',
    // Nothing is written into the page itself: the content security policy allows no inline script, style or data.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
});
