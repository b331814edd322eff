"""An evidence bundle as a PDF, made in a process of its own: compressing holds the interpreter.

`python -m driftlock_otlp.api.evidence_process` reads a bundle and writes the PDF, on its standard streams.
"""

from __future__ import annotations

import asyncio
import sys

from driftlock_otlp.errors import OverloadedError

_LONGEST_S = 60.0
_RETRY_S = 2.0

_turn = asyncio.Semaphore(1)


async def evidence_pdf_of(bundle: bytes) -> bytes:
    """Return the PDF about a bundle; one is made at a time.

    Raises:
        OverloadedError: It took too long.
    """
    async with _turn:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "driftlock_otlp.api.evidence_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_LONGEST_S):
                pdf, _ = await process.communicate(bundle)
        except TimeoutError:
            raise OverloadedError("the document took too long to make", _RETRY_S) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"making a PDF of evidence ended with {process.returncode}")
    return pdf


def main() -> None:
    """Read a bundle, write the PDF."""
    from driftlock_otlp.api.evidence_pdf import evidence_pdf  # noqa: PLC0415 - only this process needs its library
    from driftlock_otlp.windowing.bundle import read_bundle  # noqa: PLC0415
    from driftlock_otlp.windowing.evidence import compressor_of, verify  # noqa: PLC0415

    bundle = read_bundle(sys.stdin.buffer.read())
    sys.stdout.buffer.write(evidence_pdf(bundle, verify(bundle, compressor_of(bundle))))


if __name__ == "__main__":
    main()
