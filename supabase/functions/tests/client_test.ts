/** What members see and do through supabase-js, on real tables with their policies: run by tests/supabase. */

import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { equal } from "./stand_in.ts";

const url = Deno.env.get("CLIENT_TEST_URL") ?? "";
const anomaly = "00000000-0000-4000-8000-000000000011";
const ofOthers = "00000000-0000-4000-8000-000000000021";

/** A client of somebody whose token stands in the environment; of nobody without one. */
function client(who?: string): SupabaseClient {
    const options = { auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false } };
    const key = Deno.env.get("CLIENT_TEST_KEY") ?? "";
    if (who === undefined) return createClient(url, key, options);
    return createClient(url, key, { accessToken: () => Promise.resolve(Deno.env.get(`CLIENT_TEST_${who}`) ?? "") });
}

function test(name: string, body: () => Promise<void>): void {
    Deno.test({ name, ignore: url === "", fn: body });
}

test("signed out, only the price list is read", async () => {
    const nobody = client();
    equal((await nobody.from("plans").select("id").order("id")).data, [{ id: "business" }, { id: "free" }, {
        id: "team",
    }]);
    for (const table of ["anomalies", "anomaly_overview", "usage_hourly", "organizations"]) {
        equal((await nobody.from(table).select("*")).error?.code, "42501");
    }
});

test("a viewer reads their own organisation and changes nothing", async () => {
    const viewer = client("VIEWER");
    const overview = await viewer.from("anomaly_overview").select("organization,service,severity").order("when");
    equal(overview.data, [{ organization: "One", service: "checkout", severity: "high" }]);
    equal((await viewer.from("anomalies").select("id").eq("id", ofOthers)).data, []);
    equal((await viewer.from("usage_monthly").insert({ items: 0 })).error?.code, "42501");
    const refused = await viewer.rpc("set_anomaly_status", { anomaly, status: "dismissed" });
    equal(refused.error?.code, "42501");
});

test("an operator acts on their own organisation's anomalies alone", async () => {
    const operator = client("OPERATOR");
    const done = await operator.rpc("set_anomaly_status", { anomaly, status: "acknowledged", note: "looking" });
    equal(done.error, null);
    equal((await operator.from("anomalies").select("status").eq("id", anomaly)).data, [{ status: "acknowledged" }]);
    const refused = await operator.rpc("set_anomaly_status", { anomaly: ofOthers, status: "dismissed" });
    equal(refused.error?.code, "42501");
});

test("somebody with a new account makes an organisation of their own", async () => {
    const newcomer = client("NEWCOMER");
    equal((await newcomer.from("organizations").select("slug")).data, []);
    equal((await newcomer.rpc("create_organization", { slug: "three", name: "Three" })).error, null);
    equal((await newcomer.from("organizations").select("slug")).data, [{ slug: "three" }]);
    const plan = await newcomer.from("usage_this_month").select("plan,items");
    equal(plan.data, [{ plan: "Free", items: 0 }]);
});
