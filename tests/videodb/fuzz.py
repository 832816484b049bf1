"""schemathesis sends what the OpenAPI document allows and what it does not, to things that exist and to ids that it makes up: no
answer may be a fault of the server, and each is as the document says.

Fails when schemathesis finds something, with what it says as its error.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import videodb

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# How many requests of each call the runs make up: together they take less than a minute. Nothing is left to chance.
THERE, NOWHERE = 30, 8


def made(connection):
    """One of each: a camera that is not there, so that nothing but the API is busy."""
    stream = connection.get_collection().connect_rtstream(url="rtsp://127.0.0.1:1/none", name="Fuzzed")
    stream.stop()
    index = stream.index_visuals(prompt="Describe activity")
    understanding = stream.understand(analyzers=[{"type": "vlm", "name": "scene"}])
    alert = index.create_alert(connection.create_event("smoke", "smoke"), "")
    return {
        "path.rtstream_id": stream.id,
        "path.index_id": index.rtstream_index_id,
        "path.understanding_id": understanding.id,
        "path.alert_id": alert,
        "path.collection_id": "default",
    }


def run(base_url, api_key, ids, examples):
    """Runs it once; whether it found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "schemathesis.toml"
        lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in ids.items()]
        config.write_text("\n".join(["[parameters]", *lines, ""]) if ids else "")
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{base_url}/openapi.json"]
        command += ["--url", base_url, "--header", f"x-access-token: {api_key}", "--checks", CHECKS]
        command += ["--phases", "examples,fuzzing", "--max-examples", str(examples), "--generation-deterministic"]
        command += ["--no-shrink", "--no-color"]
        command += ["--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "30"]
        # What is found belongs to the error, which is what the test shows.
        return subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False).returncode == 0


def main(base_url, api_key):
    """Fuzzes what is there, and what is not."""
    ids = made(videodb.connect(api_key=api_key, base_url=base_url))
    fine = [run(base_url, api_key, ids, THERE), run(base_url, api_key, {}, NOWHERE)]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
