import type { FormEvent } from "react";
import { useState } from "react";
import { SIGNALS, type Signal, type Suppression } from "../data/types";
import { useAction } from "../lib/action";
import { useSource } from "../lib/context";
import { many, words } from "../lib/format";
import { useQuery } from "../lib/query";
import { actorText } from "../ui/history";
import { Answer, Button, Empty, Failure, Panel, Select, Table, TextField, Time } from "../ui/parts";

const HOURS = ["1", "2", "4", "8", "24", "168"] as const;
const HOUR_MS = 3_600_000;

/** What is not to be heard of for a while: listed, added, ended. */
export function Suppressions() {
  const source = useSource();
  const query = useQuery("suppressions", () => source.suppressions());
  const { isBusy, said, error, run } = useAction();
  const end = (id: string) =>
    run(async () => {
      await source.endSuppression(id);
      return "Ended: it is heard again from its next window on.";
    });
  return (
    <Panel title="Suppressions and maintenance" hint="What falls under them is recorded and counted, makes no event, and its records go on as clean.">
      <Answer query={query} what="suppressions">
        {(rows) =>
          rows.length ? (
            <Table
              caption="Suppressions and maintenance, what ends first in front"
              rows={rows}
              rowKey={(row) => row.id}
              columns={[
                { title: "What", cell: (row) => <What row={row} /> },
                { title: "Until", cell: (row) => (row.ends ? <Time at={row.ends} /> : "for good") },
                { title: "By", cell: (row) => actorText(row.created_by) },
                { title: "Note", cell: (row) => <span className="break-words">{row.note}</span> },
                {
                  title: "",
                  cell: (row) => (
                    <Button disabled={isBusy} onClick={() => end(row.id)}>
                      End now
                    </Button>
                  ),
                },
              ]}
            />
          ) : (
            <Empty title="Nothing is suppressed" />
          )
        }
      </Answer>
      <Maintenance isBusy={isBusy} run={run} />
      <p role="status" className="mt-2 text-sm font-medium empty:hidden">
        {said}
      </p>
      {error && (
        <div className="mt-2">
          <Failure error={error} />
        </div>
      )}
    </Panel>
  );
}

function What({ row }: { row: Suppression }) {
  const where = [row.signal && words(row.signal), row.service, row.name].filter(Boolean).join(" · ");
  return (
    <>
      <strong className="font-medium">{row.purpose}</strong> {where || "everything"}
      {row.template && <code className="block font-mono text-xs break-all text-quiet">{row.template}</code>}
    </>
  );
}

function Maintenance({ isBusy, run }: { isBusy: boolean; run: (act: () => Promise<string>) => Promise<void> }) {
  const source = useSource();
  const [service, setService] = useState("");
  const [signal, setSignal] = useState("");
  const [hours, setHours] = useState("1");
  const [note, setNote] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void run(async () => {
      const silenced = await source.suppress({
        purpose: "maintenance",
        service: service.trim(),
        ...(signal ? { signal: signal as Signal } : {}),
        ends: new Date(Date.now() + Number(hours) * HOUR_MS).toISOString(),
        note,
      });
      setNote("");
      return `Announced. ${many(silenced, "anomaly")} that went on ${silenced === 1 ? "is" : "are"} silent from now on.`;
    });
  };
  return (
    <form onSubmit={submit} className="mt-4 border-t border-line pt-4">
      <h3 className="mb-2 text-sm font-semibold">Announce maintenance from now on</h3>
      <div className="grid grid-cols-2 items-end gap-2 sm:grid-cols-3">
        <TextField label="Service, empty for all" value={service} onChange={setService} />
        <Select label="Signal" value={signal} options={SIGNALS} onChange={setSignal} any="all" />
        <label className="flex flex-col gap-0.5 text-xs text-quiet">
          For
          <select className="min-h-8 rounded-md border border-strong bg-panel px-2 py-1 text-sm text-text" value={hours} onChange={(event) => setHours(event.target.value)}>
            {HOURS.map((value) => (
              <option key={value} value={value}>
                {value === "168" ? "a week" : many(Number(value), "hour")}
              </option>
            ))}
          </select>
        </label>
        <TextField className="sm:col-span-2" label="Why" value={note} onChange={setNote} />
        <Button type="submit" disabled={isBusy}>
          Announce
        </Button>
      </div>
    </form>
  );
}
