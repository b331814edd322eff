import { environment } from "../_shared/environment.ts";
import { handle } from "./handler.ts";

Deno.serve((request) => handle(request, environment()));
