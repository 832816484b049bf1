// Where in the console the address points: "#/streams/ID?name=value". No secret ever stands there.
import { signal } from '@preact/signals';

export interface Route {
  /** The path's parts. */
  path: string[];
  query: URLSearchParams;
}

function read(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const parts = path.split('/').filter((part) => part !== '');
  return { path: parts.map(decoded), query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal(read());
addEventListener('hashchange', () => {
  route.value = read();
});

/** The address of a place in the console. */
export function to(path: string[], query: Record<string, string> = {}): string {
  const words = new URLSearchParams(query).toString();
  return `#/${path.map(encodeURIComponent).join('/')}${words === '' ? '' : `?${words}`}`;
}

export function go(path: string[], query: Record<string, string> = {}): void {
  location.hash = to(path, query);
}
