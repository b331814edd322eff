import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListAnomaliesRequest(_message.Message):
    __slots__ = ("since", "until", "signal", "service", "state", "status", "severity", "level", "incident_id", "text", "min_score", "max_p_value", "is_suppressed", "limit", "cursor")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    MAX_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    IS_SUPPRESSED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    signal: str
    service: str
    state: str
    status: str
    severity: str
    level: str
    incident_id: str
    text: str
    min_score: float
    max_p_value: float
    is_suppressed: bool
    limit: int
    cursor: str
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signal: _Optional[str] = ..., service: _Optional[str] = ..., state: _Optional[str] = ..., status: _Optional[str] = ..., severity: _Optional[str] = ..., level: _Optional[str] = ..., incident_id: _Optional[str] = ..., text: _Optional[str] = ..., min_score: _Optional[float] = ..., max_p_value: _Optional[float] = ..., is_suppressed: _Optional[bool] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListAnomaliesResponse(_message.Message):
    __slots__ = ("anomalies", "next_cursor")
    ANOMALIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    anomalies: _containers.RepeatedCompositeFieldContainer[Anomaly]
    next_cursor: str
    def __init__(self, anomalies: _Optional[_Iterable[_Union[Anomaly, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class GetAnomalyRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchAnomaliesRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class SetStatusRequest(_message.Message):
    __slots__ = ("id", "status", "note")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    status: str
    note: str
    def __init__(self, id: _Optional[str] = ..., status: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("id", "signal", "service", "name", "organization")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    id: str
    signal: str
    service: str
    name: str
    organization: str
    def __init__(self, id: _Optional[str] = ..., signal: _Optional[str] = ..., service: _Optional[str] = ..., name: _Optional[str] = ..., organization: _Optional[str] = ...) -> None: ...

class Anomaly(_message.Message):
    __slots__ = ("id", "stream", "state", "status", "level", "severity", "is_suppressed", "incident_id", "detected_at", "last_at", "resolved_at", "resolution", "window_count", "record_count", "score", "p_value", "bits", "ncd", "explanation", "template", "trace_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    IS_SUPPRESSED_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    DETECTED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_AT_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    NCD_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    stream: Stream
    state: str
    status: str
    level: str
    severity: str
    is_suppressed: bool
    incident_id: str
    detected_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    resolved_at: _timestamp_pb2.Timestamp
    resolution: str
    window_count: int
    record_count: int
    score: float
    p_value: float
    bits: float
    ncd: float
    explanation: str
    template: str
    trace_id: str
    def __init__(self, id: _Optional[str] = ..., stream: _Optional[_Union[Stream, _Mapping]] = ..., state: _Optional[str] = ..., status: _Optional[str] = ..., level: _Optional[str] = ..., severity: _Optional[str] = ..., is_suppressed: _Optional[bool] = ..., incident_id: _Optional[str] = ..., detected_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resolved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resolution: _Optional[str] = ..., window_count: _Optional[int] = ..., record_count: _Optional[int] = ..., score: _Optional[float] = ..., p_value: _Optional[float] = ..., bits: _Optional[float] = ..., ncd: _Optional[float] = ..., explanation: _Optional[str] = ..., template: _Optional[str] = ..., trace_id: _Optional[str] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("column", "kind", "bits", "text", "observed", "expected")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    column: str
    kind: str
    bits: float
    text: str
    observed: str
    expected: str
    def __init__(self, column: _Optional[str] = ..., kind: _Optional[str] = ..., bits: _Optional[float] = ..., text: _Optional[str] = ..., observed: _Optional[str] = ..., expected: _Optional[str] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("seq", "at", "organization", "actor", "action", "subject", "detail", "previous_hash", "hash")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    seq: int
    at: _timestamp_pb2.Timestamp
    organization: str
    actor: str
    action: str
    subject: str
    detail: _struct_pb2.Struct
    previous_hash: str
    hash: str
    def __init__(self, seq: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., organization: _Optional[str] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., detail: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., previous_hash: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class AnomalyDetail(_message.Message):
    __slots__ = ("anomaly", "window_start", "window_end", "evidence", "compression_ratio", "baseline_compression_ratio", "entropy_bits", "baseline_entropy_bits", "baseline_windows", "baseline_records", "span_id", "related_trace_ids", "fingerprint", "compressor", "feedback", "has_evidence_bundle", "history", "withheld_items", "released_items")
    ANOMALY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_RATIO_FIELD_NUMBER: _ClassVar[int]
    BASELINE_COMPRESSION_RATIO_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_BITS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_ENTROPY_BITS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    RELATED_TRACE_IDS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    COMPRESSOR_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    HAS_EVIDENCE_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_ITEMS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    anomaly: Anomaly
    window_start: _timestamp_pb2.Timestamp
    window_end: _timestamp_pb2.Timestamp
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    compression_ratio: float
    baseline_compression_ratio: float
    entropy_bits: float
    baseline_entropy_bits: float
    baseline_windows: int
    baseline_records: int
    span_id: str
    related_trace_ids: _containers.RepeatedScalarFieldContainer[str]
    fingerprint: str
    compressor: str
    feedback: str
    has_evidence_bundle: bool
    history: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    withheld_items: int
    released_items: int
    def __init__(self, anomaly: _Optional[_Union[Anomaly, _Mapping]] = ..., window_start: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., window_end: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., compression_ratio: _Optional[float] = ..., baseline_compression_ratio: _Optional[float] = ..., entropy_bits: _Optional[float] = ..., baseline_entropy_bits: _Optional[float] = ..., baseline_windows: _Optional[int] = ..., baseline_records: _Optional[int] = ..., span_id: _Optional[str] = ..., related_trace_ids: _Optional[_Iterable[str]] = ..., fingerprint: _Optional[str] = ..., compressor: _Optional[str] = ..., feedback: _Optional[str] = ..., has_evidence_bundle: _Optional[bool] = ..., history: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., withheld_items: _Optional[int] = ..., released_items: _Optional[int] = ...) -> None: ...

class News(_message.Message):
    __slots__ = ("seq", "entry", "anomaly", "missed_up_to")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ANOMALY_FIELD_NUMBER: _ClassVar[int]
    MISSED_UP_TO_FIELD_NUMBER: _ClassVar[int]
    seq: int
    entry: HistoryEntry
    anomaly: Anomaly
    missed_up_to: int
    def __init__(self, seq: _Optional[int] = ..., entry: _Optional[_Union[HistoryEntry, _Mapping]] = ..., anomaly: _Optional[_Union[Anomaly, _Mapping]] = ..., missed_up_to: _Optional[int] = ...) -> None: ...
