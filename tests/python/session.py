"""Drives a running server with the published Python client, from connecting to cancelling a turn.

    session.py WS_URL [--token TOKEN]

One line `ok: ...` is printed for each step. At the first step that fails, one line `failed: ...` says what was expected
and what came, and the exit code is 1. Every wait is bounded.

The client throws away, without a word, each frame that does not match its strict models, and its caller then waits for
its time-out. So every frame is also shown to `Watch`, which parses it as the client does, keeps what was refused, and
makes the running step fail with the frame itself.

The server must have been started freshly, ask for confirmation before the tool `risky` runs, and be connected to a
model whose replies are, in this order:

    1. the text STREAMED_REPLY, in at least two pieces
    2. the text AWAITED_REPLY
    3. a call of the tool `risky` with the arguments RISKY_ARGUMENTS
    4. the text APPROVED_REPLY
    5. a call of the tool `risky` with the arguments RISKY_ARGUMENTS
    6. the text DENIED_REPLY
    7. the text HANGING_REPLY, and then silence on an open connection
    8. the text RECOVERED_REPLY
    9. the text SECOND_REPLY
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from itertools import pairwise

from smooth_operator import (
    GeneralAgentResponse,
    MessageTurn,
    ProtocolError,
    ServerEvent,
    SmoothAgentClient,
    WebSocketTransport,
    is_server_event,
    parse_event,
)

STREAMED_REPLY = "Hello from the scripted model: one, two, three."
AWAITED_REPLY = "This one was awaited."
RISKY_ARGUMENTS = {"entry": 9}
APPROVED_REPLY = "Entry 9 is gone."
DENIED_REPLY = "Then entry 9 stays."
HANGING_REPLY = "Let me think"
RECOVERED_REPLY = "Back again."
SECOND_REPLY = "Zebras have stripes."

AGENT_ID = "7d1c2a34-0000-4000-8000-000000000001"
FIRST_MESSAGE = "What can you do for me?"
SECOND_MESSAGE = "Tell me about the zebra."

# The client's own time-outs end a wait for an answer that never comes; the step's is there for everything else.
REQUEST_SECONDS = 10.0
TURN_SECONDS = 20.0
STEP_SECONDS = 30.0
# How long nothing has to arrive before "nothing arrives" is believed.
SILENCE_SECONDS = 0.3


class Failure(Exception):
    """A step found something other than what it expected."""


def check(condition: bool, expectation: str, found: object) -> None:
    """Fails the step unless the condition holds."""
    if not condition:
        raise Failure(f"expected {expectation}, found {found!r}")


def check_equal(found: object, expected: object, what: str) -> None:
    """Fails the step unless the two are equal."""
    check(found == expected, f"{what} to be {expected!r}", found)


class Watch:
    """Sees every frame before the client judges it, and remembers those that the client silently drops."""

    def __init__(self) -> None:
        self.frames: list[dict] = []
        self.refused: list[str] = []
        self.troubles: list[str] = []

    def frame(self, data: str) -> None:
        """Parses one frame exactly as the client does."""
        try:
            raw = json.loads(data)
            if not is_server_event(raw):
                raise ValueError("its type is not one of the protocol")
            parse_event(raw)
        except Exception as error:  # Whatever the client's parser throws means a dropped frame.
            self.refused.append(f"the client drops {data}: {error}")
            return
        self.frames.append(raw)

    def trouble(self, error: object) -> None:
        """Remembers an error of the transport."""
        self.troubles.append(f"the transport failed: {error!r}")

    def verdict(self) -> None:
        """Fails the step when anything was dropped or broken since the beginning."""
        for complaint in self.refused + self.troubles:
            raise Failure(complaint)

    def of_request(self, request_id: str) -> list[dict]:
        """The frames that carry this request id, in order of arrival."""
        return [frame for frame in self.frames if frame.get("requestId") == request_id]


class Session:
    """What the steps share."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token
        self.watch = Watch()
        self.client = self.new_client()
        self.unsolicited: list[ServerEvent] = []
        self.session_id = ""
        self.conversation_id = ""
        self.turns: list[MessageTurn] = []

    def new_client(self) -> SmoothAgentClient:
        """A client whose frames are watched from the first one on."""
        transport = WebSocketTransport(self.url, token=self.token)
        transport.on_message(self.watch.frame)
        transport.on_error(self.watch.trouble)
        client = SmoothAgentClient(
            self.url, transport=transport, request_timeout=REQUEST_SECONDS, turn_timeout=TURN_SECONDS
        )
        client.on_event(lambda event: self.unsolicited.append(event))
        return client

    def say(self, message: str, *, stream: bool = True) -> MessageTurn:
        """Starts a turn and remembers it for the check of terminal events at the end."""
        turn = self.client.send_message(session_id=self.session_id, message=message, stream=stream)
        self.turns.append(turn)
        return turn


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def connect(session: Session) -> None:
    """connect"""
    await session.client.connect()


async def create_session(session: Session) -> None:
    """create a session"""
    created = await session.client.create_conversation_session(agent_id=AGENT_ID, metadata={"from": "the client test"})
    check_equal(str(created.agent_id), AGENT_ID, "agentId")
    check(bool(created.agent_name), "an agent name", created.agent_name)
    ids = {created.session_id, created.conversation_id, created.user_participant_id, created.agent_participant_id}
    check(len(ids) == 4, "four different ids", ids)
    session.session_id = str(created.session_id)
    session.conversation_id = str(created.conversation_id)


async def get_session(session: Session) -> None:
    """get_session returns what was created"""
    found = await session.client.get_session(session_id=session.session_id)
    check_equal(str(found.session_id), session.session_id, "sessionId")
    check_equal(str(found.conversation_id), session.conversation_id, "conversationId")
    check_equal(str(found.agent_id), AGENT_ID, "agentId")
    check_equal(found.thread_id, session.conversation_id, "threadId")
    check_equal(str(found.status), "active", "status")


async def nothing_stored_yet(session: Session) -> None:
    """the history is empty and an unused conversation is not listed"""
    page = await session.client.get_messages(session_id=session.session_id)
    check_equal((page.messages, page.next_cursor, page.has_more), ([], None, False), "the empty history")
    listing = await session.client.list_conversations()
    rows = (listing.conversations, listing.next_cursor, listing.has_more)
    check_equal(rows, ([], None, False), "the list of conversations")


async def ping(session: Session) -> None:
    """ping returns the server's time"""
    server_ms = await session.client.ping()
    difference = abs(server_ms - time.time() * 1000)
    check(difference < 60_000, "a time within a minute of ours, in milliseconds", server_ms)


async def streamed_turn(session: Session) -> None:
    """stream a turn with async for"""
    turn = session.say(FIRST_MESSAGE)
    events = [event async for event in turn]
    kinds = [event.type for event in events]
    check_equal((events[0].type, events[0].status), ("immediate_response", 202), "the first event")
    check_equal(set(kinds[1:-1]), {"stream_token"}, "the kinds of event between acknowledgement and answer")
    check(len(kinds) >= 4, "at least two tokens", kinds)
    check_equal("".join(event.token for event in events[1:-1]), STREAMED_REPLY, "the streamed text")
    check_reply(events[-1], STREAMED_REPLY)
    check((await turn) is events[-1], "awaiting the turn to return its last event", kinds)


async def awaited_turn(session: Session) -> None:
    """await a turn that asked for no tokens"""
    turn = session.say("And now without streaming.", stream=False)
    check_reply(await turn, AWAITED_REPLY)
    kinds = [event.type async for event in turn]
    check_equal(kinds, ["immediate_response", "eventual_response"], "the kinds of event")


async def history(session: Session) -> None:
    """read the history back, newest first, page by page"""
    whole = await session.client.get_messages(session_id=session.session_id)
    texts = [(str(message.direction), message.content.text) for message in whole.messages]
    expected = [
        ("outbound", AWAITED_REPLY),
        ("inbound", "And now without streaming."),
        ("outbound", STREAMED_REPLY),
        ("inbound", FIRST_MESSAGE),
    ]
    check_equal(texts, expected, "the history")
    check_equal((whole.next_cursor, whole.has_more), (None, False), "the end of the history")
    check(
        all(newer.created_at >= older.created_at for newer, older in pairwise(whole.messages)),
        "times from newest to oldest",
        [message.created_at for message in whole.messages],
    )
    await history_before_a_message(session, [message.id for message in whole.messages])
    await history_before_an_instant(session, whole.messages)


async def history_before_a_message(session: Session, ids: list[uuid.UUID]) -> None:
    """Pages by `before` with the last id of the page before; each message comes exactly once."""
    seen: list[uuid.UUID] = []
    before = None
    for _ in ids:
        page = await session.client.get_messages(session_id=session.session_id, limit=1, before=before)
        check_equal(len(page.messages), 1, "the size of a page")
        seen.append(page.messages[0].id)
        check_equal(page.has_more, len(seen) < len(ids), "hasMore")
        check_equal(page.next_cursor is not None, page.has_more, "a cursor where there is more")
        before = str(seen[-1])
    check_equal(seen, ids, "the ids over all pages")


async def history_before_an_instant(session: Session, messages: list) -> None:
    """`before` with a time returns exactly the strictly older messages."""
    for message in messages:
        page = await session.client.get_messages(
            session_id=session.session_id, before=message.created_at.isoformat()
        )
        older = [other.id for other in messages if other.created_at < message.created_at]
        check_equal([other.id for other in page.messages], older, f"the messages before {message.created_at}")


async def approved_tool(session: Session) -> None:
    """confirm a tool: it runs and the turn goes on"""
    events = await turn_with_verdict(session, "Please remove entry 9.", approved=True)
    result = tool_result(events)
    check_equal((result["name"], result["isError"]), ("risky", False), "the tool result")
    check_reply(events[-1], APPROVED_REPLY)


async def denied_tool(session: Session) -> None:
    """deny a tool: it does not run and the turn ends normally"""
    events = await turn_with_verdict(session, "Remove entry 9 once more.", approved=False)
    result = tool_result(events)
    check_equal((result["name"], result["isError"]), ("risky", True), "the tool result")
    check_reply(events[-1], DENIED_REPLY)


async def turn_with_verdict(session: Session, message: str, *, approved: bool) -> list[ServerEvent]:
    """Runs a turn that stops for a confirmation, gives the verdict, and checks the order of everything."""
    turn = session.say(message)
    events: list[ServerEvent] = []
    async for event in turn:
        events.append(event)
        if event.type == "write_confirmation_required":
            check_equal(event.data.data.tool_id, "risky", "toolId")
            check(bool(event.data.data.action_description), "a description of the action", event)
            session.client.confirm_tool_action(
                session_id=session.session_id, request_id=turn.request_id, approved=approved
            )
    kinds = [event.type for event in events if event.type != "stream_token"]
    expected = [
        "immediate_response",
        "write_confirmation_required",
        "stream_chunk",
        "immediate_response",
        "stream_chunk",
        "eventual_response",
    ]
    check_equal(kinds, expected, "the kinds of event")
    call = raw_responses(events)[0]["toolCall"]
    check_equal((call["name"], json.loads(call["arguments"])), ("risky", RISKY_ARGUMENTS), "the tool call")
    acknowledgement = [event for event in events if event.type == "immediate_response"][1]
    expected_data = {"sessionId": session.session_id, "approved": approved}
    check_equal((acknowledgement.status, acknowledgement.data), (200, expected_data), "the acknowledged verdict")
    return events


async def late_verdict(session: Session) -> None:
    """a verdict that nobody waits for is refused"""
    request_id = f"late-{uuid.uuid4()}"
    session.client.confirm_tool_action(session_id=session.session_id, request_id=request_id, approved=True)
    answer = await unsolicited(session, request_id)
    check_equal(answer.type, "error", "the kind of event")
    check_equal(answer.data.error.code, "NO_PENDING_CONFIRMATION", "the error code")


async def cancelled_turn(session: Session) -> None:
    """cancel a turn: a ping and a second message are answered meanwhile"""
    turn = session.say("Think for ever.")
    events = aiter(turn)
    text = ""
    while text != HANGING_REPLY:
        event = await anext(events)
        text += event.token if event.type == "stream_token" else ""
    await session.client.ping()
    await expect_protocol_error(session.say("Are you there?"), "TURN_IN_PROGRESS")
    check(not turn.cancelled, "the first turn to run on", turn.cancelled)
    turn.cancel()
    terminal = await turn
    check_equal((terminal.type, terminal.status), ("cancelled", 499), "the terminal event")
    check_equal(terminal.request_id, turn.request_id, "the cancelled request")
    check(turn.cancelled, "the turn to know that it was cancelled", turn.cancelled)


async def turn_after_cancel(session: Session) -> None:
    """the next message is accepted at once, and the cancelled turn left only its question"""
    check_reply(await session.say("Still with me?"), RECOVERED_REPLY)
    page = await session.client.get_messages(session_id=session.session_id, limit=3)
    texts = [message.content.text for message in page.messages]
    check_equal(texts, [RECOVERED_REPLY, "Still with me?", "Think for ever."], "the newest messages")


async def silent_cancel(session: Session) -> None:
    """cancelling when nothing runs is answered by nothing"""
    before = len(session.watch.frames)
    session.client.cancel(request_id=f"idle-{uuid.uuid4()}", session_id=session.session_id)
    await session.client.ping()
    await asyncio.sleep(SILENCE_SECONDS)
    kinds = [frame["type"] for frame in session.watch.frames[before:]]
    check_equal(kinds, ["pong"], "the frames after an idle cancel")


async def unknown_session(session: Session) -> None:
    """an unknown session is a protocol error for every action"""
    unknown = str(uuid.uuid4())
    await expect_protocol_error(session.client.get_session(session_id=unknown), "SESSION_NOT_FOUND")
    await expect_protocol_error(session.client.get_messages(session_id=unknown), "SESSION_NOT_FOUND")
    turn = session.client.send_message(session_id=unknown, message="Hello?")
    session.turns.append(turn)
    await expect_protocol_error(turn, "SESSION_NOT_FOUND")


async def conversations(session: Session) -> None:
    """list conversations: newest first, by cursor and by query"""
    first_id, first_session = session.conversation_id, session.session_id
    created = await session.client.create_conversation_session(agent_id=AGENT_ID)
    second_id = str(created.conversation_id)
    session.session_id = str(created.session_id)
    check_reply(await session.say(SECOND_MESSAGE), SECOND_REPLY)
    session.session_id = first_session

    listing = await session.client.list_conversations()
    rows = [(row.conversation_id, row.title, row.message_count) for row in listing.conversations]
    check_equal(rows, [(second_id, SECOND_MESSAGE, 2), (first_id, FIRST_MESSAGE, 11)], "the conversations")
    check_equal((listing.next_cursor, listing.has_more), (None, False), "the end of the list")

    newest = await session.client.list_conversations(limit=1)
    check_equal([row.conversation_id for row in newest.conversations], [second_id], "the first page")
    check(bool(newest.has_more and newest.next_cursor), "a further page", newest)
    oldest = await session.client.list_conversations(limit=1, cursor=newest.next_cursor)
    check_equal([row.conversation_id for row in oldest.conversations], [first_id], "the second page")
    check_equal((oldest.next_cursor, oldest.has_more), (None, False), "the end of the pages")

    found = await session.client.list_conversations(query=" ZEBRA ")
    check_equal([row.conversation_id for row in found.conversations], [second_id], "the rows that match")
    missed = await session.client.list_conversations(query="no such words")
    check_equal(missed.conversations, [], "the rows that match nothing")
    await expect_protocol_error(session.client.list_conversations(cursor="not a cursor"), "VALIDATION_ERROR")


async def come_back(session: Session) -> None:
    """disconnect, connect again: the session and its history are still there"""
    await session.client.disconnect()
    session.client = session.new_client()
    await session.client.connect()
    await get_session(session)
    page = await session.client.get_messages(session_id=session.session_id, limit=100)
    check_equal(len(page.messages), 11, "the number of messages")
    await session.client.disconnect()


async def terminal_events(session: Session) -> None:
    """every turn had exactly one terminal event, and nothing after it"""
    for turn in session.turns:
        kinds = [frame["type"] for frame in session.watch.of_request(turn.request_id)]
        terminal = [kind for kind in kinds if kind in ("eventual_response", "cancelled", "error")]
        check_equal(len(terminal), 1, f"the number of terminal events in {kinds}")
        check_equal(kinds[-1], terminal[0], "the last event of the turn")
    left_over = [event.type for event in session.unsolicited]
    check_equal(left_over, ["error"], "the frames that no request asked for (one late verdict)")


STEPS: list[Callable[[Session], Awaitable[None]]] = [
    connect,
    create_session,
    get_session,
    nothing_stored_yet,
    ping,
    streamed_turn,
    awaited_turn,
    history,
    approved_tool,
    denied_tool,
    late_verdict,
    cancelled_turn,
    turn_after_cancel,
    silent_cancel,
    unknown_session,
    conversations,
    come_back,
    terminal_events,
]


# ── checks that several steps share ──────────────────────────────────────────────────────────────────────────────────


def check_reply(event: ServerEvent, expected: str) -> None:
    """Checks a turn's answer down to the agent's structured response."""
    check_equal((event.type, event.status, event.data.status), ("eventual_response", 200, 200), "the terminal event")
    answer = event.data.data
    uuid.UUID(answer.message_id)
    response = GeneralAgentResponse.model_validate(answer.response)
    check_equal(response.response_parts, [expected], "responseParts")
    check_equal(response.suggested_next_actions, [], "suggestedNextActions")
    check_equal(answer.needs_escalation, False, "needsEscalation")
    check_equal(answer.citations, None, "citations")
    usage = answer.usage
    check(usage is not None, "usage", answer)
    numbers = (usage.cost_usd, usage.prompt_tokens, usage.completion_tokens)
    check(all(number is not None and number >= 0 for number in numbers), "three numbers of usage", numbers)


def raw_responses(events: list[ServerEvent]) -> list[dict]:
    """What the turn's chunks say about tools."""
    return [event.data.state.raw_response for event in events if event.type == "stream_chunk"]


def tool_result(events: list[ServerEvent]) -> dict:
    """The result that follows the turn's only tool call."""
    return raw_responses(events)[1]["toolResult"]


async def expect_protocol_error(call: Awaitable, code: str) -> None:
    """Fails unless the call raises the client's protocol error with this code."""
    try:
        answer = await call
    except ProtocolError as error:
        check_equal(error.code, code, "the error code")
        check(bool(str(error)), "an error text", str(error))
    else:
        raise Failure(f"expected the error {code}, found {answer!r}")


async def unsolicited(session: Session, request_id: str) -> ServerEvent:
    """Waits for a frame that the client cannot assign to a call of its own."""
    while True:
        for event in session.unsolicited:
            if event.request_id == request_id:
                return event
        await asyncio.sleep(0.01)


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run(url: str, token: str | None) -> int:
    """Runs the steps in order; the exit code."""
    session = Session(url, token)
    for step in STEPS:
        try:
            await within_time(step(session))
            session.watch.verdict()
        except Exception as error:  # A step may fail in the client, in its models or in a check: all of them count.
            report_failure(session, step, error)
            return 1
        print(f"ok: {step.__doc__}", flush=True)
    return 0


async def within_time(step: Awaitable[None]) -> None:
    """Ends a step that waits for something the client sets no limit to."""
    try:
        async with asyncio.timeout(STEP_SECONDS):
            await step
    except TimeoutError:
        raise Failure(f"expected the step to end within {STEP_SECONDS:.0f} s, found it waiting") from None


def report_failure(session: Session, step: Callable, error: Exception) -> None:
    """Says which step failed and why; a frame that the client dropped is the likelier cause and comes with it."""
    print(f"failed: {step.__doc__}: {type(error).__name__}: {error}", flush=True)
    for complaint in session.watch.refused + session.watch.troubles:
        print(f"  {complaint}")
    for frame in session.watch.frames[-8:]:
        print(f"  one of the last frames: {json.dumps(frame)}")


def main() -> int:
    """Reads the arguments and runs."""
    parser = argparse.ArgumentParser(description="Drives a running server with the published Python client.")
    parser.add_argument("url", help="what to connect to, such as ws://127.0.0.1:8787/ws")
    parser.add_argument("--token", help="the token that the server asks for")
    arguments = parser.parse_args()
    return asyncio.run(run(arguments.url, arguments.token))


if __name__ == "__main__":
    sys.exit(main())
