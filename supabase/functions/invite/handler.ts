/**
 * Invites somebody into an organisation: `{organization_id, email, role}` with a user's token. Whether that user may is
 * for the policies on organization_members to say: the row is written with the user's own rights.
 */

import type { Environment } from "../_shared/environment.ts";
import { answer, ask, headers, ProjectError } from "../_shared/project.ts";

export async function handle(request: Request, env: Environment): Promise<Response> {
    if (request.method !== "POST") return answer(405, { error: "POST alone" });
    const token = request.headers.get("authorization")?.match(/^Bearer (.+)$/)?.[1];
    if (token === undefined) return answer(401, { error: "sign in first" });
    let wish: { organization_id?: unknown; email?: unknown; role?: unknown };
    try {
        wish = await request.json();
    } catch {
        return answer(400, { error: "no JSON" });
    }
    const { organization_id, email, role = "viewer" } = wish;
    if (typeof organization_id !== "string" || typeof email !== "string" || !email.includes("@")) {
        return answer(400, { error: "organization_id and email are needed" });
    }
    try {
        // Asked first, with the user's own rights: who may not add members sends no mail to anybody.
        const may = await ask(`${env.url}/rest/v1/rpc/may_add_member`, {
            method: "POST",
            headers: headers(env.publishableKey, token),
            body: JSON.stringify({ organization: organization_id, role }),
        });
        if (may !== true) return answer(403, { error: "only admins invite, and only owners invite owners" });
        const user = await ask(`${env.url}/auth/v1/invite`, {
            method: "POST",
            headers: headers(env.secretKey),
            body: JSON.stringify({ email }),
        }) as { id: string };
        await ask(`${env.url}/rest/v1/organization_members`, {
            method: "POST",
            headers: headers(env.publishableKey, token),
            body: JSON.stringify({ organization_id, user_id: user.id, role }),
        });
        return answer(201, { user_id: user.id });
    } catch (error) {
        if (!(error instanceof ProjectError)) throw error;
        const status = [401, 403, 409, 422].includes(error.status) ? error.status : 502;
        return answer(status, { error: status === 409 ? "belongs already" : "not invited" });
    }
}
