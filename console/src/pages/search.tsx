// Searching what was seen and said, across streams.
import { useEffect, useState } from 'preact/hooks';
import { all, collections, indexes, PAGE } from '../api';
import { SearchHit_Kind } from '../gen/sightline/v1/index_pb';
import { Hits } from '../hits';
import { go, route } from '../route';
import { knownStream, order, streamName } from '../store';
import { Empty, Failure, Field, Page, useLoad } from '../ui';

const LIMIT = 20;
const ALL = 'default';

const KINDS: Record<string, SearchHit_Kind[]> = {
  any: [],
  captions: [SearchHit_Kind.SCENE],
  speech: [SearchHit_Kind.TRANSCRIPT, SearchHit_Kind.AUDIO_SCENE],
};

function Results({ query, where, kind }: { query: string; where: string; kind: string }) {
  const place = where.startsWith('rts-') ? { rtstreamId: where } : { collectionId: where };
  const found = useLoad(() => indexes.search({ ...place, query, limit: LIMIT, kinds: KINDS[kind] ?? [] }), [query, where, kind]);
  if (found.failure !== '') return <Failure text={found.failure} retry={found.reload} />;
  if (!found.value) return <p class="quiet" role="status">Searching …</p>;
  const { hits } = found.value;
  return (
    <>
      <p class="quiet" role="status">{hits.length === 0 ? '' : `${hits.length} found, best first`}</p>
      {hits.length === 0
        ? <Empty title="Nothing is stored there yet."><p>Captions and speech can be found a few seconds after they arrive. Start a stream that has an index, then search again.</p></Empty>
        : <Hits key={`${query} ${where} ${kind}`} hits={hits} />}
    </>
  );
}

export function SearchPage() {
  const given = route.value.query;
  const query = given.get('q') ?? '';
  const where = given.get('in') ?? ALL;
  const kind = given.get('kind') ?? 'any';
  const [typed, setTyped] = useState(query);
  const [place, setPlace] = useState(where);
  const [wanted, setWanted] = useState(kind);
  // A search asked for twice is made twice: more may be stored by now.
  const [round, setRound] = useState(0);
  useEffect(() => {
    setTyped(query);
    setPlace(where);
    setWanted(kind);
  }, [query, where, kind]);
  const groups = useLoad(() => all(async (pageToken) => {
    const answer = await collections.listCollections({ pageSize: PAGE, pageToken });
    return { items: answer.collections, nextPageToken: answer.nextPageToken };
  }), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    if (typed.trim() === '') return;
    setRound(round + 1);
    go(['search'], { q: typed.trim(), in: place, kind: wanted });
  };
  const others = (groups.value ?? []).filter(({ id }) => id !== ALL);
  return (
    <Page title="Search">
      <form class="searchbar" role="search" onSubmit={submit}>
        <Field label="Look for">
          {(props) => <input {...props} type="search" required maxLength={1000} placeholder="a white car moving fast" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />}
        </Field>
        <Field label="In">
          {(props) => (
            <select {...props} value={place} onChange={(event) => setPlace(event.currentTarget.value)}>
              <option value={ALL}>the default collection</option>
              {others.map((group) => <option key={group.id} value={group.id}>{group.name}</option>)}
              {order.value.map((id) => <option key={id} value={id}>{streamName(id)}</option>)}
              {place.startsWith('rts-') && !knownStream(place) && <option value={place}>{place}</option>}
            </select>
          )}
        </Field>
        <Field label="Among">
          {(props) => (
            <select {...props} value={wanted} onChange={(event) => setWanted(event.currentTarget.value)}>
              <option value="any">captions and speech</option>
              <option value="captions">captions</option>
              <option value="speech">speech</option>
            </select>
          )}
        </Field>
        <button type="submit" class="main">Search</button>
      </form>
      {query === ''
        ? <Empty title="Describe in your own words what you look for."><p>It is found by meaning, in captions and in what was said.</p></Empty>
        : <Results key={round} query={query} where={where} kind={kind} />}
    </Page>
  );
}
