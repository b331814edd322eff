import { useEffect, useMemo, useRef, useState } from "react";
import type { Anomaly } from "../data/types";
import { useSource } from "../lib/context";
import { useQuery } from "../lib/query";
import { AnomalyLine } from "../ui/anomalies";
import { Answer, Button, Empty, PageTitle, Panel, cx } from "../ui/parts";

const SHOWN = 50;

/** Anomalies as they are found, newest on top; those that came while the page is open are marked. */
export function LivePage() {
  const source = useSource();
  const [isPaused, setPaused] = useState(false);
  const query = useQuery("live", () => source.anomalies({}, SHOWN));
  const [held, setHeld] = useState<Anomaly[]>();
  const known = useRef<Set<string> | undefined>(undefined);
  const rows = isPaused ? held : query.data?.rows;

  useEffect(() => {
    if (query.data && !known.current) known.current = new Set(query.data.rows.map((row) => row.id));
  }, [query.data]);

  const waiting = useMemo(() => {
    const shown = new Set(held?.map((row) => row.id));
    return isPaused ? (query.data?.rows.filter((row) => !shown.has(row.id)).length ?? 0) : 0;
  }, [isPaused, held, query.data]);

  return (
    <>
      <PageTitle title="Live">
        <Button
          aria-pressed={isPaused}
          onClick={() => {
            setHeld(query.data?.rows);
            setPaused(!isPaused);
          }}
        >
          {isPaused ? `Go on${waiting ? ` (${waiting} new)` : ""}` : "Pause"}
        </Button>
      </PageTitle>
      <Panel hint="" title="Newest anomalies">
        <Answer query={{ ...query, data: rows }} what="anomalies">
          {(shown) =>
            shown.length ? (
              <ul className="-mx-2 divide-y divide-line" aria-live={isPaused ? "off" : "polite"} aria-relevant="additions">
                {shown.map((anomaly) => {
                  const isNew = known.current !== undefined && !known.current.has(anomaly.id);
                  return (
                    <li key={anomaly.id} className={cx("row-lazy", isNew && "appear border-l-2 border-l-alarm")}>
                      <AnomalyLine anomaly={anomaly} />
                    </li>
                  );
                })}
              </ul>
            ) : (
              <Empty title="Waiting for the first anomaly">This page shows it the moment it is found.</Empty>
            )
          }
        </Answer>
      </Panel>
    </>
  );
}
