/** A small server that stands in for the project and for Stripe, and what tests compare with. */

import type { Environment } from "../_shared/environment.ts";

export interface Seen {
    path: string;
    headers: Headers;
    body: string;
}

export interface StandIn extends AsyncDisposable {
    env: Environment;
    seen: Seen[];
}

export function standIn(answers: (path: string, body: string) => Response): StandIn {
    const seen: Seen[] = [];
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
        const [path, body] = [new URL(request.url).pathname, await request.text()];
        seen.push({ path, headers: request.headers, body });
        return answers(path, body);
    });
    const url = `http://127.0.0.1:${server.addr.port}`;
    const env: Environment = {
        url,
        secretKey: "sb_secret_test",
        publishableKey: "sb_publishable_test",
        stripeKey: "sk_test",
        stripeWebhookSecrets: ["whsec_old", "whsec_new"],
        stripeUrl: url,
        meter: "driftlock_items",
    };
    return { env, seen, [Symbol.asyncDispose]: () => server.shutdown() };
}

export function equal(found: unknown, wanted: unknown): void {
    const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
    if (a !== b) throw new Error(`found ${a}, wanted ${b}`);
}
