import type { ComponentType } from "react";
import { useCallback, useEffect, useRef, useState } from "react";
import type { Ability, Connection, Source } from "./data/source";
import { SourceError } from "./data/source";
import { SourceContext } from "./lib/context";
import { asError, invalidate } from "./lib/query";
import { Link, usePath } from "./lib/router";
import { AnomalyPage } from "./pages/Anomaly";
import { AuditPage } from "./pages/Audit";
import { IncidentPage } from "./pages/Incident";
import { IncidentsPage } from "./pages/Incidents";
import { LivePage } from "./pages/Live";
import { OverviewPage } from "./pages/Overview";
import { SettingsPage } from "./pages/Settings";
import { SignInPage } from "./pages/SignIn";
import { StreamPage } from "./pages/Stream";
import { StreamsPage } from "./pages/Streams";
import { UsagePage } from "./pages/Usage";
import { Empty, Failure, cx } from "./ui/parts";

interface Place {
  path: string;
  title: string;
  page: ComponentType<{ id: string }>;
  /** In the navigation; others are reached from there. */
  isListed?: boolean;
  needs?: Ability;
}

const PLACES: Place[] = [
  { path: "/", title: "Overview", page: OverviewPage, isListed: true },
  { path: "/incidents", title: "Incidents", page: IncidentsPage, isListed: true },
  { path: "/incidents/:id", title: "Incident", page: IncidentPage, needs: "incidents" },
  { path: "/anomalies/:id", title: "Anomaly", page: AnomalyPage },
  { path: "/streams", title: "Streams", page: StreamsPage, isListed: true, needs: "streams" },
  { path: "/streams/:id", title: "Stream", page: StreamPage, needs: "streams" },
  { path: "/live", title: "Live", page: LivePage, isListed: true },
  { path: "/usage", title: "Usage", page: UsagePage, isListed: true, needs: "usage" },
  { path: "/audit", title: "Audit", page: AuditPage, isListed: true },
  { path: "/settings", title: "Settings", page: SettingsPage, isListed: true },
];

const CHANGES_AT_ONCE_MS = 300;

type Session = "asking" | "in" | "out" | SourceError;

export function App({ source }: { source: Source }) {
  const [session, setSession] = useState<Session>("asking");
  const [connection, setConnection] = useState<Connection>("connecting");
  const path = usePath();
  const places = PLACES.filter((place) => !place.needs || source.abilities.has(place.needs));

  const enter = useCallback(() => {
    source.anomalies({}, 1).then(
      () => setSession("in"),
      (error: unknown) => {
        const found = asError(error);
        setSession(found.kind === "unauthenticated" ? "out" : found);
      },
    );
  }, [source]);
  useEffect(enter, [enter]);

  useEffect(() => {
    if (session !== "in") return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = source.watch(() => {
      timer ??= setTimeout(() => {
        timer = undefined;
        invalidate();
      }, CHANGES_AT_ONCE_MS);
    }, setConnection);
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [source, session]);

  const found = match(places, path);
  const title = found?.place.title ?? "Not found";
  useEffect(() => {
    document.title = `${title} · Driftlock`;
  }, [title]);

  // Who goes to another page by keyboard or screen reader lands at its beginning.
  const isFirst = useRef(true);
  useEffect(() => {
    if (isFirst.current) isFirst.current = false;
    else document.getElementById("page-title")?.focus();
  }, [path]);

  if (session === "out") return <SignInPage source={source} onSignedIn={enter} />;

  const Page = found?.place.page;
  return (
    <SourceContext value={source}>
      <a
        href="#content"
        className="sr-only focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-20 focus:rounded-md focus:bg-accent focus:px-3 focus:py-2 focus:text-on-accent"
      >
        Skip to content
      </a>
      <div className="mx-auto max-w-[92rem] lg:grid lg:grid-cols-[13rem_minmax(0,1fr)]">
        <Navigation places={places} path={path} connection={connection} />
        <main id="content" tabIndex={-1} className="min-h-dvh min-w-0 border-line px-4 py-5 outline-none sm:px-6 lg:border-l lg:py-7">
          {session instanceof SourceError && <Failure error={session} onRetry={enter} />}
          {/* While it is asked whether one may, the page asks already: most may. */}
          {!(session instanceof SourceError) && Page && <Page key={path} id={found?.id ?? ""} />}
          {!Page && (
            <Empty title="There is no such page">
              <Link href="/" className="text-accent underline">
                Go to the overview
              </Link>
            </Empty>
          )}
        </main>
      </div>
    </SourceContext>
  );
}

const CONNECTIONS: Record<Connection, { text: string; look: string }> = {
  connecting: { text: "Connecting", look: "text-quiet" },
  live: { text: "Live", look: "text-good" },
  lost: { text: "Reconnecting", look: "text-alarm" },
};

function Navigation({ places, path, connection }: { places: Place[]; path: string; connection: Connection }) {
  const { text, look } = CONNECTIONS[connection];
  // An anomaly is found under the incidents.
  const here = path.startsWith("/anomalies/") ? "/incidents" : `/${path.split("/")[1] ?? ""}`;
  return (
    <header className="sticky top-0 z-10 border-b border-line bg-ground/95 backdrop-blur lg:h-dvh lg:border-b-0">
      <div className="flex items-center justify-between gap-4 px-4 py-2.5 lg:px-5 lg:pt-7 lg:pb-5">
        <Link href="/" className="inline-flex items-center gap-2 rounded text-base font-semibold tracking-tight">
          <img src="/icon.svg" alt="" className="size-6" />
          Driftlock
        </Link>
        <span role="status" className={cx("inline-flex items-center gap-1.5 text-xs lg:hidden", look)}>
          <Dot isOn={connection === "live"} />
          {text}
        </span>
      </div>
      <nav aria-label="Pages" className="overflow-x-auto px-2 pb-2 lg:px-3">
        <ul className="flex gap-1 lg:flex-col">
          {places
            .filter((place) => place.isListed)
            .map((place) => {
              const isHere = place.path === here;
              return (
                <li key={place.path}>
                  <Link
                    href={place.path}
                    aria-current={isHere ? "page" : undefined}
                    className={cx(
                      "block rounded-md px-2.5 py-1.5 text-sm whitespace-nowrap hover:bg-sunken",
                      isHere ? "bg-accent-soft font-medium text-accent" : "text-text",
                    )}
                  >
                    {place.title}
                  </Link>
                </li>
              );
            })}
        </ul>
      </nav>
      <p className={cx("absolute bottom-5 left-5 hidden items-center gap-1.5 text-xs lg:inline-flex", look)}>
        <Dot isOn={connection === "live"} />
        {text}
      </p>
    </header>
  );
}

function Dot({ isOn }: { isOn: boolean }) {
  return (
    <svg viewBox="0 0 10 10" className={cx("size-2", !isOn && "breathe")} aria-hidden="true">
      <circle cx="5" cy="5" r="4" fill={isOn ? "currentColor" : "none"} stroke="currentColor" strokeWidth="2" />
    </svg>
  );
}

function match(places: Place[], path: string): { place: Place; id: string } | undefined {
  const trimmed = path.length > 1 ? path.replace(/\/+$/, "") : path;
  for (const place of places) {
    if (place.path === trimmed) return { place, id: "" };
    const prefix = place.path.replace(/:id$/, "");
    const rest = trimmed.slice(prefix.length);
    if (prefix !== place.path && trimmed.startsWith(prefix) && rest && !rest.includes("/")) {
      return { place, id: decodeURIComponent(rest) };
    }
  }
  return undefined;
}
