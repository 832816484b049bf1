"""The official VideoDB client calls all that it has of RtStreams, with nothing changed but base_url.

Prints one JSON object: what the client's attributes hold.
"""

import json
import sys
import time

import videodb


def wait(what, poll, seconds=90):
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


def indexes(stream):
    """Describes it, and switches that off and on."""
    visuals = stream.index_visuals(
        prompt="Describe activity", batch_config={"type": "time", "value": 5, "frame_count": 2}, name="Activity"
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


def alerts(connection, index, hook):
    """Watches an index for an event."""
    event = connection.create_event("Detect when someone enters restricted area", "entry")
    alert = index.create_alert(event, hook)
    index.disable_alert(alert)
    disabled = index.list_alerts()[0]["status"]
    index.enable_alert(alert)
    listed = index.list_alerts()
    return {
        "events": connection.list_events() == [
            {"event_id": event, "event_prompt": "Detect when someone enters restricted area", "label": "entry"}
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


def transcripts(stream):
    """Switches transcription off and on."""
    return [stream.stop_transcript()["status"], stream.start_transcript()["status"]]


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
    """The export, unless the worker is still stopping."""
    try:
        return stream.export()
    except videodb.InvalidRequestError as error:
        if "running" in str(error):
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
        "audio": refused(lambda: stream.index_audio(prompt="Sum up")),
        "outside": refused(connection.check_usage),
        "upload": refused(lambda: collection.upload(url="https://example.com/a.mp4")),
        "understand": refused(stream.list_understanding),
    }


def main(base_url, api_key, url, hook):
    """Plays a clip through all of it."""
    connection = videodb.connect(api_key=api_key, base_url=base_url)
    told = {"collections": collections(connection)}
    collection = connection.get_collection()
    stream, told["streams"] = streams(collection, url)
    index, told["indexes"] = indexes(stream)
    told["alerts"] = alerts(connection, index, hook)
    told["found"] = found(collection, stream, index)
    told["transcripts"] = transcripts(stream)
    told["errors"] = errors(connection, collection, stream, base_url)
    told["export"] = exported(collection, stream)
    stream.start()
    told["started"] = collection.get_rtstream(stream.id).status
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
