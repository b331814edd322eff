import { useState } from "react";
import { useSource } from "../lib/context";
import { useQuery } from "../lib/query";
import { type Theme, chooseTheme, chosenTheme } from "../lib/theme";
import { Suppressions } from "./Suppressions";
import { Button, Choice, PageTitle, Panel } from "../ui/parts";

export function SettingsPage() {
  const source = useSource();
  const [theme, setTheme] = useState<Theme>(chosenTheme);
  return (
    <>
      <PageTitle title="Settings" />
      <div className="max-w-3xl space-y-5">
        <Panel title="Appearance">
          <Choice
            label="Colours"
            value={theme}
            options={[
              ["system", "As the system"],
              ["light", "Light"],
              ["dark", "Dark"],
            ]}
            onChange={(chosen) => {
              chooseTheme(chosen);
              setTheme(chosen);
            }}
          />
        </Panel>
        <Panel title="Session">
          {source.isSignedIn ? (
            <>
              <p className="mb-3 text-sm">You are signed in. What you signed in with stays in this page's memory alone.</p>
              <Button
                onClick={async () => {
                  await source.signOut();
                  window.location.assign("/");
                }}
              >
                Sign out
              </Button>
            </>
          ) : (
            <p className="text-sm">
              This sidecar has no API keys: it answers this machine alone, and everybody on it sees everything. With{" "}
              <code className="font-mono text-xs">auth.keys_file</code> each organisation sees its own.
            </p>
          )}
        </Panel>
        {source.abilities.has("suppressions") && <Suppressions />}
        {source.abilities.has("pipeline") && <About />}
      </div>
    </>
  );
}

function About() {
  const source = useSource();
  const query = useQuery("about", () => source.pipeline());
  const links = [
    ["/v1/docs", "The API that this page uses"],
    ["/debug/pipelinez", "The pipeline, part by part"],
    ["/metrics", "Metrics for Prometheus"],
  ] as const;
  return (
    <Panel title="This sidecar">
      {query.data && (
        <p className="mb-2 text-sm">
          Version {query.data.version}. Anomalous records: policy <strong>{query.data.policy}</strong>.
        </p>
      )}
      <ul className="text-sm">
        {links.map(([href, text]) => (
          <li key={href}>
            <a href={href} className="inline-block py-1 text-accent underline">
              {text}
            </a>
          </li>
        ))}
      </ul>
      <p className="mt-2 text-sm text-quiet">
        How it detects, forwards and keeps stands in its configuration file; <code className="font-mono text-xs">driftlock-otlp print-config</code> shows what is in force.
      </p>
    </Panel>
  );
}
