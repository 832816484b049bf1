"""The official VideoDB client plays what was found: search, shots and streams, with nothing changed but base_url.

Prints one JSON object: what the client's attributes hold.
"""

import json
import sys

import videodb
from videodb.rtstream import RTStream


def main(base_url, api_key, rtstream_id, start, end):
    """Searches a stream, and asks for links to what was found and to a stretch of it."""
    connection = videodb.connect(api_key=api_key, base_url=base_url)
    stream = RTStream(connection, id=rtstream_id, name="clip", collection_id="default")
    shots = stream.search("white car moving fast", result_threshold=3).get_shots()
    player_url = stream.generate_stream(
        int(start),
        int(end),
        player_config={"title": "A white car", "description": "moving fast", "slug": "white-car"},
    )
    try:
        RTStream(connection, id="rts-unknown").generate_stream(1, 2)
        refused = None
    except videodb.InvalidRequestError as error:
        refused = str(error)
    try:
        videodb.connect(api_key="wrong", base_url=base_url)
        RTStream(videodb.connect(api_key="wrong", base_url=base_url), id=rtstream_id).generate_stream(1, 2)
        unauthenticated = None
    except videodb.AuthenticationError as error:
        unauthenticated = str(error)
    print(
        json.dumps(
            {
                "shots": [
                    {
                        "text": shot.text,
                        "score": shot.search_score,
                        "stream_url": shot.generate_stream(),
                        "player_url": shot.player_url,
                        "embed": shot.get_embed_code(),
                    }
                    for shot in shots
                ],
                "stream_url": stream.stream_url,
                "player_url": player_url,
                "embed": stream.get_embed_code(),
                "refused": refused,
                "unauthenticated": unauthenticated,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
