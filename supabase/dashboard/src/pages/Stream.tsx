import { Sensitivity } from "./Sensitivity";
import { WindowChart } from "../charts/WindowChart";
import { useSource } from "../lib/context";
import { count, many, streamName } from "../lib/format";
import { useQuery } from "../lib/query";
import { Link } from "../lib/router";
import { AnomalyLine } from "../ui/anomalies";
import { Answer, Empty, Figure, PageTitle, Panel, Time } from "../ui/parts";

const SHOWN_WINDOWS = 200;
const REFRESH_MS = 5_000;

export function StreamPage({ id }: { id: string }) {
  const source = useSource();
  const query = useQuery(`stream-${id}`, () => source.stream(id, SHOWN_WINDOWS), REFRESH_MS);
  const stream = query.data;
  return (
    <>
      <nav aria-label="Breadcrumb" className="mb-1 text-sm">
        <Link href="/streams" className="text-accent hover:underline">
          Streams
        </Link>
      </nav>
      <PageTitle title={stream ? streamName(stream) : "Stream"} />
      <Answer query={query} what="the stream">
        {(detail) => (
          <div className="space-y-5">
            {detail.live && (
              <dl className="grid grid-cols-2 gap-3 md:grid-cols-4">
                <Figure
                  label="Now"
                  value={detail.live.anomaly_id ? "anomalous" : detail.live.is_warm ? "calm" : "warming up"}
                  note={
                    detail.live.anomaly_id ? (
                      <Link href={`/anomalies/${detail.live.anomaly_id}`} className="text-accent underline">
                        Why
                      </Link>
                    ) : detail.live.is_warm ? (
                      "may alarm"
                    ) : (
                      `${many(detail.live.windows_to_warm, "window")} to go`
                    )
                  }
                />
                <Figure
                  label="Baseline"
                  value={many(detail.live.baseline_windows, "window")}
                  note={many(detail.live.baseline_records, "record")}
                />
                <Figure
                  label="Baseline reaches back to"
                  value={detail.baseline_since ? <Time at={detail.baseline_since} className="text-lg" /> : "–"}
                />
                <Figure
                  label="Open window"
                  value={count(detail.live.open_records)}
                  note={`of ${many(detail.live.window_size, "record")}`}
                />
              </dl>
            )}
            <Panel title="Windows" hint={`The last ${many(detail.windows.length, "window")}.`}>
              {detail.windows.length ? (
                <WindowChart windows={detail.windows} title={streamName(detail)} />
              ) : (
                <Empty title="No window has closed yet" />
              )}
            </Panel>
            {source.abilities.has("sensitivity") && <Sensitivity streamId={detail.id} />}
            <StreamAnomalies service={detail.service} streamId={detail.id} />
          </div>
        )}
      </Answer>
    </>
  );
}

function StreamAnomalies({ service, streamId }: { service: string; streamId: string }) {
  const source = useSource();
  const query = useQuery(`stream-anomalies-${streamId}`, () => source.anomalies(service ? { service } : {}, 100));
  return (
    <Panel title="Anomalies of this stream">
      <Answer query={query} what="anomalies">
        {({ rows }) => {
          const mine = rows.filter((anomaly) => anomaly.stream.id === streamId);
          return mine.length ? (
            <ul className="-mx-2 divide-y divide-line">
              {mine.map((anomaly) => (
                <li key={anomaly.id} className="row-lazy">
                  <AnomalyLine anomaly={anomaly} />
                </li>
              ))}
            </ul>
          ) : (
            <Empty title="None among the service's last hundred" />
          );
        }}
      </Answer>
    </Panel>
  );
}
