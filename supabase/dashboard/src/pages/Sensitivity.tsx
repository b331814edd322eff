import { useState } from "react";
import type { WhatIf } from "../data/types";
import { useAction } from "../lib/action";
import { useSource } from "../lib/context";
import { bits, many, probability, words } from "../lib/format";
import { useQuery } from "../lib/query";
import { Answer, Button, Failure, Numbers, Panel, Table, Time } from "../ui/parts";

/** From rarely to often; the one in force is among them or stands beside them. */
const CHOICES = [0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4];

/** How sensitive a stream's detector is, and what another choice would have alarmed. */
export function Sensitivity({ streamId }: { streamId: string }) {
  const source = useSource();
  const [supposed, setSupposed] = useState<number>();
  const { isBusy, said, error, run } = useAction();
  const query = useQuery(`what-if-${streamId}-${supposed}`, async () => {
    if (supposed !== undefined) return source.whatIf(streamId, supposed);
    // The significance in force is part of any answer.
    const { significance } = await source.whatIf(streamId, CHOICES[3] ?? 0.01);
    return source.whatIf(streamId, significance);
  });
  const set = (significance: number | null) =>
    run(async () => {
      await source.setSensitivity(streamId, significance);
      return "Taken: it holds from the stream's next window on.";
    });
  return (
    <Panel title="Sensitivity" hint="What another significance would have made of the stored windows. Nothing changes until you say so.">
      <Answer query={query} what="the stream's sensitivity">
        {(found) => (
          <>
            <div className="flex flex-wrap items-end gap-3">
              <label className="flex flex-col gap-0.5 text-xs text-quiet">
                Flag windows with a p-value up to
                <select
                  className="min-h-8 rounded-md border border-strong bg-panel px-2 py-1 text-sm text-text"
                  value={found.supposed_significance}
                  onChange={(event) => setSupposed(Number(event.target.value))}
                >
                  {[...new Set([...CHOICES, found.significance, found.supposed_significance])]
                    .sort((one, other) => one - other)
                    .map((value) => (
                      <option key={value} value={value}>
                        {probability(value)}
                        {value === found.significance ? " (in force)" : ""}
                      </option>
                    ))}
                </select>
              </label>
              <p className="tabular min-h-8 flex-1 basis-60 content-center">
                <Verdict found={found} />
              </p>
              <Button look="primary" disabled={isBusy || found.supposed_significance === found.significance} onClick={() => set(found.supposed_significance)}>
                Put in force
              </Button>
              <Button disabled={isBusy} onClick={() => set(null)}>
                As configured
              </Button>
            </div>
            <p role="status" className="mt-2 text-sm font-medium empty:hidden">
              {said}
            </p>
            {error && <Failure error={error} />}
            <Numbers>
              <Table
                caption="Stored windows, newest first, and whether they fire"
                rows={[...found.windows].reverse()}
                rowKey={(row) => `${row.start} ${row.end}`}
                columns={[
                  { title: "End", cell: (row) => <Time at={row.end} /> },
                  { title: "Outcome", cell: (row) => words(row.outcome) },
                  { title: "Surprise", cell: (row) => bits(row.bits), isNumber: true },
                  { title: `Fires at ${probability(found.significance)}`, cell: (row) => (row.fires ? "yes" : "no") },
                  { title: `Would at ${probability(found.supposed_significance)}`, cell: (row) => (row.would_fire ? "yes" : "no") },
                ]}
              />
            </Numbers>
          </>
        )}
      </Answer>
    </Panel>
  );
}

function Verdict({ found }: { found: WhatIf }) {
  const windows = many(found.windows.length, "window");
  if (found.significance === found.supposed_significance) {
    return (
      <>
        In force: <strong>{found.fired}</strong> of {windows} fire.
      </>
    );
  }
  return (
    <>
      <strong>{found.would_have_fired}</strong> of {windows} would have fired; at {probability(found.significance)}, which is in force, {found.fired} did.
    </>
  );
}
