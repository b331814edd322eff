/**
 * Tells Stripe of the usage of whole hours; called every hour, by pg_cron or any other clock, with a secret key in
 * `apikey`. Reports are kept before they are sent: a call that ends halfway is finished by the next one.
 */

import type { Environment } from "../_shared/environment.ts";
import { answer, call, isSame } from "../_shared/project.ts";
import { type Report, tell } from "../_shared/stripe.ts";

export async function handle(request: Request, env: Environment): Promise<Response> {
    if (request.method !== "POST") return answer(405, { error: "POST alone" });
    if (env.secretKey === "" || !await isSame(request.headers.get("apikey") ?? "", env.secretKey)) {
        return answer(401, { error: "needs a secret key in the apikey header" });
    }
    const reports = await call(env, "take_stripe_reports", {}) as Report[];
    const sent: string[] = [];
    const failed: string[] = [];
    for (const report of reports) {
        try {
            await tell(env, report);
            sent.push(report.identifier);
        } catch (error) {
            // One customer's trouble is not another's.
            failed.push(report.identifier);
            console.error("usage not told", report.identifier, error instanceof Error ? error.message : error);
        }
    }
    if (sent.length > 0) await call(env, "stripe_reports_sent", { identifiers: sent });
    return answer(failed.length > 0 ? 502 : 200, { sent: sent.length, failed: failed.length });
}
