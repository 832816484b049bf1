"""The calls of VideoDB's page on real-time streams, in its order and with its arguments: only base_url, the stream's URL and where
webhooks go are other ones.

Prints one JSON object: what a reader of the page would look at.
"""

import asyncio
import json
import os
import sys
import time

import videodb


def wait(what, poll, seconds=120):
    """What `poll` returns, once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = poll()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(what)


async def first(ws, channel):
    """The first message of a channel."""
    async for event in ws.receive():
        if event.get("channel") == channel:
            return event


async def main(base_url, api_key, url, hook):
    """Goes through the page."""
    # The page takes the key from the environment.
    os.environ["VIDEO_DB_API_KEY"] = api_key
    conn = videodb.connect(base_url=base_url)
    coll = conn.get_collection()
    connected = coll.connect_rtstream(url=url, name="Page", store=True)
    ws = conn.connect_websocket()
    await ws.connect()

    # Quick example
    rtstream = coll.get_rtstream(connected.id)
    scene_index = rtstream.index_visuals(
        prompt="Describe activity and detect unusual behavior",
        batch_config={"type": "time", "value": 5, "frame_count": 2},
    )
    event_id = conn.create_event(
        event_prompt="Detect when someone enters restricted area", label="intrusion_detected"
    )
    alert_id = scene_index.create_alert(event_id=event_id, callback_url=hook)

    # Visual indexing
    monitor = rtstream.index_visuals(
        prompt="Describe the scene and highlight congestion",
        batch_config={"type": "time", "value": 10, "frame_count": 5},
        name="traffic_monitor",
        ws_connection_id=ws.connection_id,
    )

    # Managing indexes
    names = [index.name for index in rtstream.list_scene_indexes()]
    scene_index = rtstream.get_scene_index(scene_index.rtstream_index_id)

    # Audio indexing
    batches = [{"type": "word", "value": 50}, {"type": "sentence", "value": 5}, {"type": "time", "value": 30}]
    audio = [
        rtstream.index_audio(prompt="Identify key speakers and main topics", batch_config=batch) for batch in batches
    ]

    # Transcription
    started = rtstream.start_transcript(ws_connection_id=ws.connection_id)
    transcript = await asyncio.wait_for(first(ws, "transcript"), 120)
    said = await asyncio.to_thread(
        wait, "words", lambda: rtstream.get_transcript(page=1, page_size=100, start=0)["transcription_records"]
    )
    stopped = rtstream.stop_transcript()

    scenes = await asyncio.to_thread(
        wait, "scenes", lambda: scene_index.get_scenes(start=0, end=None, page=1, page_size=100)["scenes"]
    )

    # Search
    shots = (await asyncio.to_thread(
        wait, "shots", lambda: rtstream.search(query="people walking", result_threshold=5).get_shots()
    ))

    # Events and alerts
    listed = [event["label"] for event in conn.list_events()]
    scene_index.disable_alert(alert_id)
    scene_index.enable_alert(alert_id)
    alerts = scene_index.list_alerts()

    # Playback
    end = time.time()
    player = rtstream.generate_stream(
        start=scenes[-1]["start"],
        end=end,
        player_config={"title": "Gate", "description": "What happened", "slug": "gate"},
    )
    await ws.close()
    print(
        json.dumps(
            {
                "alert": alert_id.startswith("alr-"),
                "names": [monitor.name in names, len(names)],
                "audio": [index.extraction_config for index in audio],
                "transcription": [started["status"], stopped["status"]],
                "transcript": [transcript["rtstream_id"] == rtstream.id, bool(transcript["data"]["text"])],
                "said": bool(said[0]["text"]),
                "scenes": all(scene["start"] < scene["end"] for scene in scenes),
                "shots": [[bool(shot.text), 0 <= shot.search_score <= 1, bool(shot.generate_stream())] for shot in shots][:1],
                "listed": "intrusion_detected" in listed,
                "alerts": [[one["alert_id"] == alert_id, one["status"]] for one in alerts],
                "player": "/watch?v=gate-" in player,
                "embed": rtstream.get_embed_code(),
            }
        )
    )
    rtstream.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
