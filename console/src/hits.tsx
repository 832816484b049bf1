// What a search found: pictures, scores and words; each can be watched at its moment.
import { useEffect, useRef, useState } from 'preact/hooks';
import { type SearchHit, SearchHit_Kind } from './gen/sightline/v1/index_pb';
import { Player } from './player';
import { to } from './route';
import { streamName } from './store';
import { iso, ms, when } from './time';
import { Score, Thumbnail } from './ui';

const KINDS: Record<SearchHit_Kind, string> = {
  [SearchHit_Kind.UNSPECIFIED]: '',
  [SearchHit_Kind.SCENE]: 'caption',
  [SearchHit_Kind.TRANSCRIPT]: 'speech',
  [SearchHit_Kind.AUDIO_SCENE]: 'speech index',
};

function Hit({ hit, playing, play }: { hit: SearchHit; playing: boolean; play: () => void }) {
  const middle = (ms(hit.startTime) + ms(hit.endTime)) / 2;
  const name = hit.rtstreamName || streamName(hit.rtstreamId);
  const shown = when(hit.startTime);
  return (
    <li class="card hit" {...(playing ? { 'aria-current': 'true' as const } : {})}>
      <Thumbnail rtstreamId={hit.rtstreamId} atMs={hit.streamUrl === '' ? 0 : middle} />
      <div>
        <p class="head">
          <Score value={hit.score} />
          <span class="badge quiet">{KINDS[hit.kind]}</span>
          <a href={to(['streams', hit.rtstreamId])}>{name}</a>
          <time dateTime={iso(hit.startTime)}>{shown}</time>
        </p>
        <p class="caption">{hit.text}</p>
        {hit.streamUrl === ''
          ? <p class="hint">Not recorded.</p>
          : <button type="button" onClick={play} aria-label={`Watch ${name} at ${shown}`}>Watch</button>}
      </div>
    </li>
  );
}

/** Hits, best first; the one that is chosen plays above them. */
export function Hits({ hits }: { hits: SearchHit[] }) {
  const [chosen, choose] = useState('');
  const stage = useRef<HTMLDivElement>(null);
  const playing = hits.find(({ id }) => id === chosen);
  useEffect(() => {
    if (playing) stage.current?.scrollIntoView({ block: 'nearest' });
  }, [playing?.id]);
  return (
    <>
      {playing && (
        <div class="stage found" ref={stage}>
          <Player url={playing.streamUrl} atMs={ms(playing.startTime)} label={`Found in ${streamName(playing.rtstreamId)}`} />
          <p class="now">{playing.text}</p>
        </div>
      )}
      <ol class="hits">
        {hits.map((hit) => <Hit key={hit.id} hit={hit} playing={hit.id === chosen} play={() => choose(hit.id)} />)}
      </ol>
    </>
  );
}
