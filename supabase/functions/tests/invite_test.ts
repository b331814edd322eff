import { handle } from "../invite/handler.ts";
import { equal, standIn } from "./stand_in.ts";

const WISH = { organization_id: "o", email: "a@b.test", role: "operator" };

function request(body: unknown, token?: string): Request {
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    return new Request("http://f/", { method: "POST", body: JSON.stringify(body), headers });
}

Deno.test("an admin invites: the mail is sent by the service, the row written with the admin's own rights", async () => {
    await using server = standIn((path) =>
        path.endsWith("may_add_member") ? Response.json(true) : Response.json({ id: "u" }, { status: 200 })
    );
    const response = await handle(request(WISH, "token"), server.env);
    equal([response.status, await response.json()], [201, { user_id: "u" }]);
    const keys = server.seen.map((seen) => [seen.path, seen.headers.get("apikey"), seen.headers.get("authorization")]);
    equal(keys, [
        ["/rest/v1/rpc/may_add_member", "sb_publishable_test", "Bearer token"],
        ["/auth/v1/invite", "sb_secret_test", null],
        ["/rest/v1/organization_members", "sb_publishable_test", "Bearer token"],
    ]);
    equal(JSON.parse(server.seen[2].body), { organization_id: "o", user_id: "u", role: "operator" });
});

Deno.test("who may not invite sends no mail", async () => {
    await using server = standIn(() => Response.json(false));
    equal((await handle(request(WISH, "token"), server.env)).status, 403);
    equal(server.seen.length, 1);
});

Deno.test("who is not signed in, or asks for nonsense, is refused at once", async () => {
    await using server = standIn(() => Response.json(true));
    equal((await handle(request(WISH), server.env)).status, 401);
    equal((await handle(request({ email: "a" }, "token"), server.env)).status, 400);
    equal(server.seen.length, 0);
});
