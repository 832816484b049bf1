"""The official VideoDB client calls all that it has of RtStreams, with nothing changed but base_url.

Prints one JSON object: what the client's attributes hold.
"""

import asyncio
import json
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


def refused(call):
    """The kind of error that a call raises, and what it says."""
    try:
        return ["nothing", str(call())]
    except videodb.VideodbError as error:
        return [type(error).__name__, str(error)]


def collections(connection):
    """Creates, changes, lists and deletes one."""
    made = connection.create_collection("Gates", "Where people come in")
    changed = connection.update_collection(made.id, "Doors", "Where people go out")
    listed = [collection.id for collection in connection.get_collections()]
    made.delete()
    return {
        "made": [made.name, made.description, made.is_public],
        "changed": [changed.id == made.id, changed.name, changed.description],
        "listed": listed == ["default", made.id],
        "deleted": refused(lambda: connection.get_collection(made.id)),
    }


def streams(collection, url):
    """Connects one and runs it."""
    stream = collection.connect_rtstream(
        url=url, name="Sample", media_types=["video", "audio"], store=True, enable_transcript=True
    )
    again = collection.get_rtstream(stream.id)
    listed = collection.list_rtstreams(limit=5, offset=0, status="connected", name="Sample", ordering="-created_at")
    told = {
        "id": stream.id,
        "connected": [stream.name, stream.status, stream.collection_id, stream.sample_rate],
        "created_at": stream.created_at,
        "again": [again.id == stream.id, again.name, again.created_at == stream.created_at],
        "listed": [one.id == stream.id for one in listed],
    }
    return stream, told


def indexes(stream, socket):
    """Describes it, and switches that off and on."""
    visuals = stream.index_visuals(
        prompt="Describe activity",
        batch_config={"type": "time", "value": 5, "frame_count": 2},
        name="Activity",
        ws_connection_id=socket,
    )
    scenes = stream.index_scenes(extraction_config={"time": 5, "frame_count": 2})
    same = stream.get_scene_index(visuals.rtstream_index_id)
    scenes.stop()
    stopped = stream.get_scene_index(scenes.rtstream_index_id).status
    told = {
        "visuals": [visuals.extraction_type, visuals.extraction_config, visuals.prompt, visuals.name, visuals.status],
        "scenes": [scenes.prompt, scenes.extraction_config],
        "same": [same.rtstream_index_id == visuals.rtstream_index_id, same.prompt],
        "listed": len(stream.list_scene_indexes()),
        "newer": [index.id == visuals.rtstream_index_id for index in stream.list_indexes()],
        "stopped": stopped,
    }
    return visuals, told


def audio(stream, socket):
    """Batches what is said, by sentences and by words."""
    index = stream.index_audio(
        prompt="Sum up what is said",
        batch_config={"type": "sentence", "value": 1},
        model_name="basic",
        model_config={},
        name="Speech",
        ws_connection_id=socket,
    )
    words = stream.index_spoken_words(length=4)
    return index, {
        "made": [index.extraction_type, index.extraction_config, index.prompt, index.name, index.status],
        "words": [words.extraction_type, words.extraction_config, words.prompt],
        "same": stream.get_scene_index(index.rtstream_index_id).extraction_config == index.extraction_config,
    }


def understanding(stream):
    """Understands it, and indexes that."""
    made = stream.understand(
        segmentation={"type": "time", "window": "5s"},
        analyzers=[
            {
                "type": "vlm",
                "name": "people",
                "sampling": {"frame_count": 2},
                "config": {"prompt": "Describe people", "model": "basic"},
            }
        ],
    )
    index = stream.index(made.outputs["people"], name="People", use_for=["semantic"])
    same = stream.get_understanding(made.id)
    made.stop()
    stopped = [made.status, same.refresh().status, index.refresh().status]
    index.start()
    return made, index, {
        "made": [made.id.startswith("und-"), made.rtstream_id == stream.id, made.store, made.segmentation],
        "analyzer": [made.analyzers[0]["name"], made.analyzers[0]["config"]["prompt"]],
        "outputs": made.outputs == {"people": {"understanding_id": made.id, "output": "people"}},
        "listed": [one.id == made.id for one in stream.list_understanding()],
        "index": [index.id.startswith("idx-"), index.name, index.use_for, index.output],
        "source": index.source_understanding_id == made.id,
        "same": [same.id == made.id, stream.get_index(index.id).name],
        "stopped": stopped,
        "started": made.refresh().status,
    }


def alerts(connection, index, hook, socket):
    """Watches an index for an event."""
    event = connection.create_event("a vehicle moving fast", "fast")
    alert = index.create_alert(event, hook, ws_connection_id=socket)
    index.disable_alert(alert)
    disabled = index.list_alerts()[0]["status"]
    index.enable_alert(alert)
    listed = index.list_alerts()
    return {
        "events": connection.list_events() == [
            {"event_id": event, "event_prompt": "a vehicle moving fast", "label": "fast"}
        ],
        "disabled": disabled,
        "listed": [[one["alert_id"] == alert, one["event_id"] == event, one["label"], one["status"]] for one in listed],
    }


def found(collection, stream, index):
    """What was seen and heard, and how to play it."""

    def two():
        told = index.get_scenes(page=1, page_size=2)
        return told if len(told["scenes"]) == 2 else None

    scenes = wait("two scenes", two)
    older, newer = sorted(scenes["scenes"], key=lambda scene: scene["start"])
    between = index.get_scenes(start=int(older["start"]), end=int(newer["start"]) + 1)["scenes"]
    transcript = wait("words", lambda: stream.get_transcript(page_size=10)["transcription_records"])
    later = stream.get_transcript(since=transcript[-1]["end"])["transcription_records"]
    shots = wait(
        "shots", lambda: stream.search("a car", index_id=index.rtstream_index_id, result_threshold=2).get_shots()
    )
    across = collection.search("a car", namespace="rtstream", result_threshold=1).get_shots()
    player_url = stream.generate_stream(int(older["start"]), int(newer["end"]))
    return {
        "newest_first": scenes["scenes"] == [newer, older],
        "texts": [bool(scene["description"]) and scene["text"] == scene["description"] for scene in scenes["scenes"]],
        "between": older["start"] in [scene["start"] for scene in between],
        "said": [bool(transcript[0]["text"]), bool(transcript[0]["word_timestamps"])],
        "later": transcript[0] not in later,
        "shots": [[shot.rtstream_id == stream.id, shot.scene_index_name, shot.search_score > 0] for shot in shots][:1],
        "across": [[shot.rtstream_id == stream.id, shot.rtstream_name] for shot in across],
        "player_url": player_url,
        "stream_url": stream.stream_url,
        "embed": stream.get_embed_code(),
        "shot": shots[0].generate_stream(),
    }


def ranges(stream, collection, index, understood, described, speech):
    """What is found within bounds, and what the newer calls hold."""
    shots = stream.search("a car", index_id=index.rtstream_index_id, score_threshold=0.01, dynamic_score_percentage=50)
    best = shots.get_shots()[0].search_score
    filtered = stream.search("a car", filter=[{"kind": "transcript"}]).get_shots()
    across = collection.search("a car", namespace="rtstream", filter=[{"scene_index_id": index.rtstream_index_id}])
    batch = wait("a batch", lambda: speech.get_scenes(page_size=1)["scenes"])[0]
    records = wait(
        "understood records",
        lambda: understood.get_records(start=0, end=time.time() + 3600, output="people", page_size=1)["records"],
    )
    newer = wait("indexed records", lambda: described.get_records(page_size=1)["records"])
    return {
        "strict": stream.search("a car", score_threshold=1.0).get_shots() == [],
        "dynamic": all(shot.search_score <= best for shot in shots.get_shots()),
        "kinds": [shot.metadata["kind"] for shot in filtered][:1],
        "across": {shot.scene_index_name for shot in across.get_shots()} == {"Activity"},
        "batch": [bool(batch["text"]), batch["end"] > batch["start"]],
        "understood": bool(records[0]["text"]),
        "newer": bool(newer[0]["text"]),
    }


def newer_alerts(connection, index):
    """Watches an index of the newer kind, by no webhook at all."""
    event = connection.list_events()[0]["event_id"]
    alert = index.create_alert(event, callback_url="")
    index.disable_alert(alert)
    disabled = index.list_alerts()[0]["status"]
    index.enable_alert(alert)
    return [disabled, index.list_alerts()[0]["status"]]


def transcripts(stream, socket):
    """Switches transcription off and on."""
    stopped = stream.stop_transcript(engine="assemblyai")
    started = stream.start_transcript(ws_connection_id=socket, engine="assemblyai")
    return [stopped["status"], started["status"], started["engine"], started["updated_at"] != stopped["updated_at"]]


def exported(collection, stream):
    """Stops, and has all of it written into one file."""
    stream.stop()
    wait("the end", lambda: collection.get_rtstream(stream.id).status == "stopped")
    export = wait("an export that is the same when asked for again", lambda: settled(stream))
    return {
        "name": export.name,
        "duration": export.duration,
        "stream_url": export.stream_url,
        "embed": export.get_embed_code(),
    }


def settled(stream):
    """The export, once asking twice makes one: the last segment is known a second after the end."""
    first, second = stream_export(stream), stream_export(stream)
    return second if first and second and first.video_id == second.video_id else None


def stream_export(stream):
    """The export, unless the worker is still stopping or writing."""
    try:
        return stream.export()
    except videodb.VideodbError as error:
        if "running" in str(error) or "ask again" in str(error):
            return None
        raise


def errors(connection, collection, stream, base_url):
    """What goes wrong raises what the client promises, with our words."""
    stranger = videodb.connect(api_key="wrong", base_url=base_url)
    return {
        "key": refused(stranger.get_collection),
        "unknown": refused(lambda: collection.get_rtstream("rts-unknown")),
        "url": refused(lambda: collection.connect_rtstream(url="gopher://x", name="x")),
        "prompt": refused(lambda: stream.index_visuals(prompt="")),
        "audio": refused(lambda: stream.index_audio(batch_config={"type": "letter", "value": 5})),
        "socket": refused(lambda: stream.start_transcript(ws_connection_id="ws-unknown")),
        "filter": refused(lambda: stream.search("x", filter=[{"color": "red"}])),
        "analyzers": refused(lambda: stream.understand(analyzers=[])),
        "outside": refused(connection.check_usage),
        "upload": refused(lambda: collection.upload(url="https://example.com/a.mp4")),
        "understanding": refused(lambda: stream.get_understanding("und-unknown")),
    }


async def channels(socket):
    """The first message of each channel, without what is still being said."""
    heard = {}
    async for message in socket.receive():
        if message["data"].get("is_final", True):
            heard.setdefault(message["channel"], message)
        if {"transcript", "scene_index", "audio_index", "alert"} <= heard.keys():
            return heard


def told_by(heard, stream_id):
    """What is promised of the messages of a WebSocket."""
    now = time.time() * 1000
    return {
        "streams": sorted({(one["rtstream_id"] == stream_id, one["rtstream_name"]) for one in heard.values()}),
        "texts": all(one["data"]["text"] for one in heard.values()),
        "times": all(now - 600_000 < one["data"]["start"] < one["data"]["end"] < now + 600_000 for one in heard.values()),
        "final": heard["transcript"]["data"]["is_final"],
        "alert": {key: heard["alert"]["data"][key] for key in ("label", "event_label", "triggered")},
        "sure": 0 < heard["alert"]["data"]["confidence"] <= 1,
        "plays": heard["alert"]["data"]["player_url"],
    }


def calls(connection, socket, url, hook, base_url):
    """Plays a clip through all of it, up to its export."""
    told = {"collections": collections(connection)}
    collection = connection.get_collection()
    stream, told["streams"] = streams(collection, url)
    index, told["indexes"] = indexes(stream, socket)
    speech, told["audio"] = audio(stream, socket)
    understood, described, told["understanding"] = understanding(stream)
    told["alerts"] = alerts(connection, index, hook, socket)
    told["transcripts"] = transcripts(stream, socket)
    told["found"] = found(collection, stream, index)
    told["ranges"] = ranges(stream, collection, index, understood, described, speech)
    told["newer_alerts"] = newer_alerts(connection, described)
    told["errors"] = errors(connection, collection, stream, base_url)
    return collection, stream, told


async def main(base_url, api_key, url, hook):
    """Makes the calls while a WebSocket tells what comes of them."""
    connection = videodb.connect(api_key=api_key, base_url=base_url)
    async with connection.connect_websocket() as socket:
        heard = asyncio.create_task(channels(socket))
        collection, stream, told = await asyncio.to_thread(
            calls, connection, socket.connection_id, url, hook, base_url
        )
        heard = await asyncio.wait_for(heard, 120)
        told["socket"] = told_by(heard, stream.id)
    told["export"] = exported(collection, stream)
    stream.start()
    told["started"] = collection.get_rtstream(stream.id).status
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
