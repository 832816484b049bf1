// Times as the API has them, and as people read them.
import { type Timestamp, timestampDate, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';

export function ms(time: Timestamp | undefined): number {
  return time ? timestampMs(time) : 0;
}

export function stamp(milliseconds: number): Timestamp {
  return timestampFromMs(milliseconds);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

/** The time of day; with the date, unless it is today. */
export function when(time: Timestamp | undefined): string {
  if (!time) return '';
  const date = timestampDate(time);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** "12 s ago"; what lies ahead, as the time of a file that is played fast may, is "now". */
export function ago(milliseconds: number, now: number): string {
  const seconds = Math.round((now - milliseconds) / 1000);
  if (seconds < 2) return 'now';
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export function iso(time: Timestamp | undefined): string {
  return time ? timestampDate(time).toISOString() : '';
}
