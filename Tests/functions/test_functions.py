"""`make test-functions`: every folder of functions/ on one gateway, whose memory is too small for all at once."""

import http.client
import io
import json
import random
import re
import threading
import time
import wave

import pytest
from example import FOLDER, NAMES, examples, form
from gateway import Gateway

#: What all of them take when each has a worker is about twice as much.
MEMORY = "1GiB"


@pytest.fixture(scope="module")
def house():
    """A gateway with all functions deployed and none of them loaded."""
    gateway = Gateway(workers_memory=MEMORY)
    for name in NAMES:
        gateway.cli("deploy", str(FOLDER / name))
    yield gateway
    gateway.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_cold_and_hot_as_its_folder_says(house, name):
    for example in examples(name):
        cold = example.call(house)
        assert cold.start == example.start
        example.check(cold)
        hot = example.call(house)
        assert hot.start == "hot"
        example.check(hot)
        example.check_nothing_else(hot)


def test_all_of_them_at_once_in_memory_for_some(house):
    """Every function is called by a client of its own, which waits a moment now and then."""
    problems = []

    def client(name, seed):
        chance = random.Random(seed)
        calls = examples(name)
        for _ in range(4):
            example = chance.choice(calls)
            try:
                example.check(example.call(house, timeout=300))
            except Exception as error:
                problems.append(f"{name}: {type(error).__name__}: {error}")
            time.sleep(chance.random())

    clients = [threading.Thread(target=client, args=(name, seed)) for seed, name in enumerate(NAMES) if examples(name)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not problems, "\n".join(problems)
    called = {name for name in NAMES if examples(name)}
    loaded = {row["function"] for row in house.workers()}
    assert loaded < called, "the memory is too small for all of them, or this says nothing"


def test_no_worker_of_theirs_has_crashed(house):
    for name in NAMES:
        log = house.functions_log(name)
        assert not re.search("SIG(SEGV|BUS|ABRT|ILL|FPE)", log), log


def test_wrong_input_is_told_of(house):
    for name, body, kind, text in [
        ("watch", b"not a picture", "image/png", "not a JPEG"),
        ("watch", b'{"frame": "none"}', "application/json", "each 'frame' is a file"),
        ("listen", b"not a sound", "audio/wav", "not a WAV file"),
        ("speak", b'{"text": " "}', "application/json", 'send {\\"text\\"'),
        ("dungeon", b"{}", "application/json", "send what you do"),
        ("dungeon", b'{"action": "sing", "tokens": "many"}', "application/json", "not a number"),
        ("dungeon", b'{"action": "sing", "tokens": 1e999}', "application/json", "not a number"),
        ("dungeon", b'{"action": "sing", "seed": -1}', "application/json", "not a number"),
        ("embed", b'{"words": 1}', "application/json", 'send {\\"text\\"'),
        ("catalogue", b"{}", "application/json", "send a form"),
        (
            "catalogue",
            *form(FOLDER / "catalogue/example", {"picture": "@expected.json", "text": "A red cup."}),
            "is not a picture",
        ),
        ("classify-image", b"{}", "application/json", "send the picture"),
        ("digits/models/customer-000", b'{"pixels": [1]}', "application/json", "64 numbers"),
        ("translate/models/en-pt", b"[]", "application/json", 'send {\\"text\\"'),
        ("translate/models/reaction-atoms", b'{"text": "CCO"}', "application/json", "not a reaction"),
        (
            "translate/models/reaction-atoms",
            b'{"text": "%s>>C"}' % (b"C" * 500),
            "application/json",
            "at most 400 atoms",
        ),
        ("translate/models/reaction-atoms", b'{"text": "CCO>>"}', "application/json", "cannot be mapped"),
    ]:
        answer = house.request(f"/functions/{name}", body, fields={"Content-Type": kind}, timeout=120)
        assert (answer.status, answer.code) == (400, "function_input"), (name, answer.body)
        assert text in answer.body.decode(), (name, answer.body)


def test_the_detector_finds_a_person_where_there_is_one(house):
    """Several frames in one request, and a picture with boxes."""
    body, kind = form(FOLDER / "watch/example", {"frame": "@astronaut.jpg"})
    frames = house.request("/functions/watch", body, fields={"Content-Type": kind}, timeout=120).json["frames"]
    assert [(frame["name"], frame["alert"]) for frame in frames] == [("astronaut.jpg", True)]
    picture = (FOLDER / "watch/example/astronaut.jpg").read_bytes()
    drawn = house.request(
        "/functions/watch", picture, fields={"Content-Type": "image/jpeg", "Accept": "image/png"}, timeout=120
    )
    assert drawn.fields["content-type"] == "image/png" and drawn.body.startswith(b"\x89PNG")
    # The box that is drawn, and the picture itself elsewhere.
    again = house.request("/functions/watch", drawn.body, fields={"Content-Type": "image/png"}, timeout=120).json
    assert again["alert"] is True


def test_what_speak_says_listen_writes_down(house):
    spoken = house.call("speak", {"text": "We heard two shots near the northern fence."}, timeout=120)
    assert spoken.fields["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(spoken.body)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
    heard = house.request("/functions/listen", spoken.body, fields={"Content-Type": "audio/wav"}, timeout=120)
    words = heard.json["text"].lower()
    for word in ("heard", "two", "shots", "near", "northern", "fence"):
        assert word in words, words


def test_listen_cuts_a_long_recording_where_nobody_speaks(house):
    with wave.open(str(FOLDER / "listen/example/speech.wav")) as file:
        rate, speech = file.getframerate(), file.readframes(file.getnframes())
    silence = bytes(2 * rate * 4)
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(silence + speech + silence + speech + silence)
    heard = house.request("/functions/listen", whole.getvalue(), fields={"Content-Type": "audio/wav"}, timeout=120)
    segments = heard.json["segments"]
    assert len(segments) == 2, segments
    length = len(speech) / 2 / rate
    assert abs(segments[0]["begin"] - 4) < 1 and abs(segments[1]["begin"] - (8 + length)) < 1, segments
    assert all("fence" in segment["text"].lower() for segment in segments)


def test_embeddings_keep_what_is_alike_together(house):
    texts = [
        "A lion rests in the tall grass.",
        "A big cat is lying down outdoors.",
        "The central bank raised interest rates.",
        "Borrowing money has become dearer.",
    ]
    vectors = [house.call("embed", {"text": text}, timeout=120).json["vector"] for text in texts]

    def alike(left, right):
        return sum(x * y for x, y in zip(vectors[left], vectors[right], strict=True))

    for pair in ((0, 1), (2, 3)):
        for other in ((0, 2), (0, 3), (1, 2), (1, 3)):
            assert alike(*pair) > alike(*other) + 0.1, (pair, other)


def test_the_dungeon_tells_word_by_word_and_ends_when_nobody_listens(house):
    body = json.dumps({"action": "look around", "temperature": 0, "tokens": 24})
    fields = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    stream = house.request("/functions/dungeon", body, fields=fields, timeout=120).body.decode()
    events = [event.split("\n") for event in stream.strip().split("\n\n")]
    words = [json.loads(lines[1][len("data: ") :]) for lines in events if lines[0] == "event: word"]
    assert len(words) > 10
    (example,) = examples("dungeon")
    assert "".join(words) == example.answer["text"]
    story = json.loads(events[-1][1][len("data: ") :])
    assert events[-1][0] == "event: story" and story.endswith("".join(words))

    # A long story that its client does not wait for.
    body = json.dumps({"action": "tell me everything", "tokens": 400, "seed": 1})
    connection = http.client.HTTPConnection(*house.address, timeout=60)
    connection.request("POST", "/functions/dungeon", body, fields)
    assert b"event:" in connection.getresponse().read(20)
    connection.close()
    house.wait_for(
        lambda: all(row["inFlight"] == 0 for row in house.workers() if row["function"] == "dungeon"),
        "the end of a story that nobody listens to",
        timeout=5,
    )


def test_the_same_seed_tells_the_same_story(house):
    turn = {"action": "draw your sword", "tokens": 12}
    first, again, other = (house.call("dungeon", turn | {"seed": seed}, timeout=120).json["text"] for seed in (1, 1, 2))
    assert first == again != other
