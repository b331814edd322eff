"""An evidence bundle as a document for people who read paper: what was told, why, and whether it holds."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
from reportlab.graphics.charts.barcharts import HorizontalBarChart, VerticalBarChart
from reportlab.graphics.shapes import Drawing, Line, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from driftlock_otlp.windowing.bundle import Bundle
from driftlock_otlp.windowing.evidence import Check

_INK = colors.HexColor("#1f2937")
_QUIET = colors.HexColor("#9ca3af")
_ACCENT = colors.HexColor("#b45309")
_WIDTH = A4[0] - 36 * mm
_MOST_CLAIMS = 12
_BINS = 30
_LONGEST_TEXT = 600
_NONE_OF_OURS = "\N{REPLACEMENT CHARACTER}"


def evidence_pdf(bundle: Bundle, checks: Sequence[Check]) -> bytes:
    """Return a PDF about a bundle.

    Args:
        bundle: The bundle.
        checks: What `windowing.evidence.verify` found.
    """
    settings, verdict, window = (bundle.json(f"{name}.json") for name in ("settings", "verdict", "window"))
    stream, told = settings["stream"], verdict["told"]
    subject = " / ".join(part for part in (stream["tenant"], stream["kind"], stream["service"], stream["name"]) if part)
    story: list[Flowable] = [
        _paragraph("Evidence of an anomaly", "Title"),
        _paragraph(str(told.get("explanation", "")), "Lead"),
        _table(
            [
                ("Anomaly", settings["anomaly_id"]),
                ("Stream", subject),
                ("Window closed (UTC)", _time(window["closed_unix_nano"])),
                ("Records", f"{window['columns']['record_count']:,}"),
                ("Severity", str(told.get("severity", ""))),
                ("Surprise", f"{verdict['bits']:.1f} bits; {_margin(verdict)}"),
                ("Conformal p-value", f"{verdict['p_value']:.3g}"),
                ("Detector", f"{settings['algorithm']}, {settings['compressor']}, {settings['fingerprint']}"),
                ("Labels in the bundle", settings["labels"]),
                ("Root of the hash chain", bundle.root),
            ]
        ),
        _paragraph("What cost the bits", "Heading2"),
        _paragraph(
            "Each bar is one way in which a column of the window may differ from its baseline, in bits of surprise"
            " calibrated by the stream's own past.",
            "BodyText",
        ),
        _claims_chart(verdict["claims"]),
        *_told(told),
        _paragraph("Against the stream's own past", "Heading2"),
        *_rank(bundle.json("calibration.json"), verdict),
        _paragraph("Recomputed from the bundle alone", "Heading2"),
        *_outcome(checks),
    ]
    output = io.BytesIO()
    document = SimpleDocTemplate(
        output,
        pagesize=A4,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=16 * mm,
        title=f"Evidence of anomaly {settings['anomaly_id']}",
        author="driftlock-otlp",
        invariant=1,
    )
    document.build(story)
    return output.getvalue()


def _margin(verdict: dict[str, Any]) -> str:
    margin = float(verdict["margin_bits"])
    return f"window or oddest record {abs(margin):.1f} bits {'beyond' if margin >= 0 else 'below'} the bar of an alarm"


def _told(told: dict[str, Any]) -> list[Flowable]:
    rows = [
        (f"{item['bits']:.1f}", item["column"], item["text"], item["observed"], item["expected"])
        for item in told.get("evidence", ())
    ]
    if not rows:
        return []
    head = ("Bits", "Column", "What changed", "Observed", "Expected")
    cells = [[_paragraph(str(text), "Cell") for text in row] for row in (head, *rows)]
    table = Table(cells, colWidths=[_WIDTH * share for share in (0.08, 0.16, 0.38, 0.19, 0.19)], repeatRows=1)
    table.setStyle(_ruled())
    return [_paragraph("What was told", "Heading2"), table]


def _rank(calibration: dict[str, Any], verdict: dict[str, Any]) -> list[Flowable]:
    past = np.array(calibration["past_strongest_bits"], dtype=np.float64)
    if not past.size:
        return [_paragraph("This window was judged record by record; there is no rank to show.", "BodyText")]
    strongest = float(calibration["strongest_bits"])
    at_least = int((past >= strongest).sum())
    text = (
        f"Of {past.size:,} past windows, {at_least:,} had a strongest claim of {strongest:.1f} bits or more:"
        f" p = (1 + {at_least}) / (1 + {past.size}) = {verdict['p_value']:.3g}. The mark shows this window."
    )
    return [_paragraph(text, "BodyText"), _histogram(past, strongest)]


def _histogram(past: np.ndarray[Any, np.dtype[np.float64]], strongest: float) -> Drawing:
    top: float = max(float(past.max()), strongest, 1.0) * 1.05
    counts, _ = np.histogram(past, bins=_BINS, range=(0.0, top))
    drawing = Drawing(_WIDTH, 52 * mm)
    chart = VerticalBarChart()
    chart.x, chart.y, chart.width, chart.height = (
        int(length) for length in (12 * mm, 10 * mm, _WIDTH - 14 * mm, 36 * mm)
    )
    chart.data = [[math.sqrt(count) for count in counts.tolist()]]
    chart.bars[0].fillColor = _QUIET
    chart.bars[0].strokeColor = None
    chart.valueAxis.valueMin = 0
    chart.valueAxis.labelTextFormat = lambda root: f"{root * root:.0f}"
    chart.valueAxis.labels.fontName = chart.categoryAxis.labels.fontName = "Vera"
    chart.valueAxis.labels.fontSize = 6
    chart.categoryAxis.categoryNames = [f"{top * bin / _BINS:.0f}" if bin % 5 == 0 else "" for bin in range(_BINS)]
    chart.categoryAxis.labels.fontSize = 6
    drawing.add(chart)
    x = chart.x + chart.width * strongest / top
    drawing.add(Line(x, chart.y, x, chart.y + chart.height, strokeColor=_ACCENT, strokeWidth=1.5))
    drawing.add(_label(x, chart.y + chart.height + 2, f"{strongest:.1f} bits", "end" if x > _WIDTH / 2 else "start"))
    drawing.add(_label(chart.x, 1, "bits of the strongest claim; height: windows, on a square-root scale", "start"))
    return drawing


def _claims_chart(claims: list[dict[str, Any]]) -> Drawing:
    strongest = sorted(claims, key=lambda claim: -float(claim["bits"]))[:_MOST_CLAIMS][::-1]
    height = (6.0 * len(strongest) + 10.0) * mm
    drawing = Drawing(_WIDTH, height)
    if not strongest:
        return drawing
    chart = HorizontalBarChart()
    chart.x, chart.y, chart.width, chart.height = (
        int(length) for length in (58 * mm, 8 * mm, _WIDTH - 62 * mm, height - 10 * mm)
    )
    chart.data = [[max(float(claim["bits"]), 0.0) for claim in strongest]]
    chart.bars[0].fillColor = _ACCENT
    chart.bars[0].strokeColor = None
    chart.barLabelFormat = "%.1f"
    chart.barLabels.fontName = chart.valueAxis.labels.fontName = chart.categoryAxis.labels.fontName = "Vera"
    chart.barLabels.fontSize = chart.valueAxis.labels.fontSize = chart.categoryAxis.labels.fontSize = 6.5
    chart.barLabels.boxAnchor, chart.barLabels.dx = "w", 3
    chart.valueAxis.valueMin = 0
    chart.valueAxis.valueMax = max(float(claim["bits"]) for claim in strongest) * 1.12 + 1.0
    chart.categoryAxis.categoryNames = [
        _shown(f"{claim['column']} {claim['claim']}".strip(), 42) for claim in strongest
    ]
    chart.categoryAxis.labels.boxAnchor, chart.categoryAxis.labels.dx = "e", -4
    drawing.add(chart)
    return drawing


def _outcome(checks: Sequence[Check]) -> list[Flowable]:
    wrong = [check for check in checks if not check.is_right]
    if not wrong:
        return [
            _paragraph(f"{len(checks)} of {len(checks)} values agree with those stored: the verdict holds.", "BodyText")
        ]
    rows = [[_paragraph(text, "Cell") for text in ("Value", "Stored", "Recomputed")]]
    rows += [[_paragraph(text, "Cell") for text in (check.name, check.stored, check.found)] for check in wrong]
    table = Table(rows, colWidths=[_WIDTH / 3] * 3, repeatRows=1)
    table.setStyle(_ruled())
    return [_paragraph(f"{len(wrong)} of {len(checks)} values do not agree:", "BodyText"), table]


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    cells = [[_paragraph(name, "Name"), _paragraph(value, "Cell")] for name, value in rows]
    table = Table(cells, colWidths=[44 * mm, _WIDTH - 44 * mm])
    table.setStyle(_ruled())
    return table


def _ruled() -> TableStyle:
    return TableStyle(
        [
            ("LINEBELOW", (0, 0), (-1, -1), 0.3, _QUIET),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ]
    )


def _paragraph(text: str, style: str) -> Paragraph | Spacer:
    if not text:
        return Spacer(1, 1)
    return Paragraph(escape(_shown(text, _LONGEST_TEXT)), _STYLES[style])


def _label(x: float, y: float, text: str, anchor: Literal["start", "end"]) -> String:
    return String(x, y, text, fontName="Vera", fontSize=6.5, fillColor=_INK, textAnchor=anchor)


def _shown(text: str, longest: int) -> str:
    """Return text as the font can show it."""
    known = _FONT.face.charToGlyph
    shown = "".join(
        char if ord(char) in known else _NONE_OF_OURS if ord(_NONE_OF_OURS) in known else "?" for char in text
    )
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def _time(unix_nano: int) -> str:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _styles() -> dict[str, ParagraphStyle]:
    base = getSampleStyleSheet()["BodyText"]
    facts = {
        "Title": ("VeraBd", 16, 20, 6),
        "Lead": ("Vera", 10.5, 14, 8),
        "Heading2": ("VeraBd", 11, 14, 3),
        "BodyText": ("Vera", 8.5, 11.5, 4),
        "Name": ("VeraBd", 7.5, 10, 0),
        "Cell": ("Vera", 7.5, 10, 0),
    }
    return {
        name: ParagraphStyle(
            name, parent=base, fontName=font, fontSize=size, leading=leading, spaceAfter=after, textColor=_INK,
            spaceBefore=8 if name == "Heading2" else 0, wordWrap="CJK" if name == "Cell" else None,
        )
        for name, (font, size, leading, after) in facts.items()
    }  # fmt: skip


_FONT = TTFont("Vera", "Vera.ttf")  # comes with the library
pdfmetrics.registerFont(_FONT)
pdfmetrics.registerFont(TTFont("VeraBd", "VeraBd.ttf"))
_STYLES = _styles()
