// When windows become a firing, how bad it is and what is told of it: as fields, and in words.
import { useRef } from 'preact/hooks';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, durationFromMs, durationMs } from '@bufbuild/protobuf/wkt';
import { type Alert, DeliveryMode, type Policy, type PolicySchema, Severity } from './gen/sightline/v1/event_pb';
import { Field } from './ui';

/** As the fields have it: empty means the default. */
export interface Terms {
  required: string;
  of: string;
  closeAfter: string;
  cooldownMinutes: string;
  severity: Severity;
  delivery: DeliveryMode;
}

export const DEFAULT: Terms = {
  required: '',
  of: '',
  closeAfter: '',
  cooldownMinutes: '',
  severity: Severity.WARNING,
  delivery: DeliveryMode.COMPLETE,
};

const SEVERITIES: Record<Severity, [name: string, kind: string, long: string]> = {
  [Severity.UNSPECIFIED]: ['warning', 'warn', ''],
  [Severity.INFO]: ['info', 'quiet', 'Info: good to know'],
  [Severity.WARNING]: ['warning', 'warn', 'Warning: somebody should look'],
  [Severity.CRITICAL]: ['critical', 'bad', 'Critical: somebody has to act now'],
};

const DELIVERIES: Record<DeliveryMode, string> = {
  [DeliveryMode.UNSPECIFIED]: '',
  [DeliveryMode.COMPLETE]: 'One message with explanation and clip',
  [DeliveryMode.FIRST]: 'At once, without explanation and clip',
  [DeliveryMode.ALL]: 'When it begins, when explanation and clip are there, and when it ends',
};

const MINUTE_MS = 60_000;
const minutes = (time: Duration | undefined): number => (time ? durationMs(time) / MINUTE_MS : 0);
const shown = (value: number): string => (value === 0 ? '' : String(value));

/** The fields of an alert. */
export function termsOf({ policy, severity, delivery }: Alert): Terms {
  return {
    required: shown(policy?.required ?? 0),
    of: shown(policy?.of ?? 0),
    closeAfter: shown(policy?.closeAfter ?? 0),
    cooldownMinutes: shown(minutes(policy?.cooldown)),
    severity: severity || Severity.WARNING,
    delivery: delivery || DeliveryMode.COMPLETE,
  };
}

/** The policy that the fields ask for; what they do not show stays. */
export function policyOf(terms: Terms, before?: Policy): MessageInitShape<typeof PolicySchema> {
  const required = Number(terms.required);
  return {
    schedule: before?.schedule ?? [],
    timeZone: before?.timeZone ?? '',
    required,
    of: Math.max(Number(terms.of), required),
    closeAfter: Number(terms.closeAfter),
    cooldown: durationFromMs(Math.round(Number(terms.cooldownMinutes) * MINUTE_MS)),
  };
}

export function SeverityBadge({ severity }: { severity: Severity }) {
  const [name, kind] = SEVERITIES[severity] ?? ['unknown', 'quiet'];
  return <span class={`badge ${kind}`}>{name}</span>;
}

const DAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];
const two = (value: number): string => String(value).padStart(2, '0');
const time = (minute: number): string => `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;

function awake({ schedule, timeZone }: Policy): string {
  const parts = schedule.map(({ days, fromMinute, toMinute }) => {
    const names = days.map((day) => DAYS[day - 1] ?? '').join(' ');
    return `${names === '' ? 'every day' : names} ${time(fromMinute)}–${time(toMinute)}`;
  });
  return `${parts.join(', ')} (${timeZone || 'UTC'})`;
}

/** What an alert goes by. */
export function PolicyFacts({ alert: { policy, severity, delivery } }: { alert: Alert }) {
  const required = policy?.required || 1;
  const of = policy?.of || 1;
  const closeAfter = policy?.closeAfter || 1;
  const cooldown = minutes(policy?.cooldown);
  return (
    <dl class="facts">
      <div><dt>Fires when</dt><dd>{of === 1 ? 'a window counts' : `${required} of the last ${of} windows count`}</dd></div>
      <div><dt>Closes after</dt><dd>{closeAfter} {closeAfter === 1 ? 'window that does not count' : 'windows that do not count'}</dd></div>
      <div><dt>Cooldown</dt><dd>{cooldown === 0 ? 'none' : `${cooldown} min`}</dd></div>
      {policy && policy.schedule.length > 0 && <div><dt>Awake</dt><dd>{awake(policy)}</dd></div>}
      <div><dt>Severity</dt><dd><SeverityBadge severity={severity} /></dd></div>
      <div><dt>Told</dt><dd>{DELIVERIES[delivery || DeliveryMode.COMPLETE]}</dd></div>
    </dl>
  );
}

/** The fields, closed until somebody wants them. */
export function PolicyFields({ terms, set }: { terms: Terms; set: (terms: Terms) => void }) {
  const place = useRef<HTMLDetailsElement>(null);
  const count = (label: string, name: 'required' | 'of' | 'closeAfter', hint: string) => (
    <Field label={label} hint={hint}>
      {(props) => <input {...props} type="number" min="1" max="20" step="1" value={terms[name]} onInput={(event) => set({ ...terms, [name]: event.currentTarget.value })} />}
    </Field>
  );
  return (
    <details ref={place} onInvalidCapture={() => place.current?.setAttribute('open', '')}>
      <summary>When it fires, how bad it is, what is told</summary>
      <div class="form">
        <div class="row">
          {count('Windows that have to count', 'required', '1 to 20; empty: 1.')}
          {count('Of the last windows', 'of', '1 to 20; empty: as many as have to count.')}
        </div>
        <div class="row">
          {count('Windows until it closes', 'closeAfter', 'So many that do not count, 1 to 20; empty: 1.')}
          <Field label="Cooldown in minutes" hint="After it closed, it does not fire for so long. Empty: no pause.">
            {(props) => <input {...props} type="number" min="0" max="1440" step="any" value={terms.cooldownMinutes} onInput={(event) => set({ ...terms, cooldownMinutes: event.currentTarget.value })} />}
          </Field>
        </div>
        <div class="row">
          <Field label="Severity">
            {(props) => (
              <select {...props} value={terms.severity} onChange={(event) => set({ ...terms, severity: Number(event.currentTarget.value) })}>
                {[Severity.INFO, Severity.WARNING, Severity.CRITICAL].map((value) => <option key={value} value={value}>{SEVERITIES[value][2]}</option>)}
              </select>
            )}
          </Field>
          <Field label="What is delivered">
            {(props) => (
              <select {...props} value={terms.delivery} onChange={(event) => set({ ...terms, delivery: Number(event.currentTarget.value) })}>
                {[DeliveryMode.FIRST, DeliveryMode.COMPLETE, DeliveryMode.ALL].map((value) => <option key={value} value={value}>{DELIVERIES[value]}</option>)}
              </select>
            )}
          </Field>
        </div>
      </div>
    </details>
  );
}
