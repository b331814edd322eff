import type { FormEvent } from "react";
import { useState } from "react";
import type { Source } from "../data/source";
import type { SourceError } from "../data/source";
import { asError } from "../lib/query";
import { Button, Failure, TextField } from "../ui/parts";

export function SignInPage({ source, onSignedIn }: { source: Source; onSignedIn: () => void }) {
  const [name, setName] = useState("");
  const [secret, setSecret] = useState("");
  const [error, setError] = useState<SourceError>();
  const [isBusy, setBusy] = useState(false);
  const isSidecar = source.home === "sidecar";

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    source
      .signIn({ name, secret })
      .then(onSignedIn, (failure: unknown) => setError(asError(failure)))
      .finally(() => setBusy(false));
  };

  return (
    <main className="mx-auto flex min-h-dvh max-w-md flex-col justify-center gap-5 px-4 py-10">
      <h1 className="inline-flex items-center gap-3 text-2xl font-semibold tracking-tight">
        <img src="/icon.svg" alt="" className="size-9" />
        Driftlock
      </h1>
      <form onSubmit={submit} className="space-y-4 rounded-xl border border-line bg-panel p-5">
        {error && <Failure error={error} />}
        {!isSidecar && <TextField label="E-mail" type="email" autoComplete="username" value={name} onChange={setName} />}
        <TextField
          label={isSidecar ? "API key" : "Password"}
          type="password"
          autoComplete={isSidecar ? "off" : "current-password"}
          placeholder={isSidecar ? "dl_…" : ""}
          value={secret}
          onChange={setSecret}
        />
        <Button type="submit" look="primary" disabled={isBusy || !secret} className="w-full">
          {isBusy ? "Signing in…" : "Sign in"}
        </Button>
        <p className="text-sm text-quiet">
          {isSidecar
            ? "A key of the role viewer, operator or admin, from driftlock-otlp keys create. It stays in this page's memory: closing or reloading the page forgets it."
            : "You stay signed in until this page is closed or reloaded; nothing is kept in the browser."}
        </p>
      </form>
    </main>
  );
}
