// What the build and the gateway give beside the modules.

/** Where the gateway serves hls.js, relative to the page; set by vite.config.ts. */
declare const HLS_ADDRESS: string;

/** The part of hls.js that the player uses. */
interface HlsFragment {
  start: number;
  duration: number;
  programDateTime: number | null;
}
interface HlsEvents {
  hlsManifestParsed: unknown;
  hlsLevelLoaded: { details: { live: boolean; fragments: HlsFragment[] } };
  hlsError: {
    fatal: boolean;
    type: string;
    response?: { code: number };
    networkDetails?: { getResponseHeader?: (name: string) => string | null };
  };
}
declare class Hls {
  constructor(config: Record<string, unknown>);
  static isSupported(): boolean;
  readonly playingDate: Date | null;
  on<Name extends keyof HlsEvents>(name: Name, listener: (name: Name, data: HlsEvents[Name]) => void): void;
  loadSource(url: string): void;
  attachMedia(video: HTMLVideoElement): void;
  startLoad(position: number): void;
  recoverMediaError(): void;
  destroy(): void;
}
interface Window {
  Hls?: typeof Hls;
}
