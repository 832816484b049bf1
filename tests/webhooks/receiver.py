"""A receiver of webhooks that verifies each with the `standardwebhooks` library, with the first of the secrets on its command line.

Prints its URL, then one line of JSON a webhook: {"id": …, "verified": …, "tampered": …}, where `tampered` is whether a body with one
byte changed was taken too. Answers 204 to what it verified and 400 to the rest.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(sys.argv[1])


def verified(body, headers):
    try:
        WEBHOOK.verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = {
            "id": headers.get("webhook-id"),
            "verified": verified(body, headers),
            "tampered": verified(body.replace(b"{", b"{ ", 1), headers),
        }
        self.send_response(204 if seen["verified"] else 400)
        self.end_headers()
        print(json.dumps(seen), flush=True)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}/hook"}), flush=True)
server.serve_forever()
