// Invokes a function over gRPC: CS_URL=http://127.0.0.1:8080 CS_CLIENT_TOKEN=... npm start -- t_demo01 default/hello@live '{"name":"Ada"}'
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { InvocationService } from "./gen/codesous/gateway/v1/invocation_service_pb.js";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { ActivationStatus } from "./gen/codesous/type/v1/activation_status_pb.js";

const [tenant, target, event] = process.argv.slice(2);
if (!tenant || !target || !event) {
  throw new Error("usage: npm start -- TENANT NAMESPACE/FUNCTION@REF EVENT_JSON");
}
const [name, ref] = target.split("@");
const [namespace, functionName] = name.split("/");
const client = createClient(
  InvocationService,
  createGrpcTransport({ baseUrl: process.env.CS_URL ?? "http://127.0.0.1:8080" }),
);
try {
  const { activation } = await client.invoke(
    {
      tenant,
      namespace,
      function: functionName,
      ref,
      input: { case: "eventJson", value: new TextEncoder().encode(event) },
    },
    { headers: { authorization: `Bearer ${process.env.CS_CLIENT_TOKEN}` }, timeoutMs: 35_000 },
  );
  console.log(ActivationStatus[activation!.status], activation!.response?.body);
} catch (thrown) {
  // The reason is what docs/reference/errors.md lists, for example CS_NOT_FOUND_FUNCTION.
  const error = ConnectError.from(thrown);
  console.error(error.findDetails(ErrorInfoSchema)[0]?.reason ?? error.code, error.rawMessage);
  process.exitCode = 1;
}
