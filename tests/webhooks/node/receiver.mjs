// A receiver of webhooks that verifies each with the `standardwebhooks` library, with the secret on its command line.
//
// Prints what tests/webhooks/receiver.py prints.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.argv[2]);

function verified(body, headers) {
  try {
    webhook.verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const seen = {
    id: request.headers["webhook-id"],
    verified: verified(body, request.headers),
    tampered: verified(body.replace("{", "{ "), request.headers),
  };
  response.writeHead(seen.verified ? 204 : 400).end();
  console.log(JSON.stringify(seen));
});
server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/hook` }));
});
