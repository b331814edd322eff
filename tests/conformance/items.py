"""The conformance checklist: every clause of OTLP that concerns the sidecar, by number.

Follows opentelemetry-proto's specification 1.11.0 (items 1-48), the OTLP exporter specification
1.60.0 (49-90) and the data models of logs and traces (91-98). The tests of an item have its number
in their name: `test_02_18_…` belongs to 2 and 18.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One clause.

    Attributes:
        number: 1 to 98.
        level: MUST, SHOULD or MAY, the strongest word in the clause.
        text: What is asked.
        remark: Where it does not apply, why; where it holds in part, what does not.
        applies: Whether it concerns the sidecar at all.
        is_partial: Whether a part of it does not hold; the remark says which.
        collector_differs: Whether the OpenTelemetry Collector is known to do otherwise.
    """

    number: int
    level: str
    text: str
    remark: str = ""
    applies: bool = True
    collector_differs: bool = False
    is_partial: bool = False


def _not_applicable(number: int, level: str, text: str, reason: str) -> Item:
    return Item(number, level, text, reason, applies=False)


SECTIONS: tuple[tuple[str, int, int], ...] = (
    ("Server, both transports", 1, 15),
    ("Server, gRPC", 16, 25),
    ("Server, HTTP", 26, 43),
    ("Server, JSON", 44, 48),
    ("Exporter", 49, 90),
    ("Data of our own", 91, 98),
)
"""Title, first and last number."""

ITEMS: tuple[Item, ...] = (
    Item(1, "MUST", "requests are taken uncompressed and with gzip"),
    Item(2, "MUST", "the size of a request is limited before and after decompression; a bomb does no harm"),
    Item(3, "SHOULD", "the limit is 64 MiB unless configured", collector_differs=True),
    Item(4, "MUST", "a response is limited in size; a long error_message is cut"),
    Item(5, "SHOULD", "an empty request succeeds; envelopes without items are ignored"),
    Item(6, "MUST", "success is the signal's response message with partial_success unset", collector_differs=True),
    Item(
        7, "MUST", "partial success says in rejected_<items> how many items were not taken", collector_differs=True,
        remark="items with a trace or span id of an impossible length are left out, the others are taken",
    ),
    Item(8, "SHOULD", "error_message says in English what is wrong and how to put it right"),
    _not_applicable(
        9, "MAY", "a warning with full acceptance has rejected_<items> = 0 and a message",
        "there is nothing to warn of when everything was taken",
    ),
    Item(10, "SHOULD", "a failure says whether it may be retried; overload may"),
    Item(11, "SHOULD", "a server that cannot keep up says so"),
    Item(12, "MUST", "unknown fields of newer versions are ignored (and forwarded)"),
    Item(13, "SHOULD", "attributes may have every kind of value"),
    Item(14, "SHOULD", "concurrent calls on one connection and on many"),
    Item(15, "MAY", "data that is sent again after a lost connection is taken", remark="once (receiver.dedup_window)"),
    Item(16, "MUST", "Export is served for traces, metrics and logs", remark="profiles are in development"),
    Item(17, "MUST", "the default port is 4317"),
    Item(18, "MUST", "a message over the limit gets RESOURCE_EXHAUSTED without RetryInfo"),
    _not_applicable(
        19, "MUST", "a response that exceeds its limit becomes RESOURCE_EXHAUSTED",
        "a response has at most a count and 1,000 characters (item 4)",
    ),
    Item(20, "SHOULD", "a failure that may be retried gets UNAVAILABLE"),
    Item(21, "SHOULD", "throttling carries RetryInfo"),
    Item(22, "SHOULD", "the delay is long enough to recover and short enough that clients wait"),
    Item(23, "SHOULD", "bad data gets INVALID_ARGUMENT with BadRequest"),
    Item(24, "SHOULD", "UNAUTHENTICATED without a valid key, UNIMPLEMENTED for what is not served"),
    Item(
        25, "SHOULD", "gzip through grpc-encoding; unknown encodings are refused with UNIMPLEMENTED",
        remark="gRPC's library refuses unknown encodings with INTERNAL, which is not retried either", is_partial=True,
    ),
    Item(26, "MUST", "the default port is 4318"),
    Item(27, "MUST", "POST to /v1/traces, /v1/metrics and /v1/logs; paths may be configured"),
    Item(28, "MAY", "HTTP/1.1 or HTTP/2", remark="HTTP/1.1"),
    Item(29, "SHOULD", "protobuf and JSON on one port, by Content-Type, whose parameters are tolerated"),
    Item(30, "MUST", "a response has the Content-Type of its request"),
    Item(31, "MUST", "Content-Encoding: gzip is decoded", remark="responses are a few bytes and not compressed"),
    Item(32, "MUST", "a body over the limit gets 413", collector_differs=True),
    Item(33, "MUST", "success is 200 with the response message, {} in JSON"),
    Item(34, "MUST", "partial success is 200"),
    Item(35, "MUST", "every error has a google.rpc.Status in the request's encoding", collector_differs=True),
    Item(36, "SHOULD", "Status.message is for developers; details are allowed"),
    Item(37, "MUST", "undecodable data gets 400 with BadRequest"),
    Item(38, "MUST", "what may be retried gets 429, 502, 503 or 504, nothing else does"),
    Item(39, "SHOULD", "overload gets 429 or 503 with Retry-After"),
    _not_applicable(
        40, "MUST", "a response that exceeds its limit becomes 500",
        "a response has at most a count and 1,000 characters (item 4)",
    ),
    Item(41, "SHOULD", "401 without a valid key, 404, 405 with Allow, 415"),
    Item(42, "SHOULD", "connections are kept alive"),
    _not_applicable(43, "MAY", "one port for gRPC and HTTP", "each has its own, as in the Collector"),
    Item(44, "MUST", "ids are hexadecimal in either case; other bytes are base64"),
    Item(45, "MUST", "enums are integers, names are refused", collector_differs=True),
    Item(46, "MUST", "unknown fields are ignored"),
    Item(47, "MUST", "keys are lowerCamelCase; snake_case is unknown"),
    Item(48, "MUST", "64-bit integers as text or number; NaN and Infinity as text; an empty id is none"),
    Item(49, "MUST", "endpoint with scheme, host, port and path; a gRPC URL's scheme decides about TLS"),
    Item(50, "MUST", "every option can be set per signal"),
    Item(51, "MUST", "OTEL_EXPORTER_OTLP_ENDPOINT is a base to which v1/<signal> is added"),
    Item(52, "MUST", "an endpoint per signal is used as it is"),
    Item(53, "MUST", "the URL is not changed otherwise"),
    Item(54, "MUST", "certificate, client key and certificate, headers, compression, timeout, protocol, insecure"),
    Item(55, "SHOULD", "a request has at most 64 MiB, an option"),
    Item(56, "SHOULD", "a response has at most 4 MiB, an option"),
    Item(57, "SHOULD", "http/protobuf is the default; grpc and http/json exist"),
    Item(58, "MUST", "headers in the environment have the form of W3C Baggage"),
    Item(59, "MUST", "passing errors are retried with exponential back-off and jitter"),
    Item(60, "SHOULD", "User-Agent names the exporter and its version"),
    Item(61, "SHOULD", "gRPC: CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS are retried"),
    Item(62, "SHOULD", "gRPC: RESOURCE_EXHAUSTED is retried only with RetryInfo"),
    Item(63, "SHOULD", "gRPC: no other code is retried"),
    Item(64, "MUST", "the client slows down when it is told to"),
    Item(65, "SHOULD", "it waits at least retry_delay"),
    Item(66, "MUST", "HTTP: 429, 502, 503 and 504 alone are retried"),
    Item(67, "SHOULD", "Retry-After is honoured, in seconds and as a date"),
    Item(68, "SHOULD", "without it: exponential back-off"),
    Item(69, "MUST", "400 is not retried"),
    Item(70, "SHOULD", "a connection lost before the response: the request is sent again"),
    Item(71, "SHOULD", "connecting is tried again with back-off and jitter"),
    Item(72, "SHOULD", "connections are kept alive"),
    Item(73, "MUST", "partial success is not retried"),
    Item(74, "SHOULD", "items that were rejected are counted and logged"),
    Item(75, "MUST", "what may not be retried is dropped"),
    Item(76, "SHOULD", "what is dropped is counted"),
    Item(77, "SHOULD", "what was not delivered at the end is recorded", remark="it stays in the durable log"),
    Item(78, "SHOULD", "a request is limited in size before compression"),
    Item(79, "MUST", "a larger one is not sent", remark="it is sent in parts"),
    Item(80, "MUST", "a response is limited in size when it is read; beyond that the failure is final"),
    Item(81, "SHOULD", "requests may be sent concurrently"),
    Item(82, "SHOULD", "how many is an option"),
    Item(83, "SHOULD", "stopping may wait for responses that are due"),
    Item(84, "MUST", "Content-Type is set"),
    Item(85, "MUST", "Content-Encoding is set when the body is compressed"),
    Item(86, "MAY", "Accept-Encoding is sent"),
    Item(87, "SHOULD", "a client of HTTP/2 falls back to HTTP/1.1", remark="the client speaks HTTP/1.1"),
    Item(88, "SHOULD", "each destination has its own queue, acknowledgements and retries"),
    Item(89, "SHOULD", "the queues share the data", remark="each is a cursor on the one durable log"),
    Item(90, "SHOULD", "no empty envelopes are made"),
    Item(91, "MUST", "the observer sets observed_time_unix_nano"),
    Item(92, "SHOULD", "time_unix_nano is when it happened"),
    Item(93, "MUST", "attribute keys are unique"),
    Item(94, "MUST", "ids have 16 and 8 bytes or are absent; no span without its trace"),
    Item(95, "SHOULD", "only the low eight flags are used"),
    Item(96, "SHOULD", "event_name is qualified, short and of few values"),
    Item(97, "MUST", "schema URLs are kept on every level when forwarding"),
    Item(98, "MUST", "dropped_attributes_count is kept"),
)  # fmt: skip


def numbers_of(test_name: str) -> list[int]:
    """Return the items that a test belongs to.

    >>> numbers_of("test_02_18_grpc_request_at_the_limit")
    [2, 18]
    >>> numbers_of("test_other")
    []
    """
    numbers = []
    for word in test_name.removeprefix("test_").split("_"):
        if not word.isdecimal():
            break
        numbers.append(int(word))
    return numbers
