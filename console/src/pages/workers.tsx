// Which workers there are and what waits for them, for operators.
import { Code } from '@connectrpc/connect';
import { codeOf, system } from '../api';
import type { GetSystemResponse, Queue, Worker } from '../gen/sightline/v1/system_pb';
import { when } from '../time';
import { Failure, useLoad } from '../ui';

/** Why nothing is told. */
const DENIED = 'Workers and queues are shown to operators alone. Sign in with an operator\'s key to see them.';
const OLDER = 'This server does not tell which workers there are. Each process has its state at /metrics of its --admin-listen address, for Prometheus.';

async function look(): Promise<GetSystemResponse | string> {
  try {
    return await system.getSystem({});
  } catch (error) {
    const code = codeOf(error);
    if (code === Code.PermissionDenied) return DENIED;
    if (code === Code.Unimplemented) return OLDER;
    throw error;
  }
}

function Workers({ workers }: { workers: Worker[] }) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Table of workers">
      <table>
        <thead><tr><th scope="col">Role</th><th scope="col">Process</th><th scope="col">Version</th><th scope="col">Model</th><th scope="col">Its revision</th><th scope="col">Ready since</th></tr></thead>
        <tbody>
          {workers.map((worker) => (
            <tr key={`${worker.role} ${worker.name} ${worker.model}`}>
              <th scope="row">{worker.role}</th>
              <td>{worker.name}</td>
              <td>{worker.version}</td>
              <td>{worker.model}</td>
              <td>{worker.modelRevision}</td>
              <td>{when(worker.startTime)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Queues({ queues }: { queues: Queue[] }) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Table of queues">
      <table>
        <thead><tr><th scope="col">Queue</th><th scope="col">For</th><th scope="col">Waiting</th><th scope="col">In progress</th></tr></thead>
        <tbody>
          {queues.map((queue) => (
            <tr key={`${queue.stream} ${queue.consumer}`}>
              <th scope="row">{queue.stream}</th>
              <td>{queue.consumer}</td>
              <td class="number">{String(queue.waiting)}</td>
              <td class="number">{String(queue.inProgress)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** As they were when the page was opened, or when they were looked at again. */
export function Platform() {
  const found = useLoad(look, []);
  const answer = found.value;
  return (
    <section class="card" aria-label="Workers">
      <div class="head">
        <h2>Workers</h2>
        <button type="button" onClick={found.reload}>Look again</button>
      </div>
      <Failure text={found.failure} retry={found.reload} />
      {!answer && found.failure === '' && <p class="quiet" role="status">Asking …</p>}
      {typeof answer === 'string' && <p>{answer}</p>}
      {typeof answer === 'object' && (
        <>
          {answer.workers.length === 0 && <p class="detail">No worker answers. Start one of each role.</p>}
          {answer.workers.length > 0 && <Workers workers={answer.workers} />}
          {answer.queues.length > 0 && <Queues queues={answer.queues} />}
        </>
      )}
    </section>
  );
}
