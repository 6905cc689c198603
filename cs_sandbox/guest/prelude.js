// What stands between the engine and user code: the host API, and the path from the handler's value to a response.
//
// Runs before user code in every context and captures all that it needs. Nothing here may call a method through a
// prototype, iterate, spread, or set an inheritable property once user code has run: all of these can be replaced by it.
// `native` holds functions of the cell; they take and give primitives, and no reference to them leaves this file.
(function (native, limits) {
  "use strict";
  const { log, call, timer, clear, random, digest, remaining, lazy, header, cookie, respond, fail } = native;
  const { result: RESULT_LIMIT, args: ARGUMENT_LIMIT } = limits;
  const G = globalThis;
  const { apply, ownKeys, defineProperty, getOwnPropertyDescriptor } = Reflect;
  const { create, keys, freeze } = Object;
  const { stringify, parse } = JSON;
  const { isArray } = Array;
  const { isInteger } = Number;
  const { floor } = Math;
  const P = Promise, E = Error, TE = TypeError, RE = RangeError, S = String, WM = WeakMap;
  const { get: weakGet, set: weakSet } = WM.prototype;
  const { slice } = S.prototype;
  const objectToString = Object.prototype.toString;
  const isError = E.isError || ((value) => value instanceof E);
  const cut = (text, length) => (text.length > length ? apply(slice, text, [0, length]) : text);

  const hostErrors = new WM();
  const pending = create(null);
  const timers = create(null);

  const hide = (target, name, value) =>
    defineProperty(target, name, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  const show = (target, name, value) =>
    defineProperty(target, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });

  // ---- Logs.

  function describe(value) {
    switch (typeof value) {
      case "string": return value;
      case "symbol": return apply(Symbol.prototype.toString, value, []);
      case "bigint": return S(value) + "n";
      case "function": return "[function" + (typeof value.name === "string" && value.name ? " " + value.name : "") + "]";
      case "object": break;
      default: return S(value);
    }
    if (value === null) return "null";
    if (isError(value)) {
      const head = S(value.name) + (value.message === "" ? "" : ": " + S(value.message));
      return typeof value.stack === "string" && value.stack ? head + "\n" + value.stack : head;
    }
    const text = stringify(value);
    return text === undefined ? apply(objectToString, value, []) : text;
  }

  function line(level, values) {
    let text = "";
    for (let i = 0; i < values.length; i++) {
      let part;
      try {
        part = describe(values[i]);
      } catch {
        part = "[cannot be shown]";
      }
      text += i ? " " + part : part;
    }
    log(level, cut(text, limits.log));
  }

  const debug = (...values) => line(1, values);
  const info = (...values) => line(2, values);
  const warn = (...values) => line(3, values);
  const error = (...values) => line(4, values);
  const named = (names) => {
    const target = {};
    for (const name of ownKeys(names)) {
      hide(names[name], "name", name);
      show(target, name, names[name]);
    }
    return target;
  };
  hide(G, "console", named({
    log: (...values) => line(2, values), debug, info, warn, error, trace: (...values) => line(1, values),
    assert: (condition, ...values) => { if (!condition) line(4, values.length ? values : ["assertion failed"]); },
  }));

  // ---- Host calls.

  function hostError(reason, message) {
    const raised = new E(message);
    hide(raised, "name", "CsError");
    hide(raised, "reason", reason);
    hide(raised, "code", reason);
    apply(weakSet, hostErrors, [raised, reason]);
    return raised;
  }

  function hostCall(method, parts) {
    return new P((resolve, reject) => {
      const text = "[" + parts + "]";
      if (text.length > ARGUMENT_LIMIT) {
        reject(hostError("CS_VALIDATION_TOO_LARGE", method + ": arguments are larger than " + ARGUMENT_LIMIT + " bytes"));
        return;
      }
      const id = call(method, text);
      if (id === -2) reject(hasEnded());
      else if (id < 0) reject(hostError("CS_RATE_LIMITED", method + ": too many calls are in flight"));
      else pending[id] = { __proto__: null, resolve, reject };
    });
  }

  const hasEnded = () => hostError("CS_RUNTIME_CANCELLED", "the run that made this call has ended");

  function answer(id, good, text, message) {
    const waiting = pending[id];
    if (waiting === undefined) return;
    delete pending[id];
    if (good) waiting.resolve(text === undefined ? undefined : parse(text));
    else waiting.reject(hostError(text, message));
  }

  const json = (value) => {
    const text = stringify(value);
    return text === undefined ? "null" : text;
  };
  const needText = (value, what) => {
    if (typeof value !== "string") throw new TE(what + " must be a string");
    return stringify(value);
  };
  const host = {
    kv: {
      get: async (key) => hostCall("kv.get", needText(key, "key")),
      set: async (key, value, options) => hostCall("kv.set", needText(key, "key") + "," + json(value) + "," + json(options)),
      del: async (key) => hostCall("kv.del", needText(key, "key")),
      incr: async (key, by) => hostCall("kv.incr", needText(key, "key") + "," + json(by === undefined ? 1 : by)),
      list: async (prefix, options) => hostCall("kv.list", needText(prefix, "prefix") + "," + json(options)),
    },
    codeq: {
      publish: async (topic, payload, options) =>
        hostCall("codeq.publish", needText(topic, "topic") + "," + json(payload) + "," + json(options)),
    },
    http: { fetch: async (input, options) => fetching().fetch(hostCall, input, options) },
    cadence: { heartbeat: async (details) => hostCall("cadence.heartbeat", json(details)) },
    secrets: { get: async (name) => hostCall("secrets.get", needText(name, "name")) },
    log: named({ debug: (...v) => line(1, v), info: (...v) => line(2, v), warn: (...v) => line(3, v), error: (...v) => line(4, v) }),
  };
  const environment = create(null);
  host.env = { get: (name) => environment[name] };
  for (const area of keys(host)) {
    for (const name of keys(host[area])) if (area !== "log") hide(host[area][name], "name", name);
    freeze(host[area]);
  }
  defineProperty(G, "cs", { __proto__: null, value: freeze(host), writable: false, enumerable: false, configurable: false });
  hide(G, "fetch", function fetch(input, options) { return host.http.fetch(input, options); });

  // ---- Timers.

  function later(repeat) {
    return (callback, delay, ...values) => {
      if (typeof callback !== "function") throw new TE("callback must be a function");
      const every = delay > 0 ? +delay : 0;
      const id = timer(every);
      if (id < 0) throw new RE("too many timers");
      timers[id] = { __proto__: null, callback, values, every, repeat, id };
      return id;
    };
  }
  // A repeating timer gets a new number from the cell at each tick; its owner knows only the first.
  const aliases = create(null);
  function stop(id) {
    const last = typeof id === "number" && aliases[id] !== undefined ? aliases[id] : id;
    if (timers[last] !== undefined) {
      delete timers[last];
      delete aliases[id];
      clear(last);
    }
  }
  function fire(id) {
    const due = timers[id];
    if (due === undefined) return;
    delete timers[id];
    if (due.repeat) {
      const next = timer(due.every > 1 ? due.every : 1);
      aliases[due.id] = next;
      timers[next] = due;
    }
    apply(due.callback, undefined, due.values);
  }
  hide(G, "setTimeout", later(false));
  hide(G, "setInterval", later(true));
  hide(G, "clearTimeout", stop);
  // A registered callback would run whenever garbage is collected, perhaps in a later run. It need never be called at all.
  hide(G, "FinalizationRegistry", class FinalizationRegistry {
    constructor(callback) { if (typeof callback !== "function") throw new TE("callback must be a function"); }
    register() {}
    unregister() { return false; }
  });
  hide(G, "clearInterval", stop);

  // ---- Web-platform names, made when first touched.

  let made, madeFetch;
  function web() {
    if (made === undefined) made = lazy("web")({ __proto__: null, random, digest });
    return made;
  }
  function fetching() {
    if (madeFetch === undefined) {
      const { TextEncoder, TextDecoder, URL, URLSearchParams } = web();
      madeFetch = lazy("fetch")({ __proto__: null, TextEncoder, TextDecoder, URL, URLSearchParams, setTimeout: later(false) });
    }
    return madeFetch;
  }
  function name(names, make) {
    for (let i = 0; i < names.length; i++) {
      const each = names[i];
      if (getOwnPropertyDescriptor(G, each) !== undefined) continue;
      defineProperty(G, each, {
        __proto__: null, configurable: true, enumerable: false,
        get() { hide(G, each, make()[each]); return G[each]; },
        set(value) { hide(G, each, value); },
      });
    }
  }
  name(["TextEncoder", "TextDecoder", "URL", "URLSearchParams", "structuredClone", "crypto"], web);
  name(["AbortController", "AbortSignal", "Headers", "Request", "Response"], fetching);

  // ---- From the handler's value to a response.

  const badResponse = (field, message) => fail("response", "", field + ": " + message, "");

  function encode(value, field) {
    let text;
    try {
      text = stringify(value);
    } catch (raised) {
      if (outOfMemory(raised)) throw raised;
      let why = "";
      try { why = ": " + S(raised.message); } catch { /* the value is at fault all the same */ }
      badResponse(field, "cannot be made into JSON" + cut(why, 500));
      return undefined;
    }
    if (text === undefined) badResponse(field, "a " + typeof value + " cannot be made into JSON");
    return text;
  }

  function finish(status, body, encoded) {
    if (body.length > RESULT_LIMIT) fail("size", "", "", "");
    else respond(status, body, encoded);
  }

  function deliver(value) {
    if (typeof value !== "object" || value === null || isArray(value) || !("statusCode" in value)) {
      const text = value === undefined ? "null" : encode(value, "result");
      if (text === undefined) return;
      header("content-type", "application/json");
      finish(200, text, false);
      return;
    }
    const { statusCode, headers, cookies, isBase64Encoded: encoded, body } = value;
    if (!isInteger(statusCode) || statusCode < 200 || statusCode > 599) {
      return badResponse("statusCode", "must be an integer from 200 to 599");
    }
    // Counted here too: a hundred thousand headers would take seconds on their way out.
    let typed = false, room = RESULT_LIMIT;
    if (headers !== undefined && headers !== null) {
      if (typeof headers !== "object" || isArray(headers)) return badResponse("headers", "must be an object of strings");
      const names = keys(headers);
      for (let i = 0; i < names.length; i++) {
        const item = headers[names[i]];
        if (item === undefined || item === null) continue;
        if (typeof item !== "string" && typeof item !== "number" && typeof item !== "boolean") {
          return badResponse("headers." + cut(names[i], 100), "must be a string");
        }
        const text = S(item);
        if ((room -= names[i].length + text.length + 32) < 0) return fail("size", "", "", "");
        if (header(names[i], text) === true) typed = true;
      }
    }
    if (cookies !== undefined && cookies !== null) {
      if (!isArray(cookies)) return badResponse("cookies", "must be an array of strings");
      for (let i = 0; i < cookies.length; i++) {
        if (typeof cookies[i] !== "string") return badResponse("cookies", "must be an array of strings");
        if ((room -= cookies[i].length + 32) < 0) return fail("size", "", "", "");
        cookie(cookies[i]);
      }
    }
    if (encoded !== undefined && typeof encoded !== "boolean") return badResponse("isBase64Encoded", "must be a boolean");
    if (body === undefined || body === null) return finish(statusCode, "", false);
    if (typeof body === "string") return finish(statusCode, body, encoded === true);
    if (encoded === true) return badResponse("body", "must be a base64 string when isBase64Encoded is true");
    const text = encode(body, "body");
    if (text === undefined) return undefined;
    if (!typed) header("content-type", "application/json");
    return finish(statusCode, text, false);
  }

  function outOfMemory(raised) {
    return raised === null || (isError(raised) && raised.message === "out of memory");
  }

  function refuse(raised) {
    if (typeof raised !== "object" || raised === null || !isError(raised)) {
      let shown;
      try {
        shown = describe(raised);
      } catch {
        shown = "[cannot be shown]";
      }
      fail(raised === null ? "null" : "thrown", raised === null ? "null" : typeof raised, cut(shown, 32768), "");
      return;
    }
    let name = "Error", message = "", stack = "";
    try { name = S(raised.name); } catch { /* keep the default */ }
    try { message = S(raised.message); } catch { /* keep the default */ }
    try { stack = typeof raised.stack === "string" ? raised.stack : ""; } catch { /* keep the default */ }
    const reason = apply(weakGet, hostErrors, [raised]);
    fail(reason === undefined ? "thrown" : reason, cut(name, 200), cut(message, 32768), cut(stack, 32768));
  }

  // A context may serve several runs, one after the other: what is left of one never speaks for another.
  let current = 0;

  async function drive(run, evaluated, namespace, event, context) {
    try {
      await evaluated;
      const handler = namespace.default;
      if (typeof handler !== "function") throw new TE("the entry module's default export is not a function");
      const value = await handler(event, context);
      if (run === current) deliver(value);
    } catch (raised) {
      if (run === current) refuse(raised);
    }
  }

  function configure(name, value) {
    environment[name] = value;
  }

  function start(evaluated, namespace, event, context) {
    const run = ++current;
    hide(context, "remainingTimeMs", function remainingTimeMs() { return run === current ? floor(remaining()) : 0; });
    drive(run, evaluated, namespace, event, context);
  }

  function end() {
    current++;
    empty(timers);
    empty(aliases);
    empty(environment);
    const open = keys(pending);
    for (let i = 0; i < open.length; i++) pending[open[i]].reject(hasEnded());
    empty(pending);
  }
  function empty(table) {
    const names = keys(table);
    for (let i = 0; i < names.length; i++) delete table[names[i]];
  }

  return { __proto__: null, configure, start, answer, fire, refuse, end };
});
