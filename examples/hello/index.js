// Greets by name: invoked by API with {"name": "Ada"}, or as a web page with ?name=Ada.
export default async function handle(event, ctx) {
  const name = event?.queryStringParameters?.name ?? event?.name ?? "world";
  console.log("greeting", name);
  return {
    statusCode: 200,
    headers: { "content-type": "text/plain; charset=utf-8" },
    body: `Hello, ${name}! This is ${ctx.function} version ${ctx.version}.`,
  };
}
