import { useMemo, useState } from "react";
import { useSource } from "../lib/context";
import { SIGNALS, type Stream } from "../data/types";
import { count, many, streamName, words } from "../lib/format";
import { useQuery } from "../lib/query";
import { Link, setSearch, useSearch } from "../lib/router";
import { Answer, Button, Chip, Empty, PageTitle, Panel, Select, Table, TextField } from "../ui/parts";

const PAGE = 200;
const REFRESH_MS = 5_000;

export function StreamsPage() {
  const source = useSource();
  const search = useSearch();
  const [pages, setPages] = useState(1);
  const signal = search.get("signal") ?? "";
  const text = search.get("text") ?? "";
  const query = useQuery(
    `streams-${pages}`,
    async () => {
      const rows: Stream[] = [];
      let cursor: string | undefined;
      for (let page = 0; page < pages; page += 1) {
        const found = await source.streams(PAGE, cursor);
        rows.push(...found.rows);
        cursor = found.next ?? undefined;
        if (!cursor) break;
      }
      return { rows, isMore: cursor !== undefined };
    },
    REFRESH_MS,
  );
  const shown = useMemo(
    () =>
      (query.data?.rows ?? []).filter(
        (stream) => (!signal || stream.signal === signal) && streamName(stream).toLowerCase().includes(text.toLowerCase()),
      ),
    [query.data, signal, text],
  );

  return (
    <>
      <PageTitle title="Streams">
        <div className="flex flex-wrap items-end gap-2">
          <Select label="Signal" value={signal} options={SIGNALS} onChange={(value) => setSearch({ signal: value })} />
          <TextField label="Service or name" value={text} onChange={(value) => setSearch({ text: value })} />
        </div>
      </PageTitle>
      <Panel>
        <Answer query={query} what="streams">
          {({ rows, isMore }) =>
            shown.length ? (
              <>
                <Table
                  caption="Streams: records that are compared with one another"
                  rows={shown}
                  rowKey={(stream) => stream.id}
                  columns={[
                    {
                      title: "Stream",
                      cell: (stream) => (
                        <Link
                          href={`/streams/${encodeURIComponent(stream.id)}`}
                          className="font-medium text-accent underline decoration-line underline-offset-2 hover:decoration-accent"
                        >
                          {stream.service || "(no service)"}
                          {stream.name && ` · ${stream.name}`}
                        </Link>
                      ),
                    },
                    { title: "Signal", cell: (stream) => words(stream.signal) },
                    { title: "Now", cell: (stream) => <Now stream={stream} /> },
                    { title: "Baseline", cell: (stream) => baseline(stream), isNumber: true },
                    { title: "Open window", cell: (stream) => openWindow(stream), isNumber: true },
                    ...(rows.some((stream) => stream.organization)
                      ? [{ title: "Organisation", cell: (stream: Stream) => stream.organization }]
                      : []),
                  ]}
                />
                <p className="mt-3 flex flex-wrap items-center gap-3 text-sm text-quiet">
                  {many(shown.length, "stream")}
                  {isMore && <Button onClick={() => setPages((old) => old + 1)}>Load more</Button>}
                </p>
              </>
            ) : (
              <Empty title={rows.length ? "No stream fits" : "No streams yet"}>
                {rows.length ? "Other filters may find some." : "They appear with the first telemetry that is sent."}
              </Empty>
            )
          }
        </Answer>
      </Panel>
    </>
  );
}

function Now({ stream: { live } }: { stream: Stream }) {
  if (!live) return <span className="text-quiet">not followed</span>;
  if (live.anomaly_id) {
    return (
      <Link href={`/anomalies/${live.anomaly_id}`} className="font-medium text-alarm underline">
        anomalous
      </Link>
    );
  }
  if (!live.is_warm) return <Chip>warming up, {many(live.windows_to_warm, "window")} to go</Chip>;
  return <>calm</>;
}

function baseline({ live }: Stream): string {
  return live ? `${many(live.baseline_windows, "window")}, ${many(live.baseline_records, "record")}` : "–";
}

function openWindow({ live }: Stream): string {
  return live ? `${count(live.open_records)} of ${many(live.window_size, "record")}` : "–";
}
