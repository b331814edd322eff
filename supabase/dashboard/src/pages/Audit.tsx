import { useSource } from "../lib/context";
import { usePages } from "../lib/pages";
import { Link } from "../lib/router";
import { anomalyPath, incidentPath } from "../ui/anomalies";
import { actionText, actorText, noteOf } from "../ui/history";
import { Answer, Button, Empty, PageTitle, Panel, Table, Time } from "../ui/parts";

const PAGE = 100;
const ID = /^[0-9a-f]{32}$/;

export function AuditPage() {
  const source = useSource();
  const list = usePages("audit", (cursor) => source.audit(PAGE, cursor), PAGE);
  return (
    <>
      <PageTitle title="Audit" />
      <Panel title="Who did what" hint="Append-only, newest first; each entry holds the hash of the one before it.">
        <Answer query={list} what="the history">
          {({ rows, isMore }) =>
            rows.length ? (
              <>
                <Table
                  caption="Who did what, newest first"
                  rows={rows}
                  rowKey={(entry) => String(entry.seq)}
                  columns={[
                    { title: "No.", cell: (entry) => entry.seq, isNumber: true },
                    { title: "When", cell: (entry) => <Time at={entry.at} /> },
                    { title: "Who", cell: (entry) => actorText(entry.actor) },
                    { title: "What", cell: (entry) => actionText(entry) },
                    {
                      title: "To",
                      cell: (entry) =>
                        ID.test(entry.subject) ? (
                          <Link href={entry.action.startsWith("incident_") ? incidentPath(entry.subject) : anomalyPath(entry.subject)} className="font-mono text-accent underline">
                            {entry.subject.slice(0, 8)}
                          </Link>
                        ) : (
                          <span className="break-all">{entry.subject}</span>
                        ),
                    },
                    { title: "Note", cell: (entry) => <span className="break-words">{noteOf(entry)}</span> },
                  ]}
                />
                {isMore && (
                  <p className="mt-3">
                    <Button onClick={list.more}>Load more</Button>
                  </p>
                )}
              </>
            ) : (
              <Empty title="Nothing was done yet" />
            )
          }
        </Answer>
      </Panel>
    </>
  );
}
