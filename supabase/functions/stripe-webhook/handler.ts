/**
 * Takes Stripe's webhooks. The effect, and the row that says an event had it, are one transaction of the database, so
 * that an event which comes again changes nothing. Whatever fails is answered with an error: Stripe then tries again.
 */

import type { Environment } from "../_shared/environment.ts";
import { answer, call, ProjectError } from "../_shared/project.ts";
import { isSigned } from "../_shared/stripe.ts";

const MOST_BYTES = 1 << 20;

export async function handle(request: Request, env: Environment, nowS = Date.now() / 1000): Promise<Response> {
    if (request.method !== "POST") return answer(405, { error: "POST alone" });
    if (Number(request.headers.get("content-length") ?? 0) > MOST_BYTES) return answer(413, { error: "too large" });
    const body = await request.text();
    const signature = request.headers.get("stripe-signature") ?? "";
    if (!await isSigned(body, signature, env.stripeWebhookSecrets, nowS)) {
        return answer(400, { error: "not signed by Stripe, or too long ago" });
    }
    try {
        return answer(200, { outcome: await call(env, "apply_stripe_event", { event: JSON.parse(body) }) });
    } catch (error) {
        if (!(error instanceof ProjectError)) throw error;
        console.error("stripe event not applied", error.status, error.message);
        return answer(500, { error: "not applied; try again" });
    }
}
