import { useState } from "react";
import type { AnomalyDetail, Status, Verdict } from "../data/types";
import { STATUSES } from "../data/types";
import { useAction } from "../lib/action";
import { useSource } from "../lib/context";
import { many, words } from "../lib/format";
import { Button, Failure, Panel } from "../ui/parts";

const STATUS_BUTTONS: Record<Status, string> = {
  new: "New",
  acknowledged: "Acknowledge",
  investigating: "Investigate",
  dismissed: "Dismiss",
};

export function Actions({ anomaly }: { anomaly: AnomalyDetail }) {
  const source = useSource();
  const [note, setNote] = useState("");
  const { isBusy, said, error, run } = useAction();
  const { id } = anomaly;

  const setStatus = (status: Status) =>
    run(async () => {
      await source.setStatus(id, status, note);
      setNote("");
      return `Status: ${words(status)}.`;
    });
  const say = (verdict: Verdict, answer: string) =>
    run(async () => {
      await source.giveFeedback(id, verdict, note);
      setNote("");
      return answer;
    });

  return (
    <Panel title="What to do">
      <label className="mb-3 flex flex-col gap-0.5 text-xs text-quiet">
        Note, kept in the history with what you do next
        <textarea
          rows={2}
          maxLength={4000}
          value={note}
          onChange={(event) => setNote(event.target.value)}
          className="rounded-md border border-strong bg-panel px-2 py-1 text-sm text-text"
        />
      </label>
      <fieldset disabled={isBusy}>
        <legend className="mb-1 text-sm font-medium">Status</legend>
        <div className="grid grid-cols-2 gap-2">
          {STATUSES.map((status) => (
            <Button key={status} aria-pressed={anomaly.status === status} onClick={() => setStatus(status)}>
              {STATUS_BUTTONS[status]}
            </Button>
          ))}
        </div>
      </fieldset>
      <fieldset disabled={isBusy} className="mt-4">
        <legend className="mb-1 text-sm font-medium">Was it one?</legend>
        <div className="grid grid-cols-2 gap-2">
          <Button
            aria-pressed={anomaly.feedback === "false_alarm"}
            onClick={() => say("false_alarm", "Taken: this pattern becomes part of the baseline.")}
          >
            False alarm
          </Button>
          <Button
            aria-pressed={anomaly.feedback === "confirmed"}
            onClick={() => say("confirmed", "Taken: this pattern will never be learned.")}
          >
            Confirmed
          </Button>
          {anomaly.feedback && (
            <Button className="col-span-2" onClick={() => say("withdrawn", "Taken back.")}>
              Take back what was said
            </Button>
          )}
        </div>
        <p className="mt-1.5 text-sm text-quiet">
          A false alarm teaches the stream that this is normal; what is confirmed is never learned.
        </p>
      </fieldset>
      {source.abilities.has("suppressions") && <Suppress anomaly={anomaly} note={note} isBusy={isBusy} run={run} />}
      {source.abilities.has("withheld") && <Withheld anomaly={anomaly} note={note} isBusy={isBusy} run={run} />}
      {source.abilities.has("bundle") && anomaly.has_evidence_bundle && <EvidenceFiles id={id} isBusy={isBusy} run={run} />}
      <p role="status" className="mt-3 text-sm font-medium empty:hidden">
        {said}
      </p>
      {error && (
        <div className="mt-3">
          <Failure error={error} />
        </div>
      )}
    </Panel>
  );
}

const SPANS: readonly (readonly [string, number])[] = [
  ["1 hour", 1],
  ["1 day", 24],
  ["For good", 0],
];

/** Nobody is to hear of this pattern of this stream again, for a time or for good. */
function Suppress({ anomaly, note, isBusy, run }: { anomaly: AnomalyDetail; note: string } & Doing) {
  const source = useSource();
  const { stream, template } = anomaly;
  const suppress = (hours: number) =>
    run(async () => {
      await source.suppress({
        purpose: "pattern",
        signal: stream.signal,
        service: stream.service,
        name: stream.name,
        template,
        note,
        ...(hours ? { ends: new Date(Date.now() + hours * 3_600_000).toISOString() } : {}),
      });
      return "Suppressed. The settings list it, and can end it.";
    });
  return (
    <fieldset disabled={isBusy} className="mt-4">
      <legend className="mb-1 text-sm font-medium">Say no more of {template ? "this pattern" : "this stream"}</legend>
      <div className="grid grid-cols-3 gap-2">
        {SPANS.map(([text, hours]) => (
          <Button key={text} className="px-1" onClick={() => suppress(hours)}>
            {text}
          </Button>
        ))}
      </div>
    </fieldset>
  );
}

interface Doing {
  isBusy: boolean;
  run: (act: () => Promise<string>) => Promise<void>;
}

function Withheld({ anomaly, note, isBusy, run }: { anomaly: AnomalyDetail; note: string } & Doing) {
  const source = useSource();
  const [isAsking, setAsking] = useState(false);
  const { withheld_items: withheld, released_items: released } = anomaly;
  if (!withheld && !released) return null;
  return (
    <fieldset disabled={isBusy} className="mt-4">
      <legend className="mb-1 text-sm font-medium">Withheld data</legend>
      {withheld > 0 && (
        <>
          <p className="mb-2 text-sm">
            {many(withheld, "item")} {withheld === 1 ? "waits" : "wait"} here instead of going downstream.
          </p>
          {isAsking ? (
            <div className="rounded-lg border border-alarm bg-alarm-soft p-3">
              <p className="mb-2 text-sm">Delete {many(withheld, "item")} for good? Nobody can get them back.</p>
              <div className="grid grid-cols-2 gap-2">
                <Button onClick={() => setAsking(false)}>Keep</Button>
                <Button
                  look="danger"
                  onClick={() =>
                    run(async () => {
                      const items = await source.drop(anomaly.id, note);
                      setAsking(false);
                      return `${many(items, "item")} deleted.`;
                    })
                  }
                >
                  Delete
                </Button>
              </div>
            </div>
          ) : (
            <div className="grid grid-cols-2 gap-2">
              <Button
                look="primary"
                onClick={() => run(async () => `${many(await source.release(anomaly.id, note), "item")} released.`)}
              >
                Release
              </Button>
              <Button look="danger" onClick={() => setAsking(true)}>
                Delete…
              </Button>
            </div>
          )}
        </>
      )}
      {released > 0 && <p className="mt-2 text-sm text-quiet">{many(released, "item")} on the way downstream.</p>}
    </fieldset>
  );
}

function EvidenceFiles({ id, isBusy, run }: { id: string } & Doing) {
  const source = useSource();
  const save = (format: "bundle" | "pdf", name: string) =>
    run(async () => {
      const url = URL.createObjectURL(await source.evidence(id, format));
      const link = document.createElement("a");
      link.href = url;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      return `${name} is in your downloads.`;
    });
  const short = id.slice(0, 8);
  return (
    <fieldset disabled={isBusy} className="mt-4">
      <legend className="mb-1 text-sm font-medium">Evidence</legend>
      <div className="grid grid-cols-2 gap-2">
        <Button onClick={() => save("bundle", `evidence-${short}.zip`)}>Bundle</Button>
        <Button onClick={() => save("pdf", `evidence-${short}.pdf`)}>PDF</Button>
      </div>
      <p className="mt-1.5 text-sm text-quiet">
        <code className="font-mono text-xs">driftlock-otlp evidence verify</code> computes the verdict again from the bundle alone.
      </p>
    </fieldset>
  );
}
