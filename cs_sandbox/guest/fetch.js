// Fetch and what belongs to it. Made when the first of its names is touched.
//
// The host checks all that is sent to it: what is checked here is for a good message, and to be what code expects.
(function (host) {
  "use strict";
  const { TextEncoder, TextDecoder, URL, URLSearchParams, setTimeout } = host;
  const { apply } = Reflect;
  const encoder = new TextEncoder();

  // ---- Abort.

  const secret = {};
  class AbortSignal {
    #aborted = false; #reason; #listeners = [];
    onabort = null;
    static {
      secret.abort = (signal, reason) => signal.#abort(reason);
    }
    constructor(key) {
      if (key !== secret) throw new TypeError("Illegal constructor");
    }
    static abort(reason) {
      const signal = new AbortSignal(secret);
      signal.#abort(reason);
      return signal;
    }
    static timeout(milliseconds) {
      const signal = new AbortSignal(secret);
      setTimeout(() => signal.#abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")), milliseconds);
      return signal;
    }
    static any(signals) {
      const made = new AbortSignal(secret);
      for (const signal of signals) {
        if (signal.aborted) made.#abort(signal.reason);
        else signal.addEventListener("abort", () => made.#abort(signal.reason));
      }
      return made;
    }
    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    addEventListener(type, listener, options) {
      if (type !== "abort" || this.#listeners.some((known) => known.listener === listener)) return;
      this.#listeners.push({ listener, once: Boolean(options?.once) });
    }
    removeEventListener(type, listener) {
      if (type === "abort") this.#listeners = this.#listeners.filter((known) => known.listener !== listener);
    }
    #abort(reason) {
      if (this.#aborted) return;
      this.#aborted = true;
      this.#reason = reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason;
      const event = { type: "abort", target: this, currentTarget: this };
      const listeners = [{ listener: this.onabort }, ...this.#listeners];
      this.#listeners = [];
      for (const { listener } of listeners) {
        try {
          if (typeof listener === "function") apply(listener, this, [event]);
          else if (typeof listener?.handleEvent === "function") listener.handleEvent(event);
        } catch (raised) {
          console.error(raised);
        }
      }
    }
  }
  class AbortController {
    #signal = new AbortSignal(secret);
    get signal() { return this.#signal; }
    abort(reason) { secret.abort(this.#signal, reason); }
  }

  // ---- Headers.

  const checkName = (name) => {
    const text = String(name).toLowerCase();
    if (!/^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(text)) throw new TypeError(`"${text}" is no header name`);
    return text;
  };
  const checkValue = (value) => {
    const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(text)) throw new TypeError("a header's value holds a character that none may");
    return text;
  };
  class Headers {
    #items = new Map();
    constructor(init) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("headers must be an object or pairs");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...rest] = pair;
        if (value === undefined || rest.length) throw new TypeError("each header must have a name and a value");
        this.append(name, value);
      }
    }
    append(name, value) {
      const key = checkName(name), text = checkValue(value);
      if (this.#items.has(key)) this.#items.get(key).push(text);
      else this.#items.set(key, [text]);
    }
    set(name, value) { this.#items.set(checkName(name), [checkValue(value)]); }
    get(name) { return this.#items.get(checkName(name))?.join(", ") ?? null; }
    getSetCookie() { return [...(this.#items.get("set-cookie") ?? [])]; }
    has(name) { return this.#items.has(checkName(name)); }
    delete(name) { this.#items.delete(checkName(name)); }
    forEach(callback, self) { for (const [name, value] of this) apply(callback, self, [value, name, this]); }
    *entries() {
      for (const name of [...this.#items.keys()].sort()) {
        if (name === "set-cookie") for (const value of this.#items.get(name)) yield [name, value];
        else yield [name, this.#items.get(name).join(", ")];
      }
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }
  }

  // ---- Bodies: text or bytes, whole.

  function read(body) {
    if (body === null || body === undefined) return [null, null];
    if (typeof body === "string") return [body, "text/plain;charset=UTF-8"];
    if (body instanceof URLSearchParams) return [String(body), "application/x-www-form-urlencoded;charset=UTF-8"];
    if (body instanceof ArrayBuffer) return [new Uint8Array(body.slice(0)), null];
    if (ArrayBuffer.isView(body)) return [new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice(), null];
    throw new TypeError("a body must be text, bytes or URLSearchParams; use JSON.stringify for an object");
  }
  class Body {
    #content = null; #used = false;
    static {
      secret.content = (body) => body.#content;
      secret.fill = (body, content) => { body.#content = content; };
      secret.take = (body) => body.#take();
    }
    get bodyUsed() { return this.#used; }
    #take() {
      if (this.#used) throw new TypeError("the body was read before");
      this.#used = this.#content !== null;
      return this.#content ?? "";
    }
    async bytes() {
      const content = this.#take();
      return typeof content === "string" ? encoder.encode(content) : content.slice();
    }
    async arrayBuffer() { return (await this.bytes()).buffer; }
    async text() {
      const content = this.#take();
      const text = typeof content === "string" ? content : new TextDecoder().decode(content);
      return text[0] === "\ufeff" ? text.slice(1) : text;
    }
    async json() { return JSON.parse(await this.text()); }
  }

  // ---- Requests and responses.

  // Spaces and the like become what the host takes; a name beyond ASCII is the host's to translate.
  const toHref = (input) => {
    const text = String(input);
    try {
      return new URL(text).href;
    } catch {
      return text;
    }
  };
  class Request extends Body {
    #signal;
    constructor(input, init = {}) {
      super();
      const from = input instanceof Request ? input : undefined;
      const { method = from?.method ?? "GET", redirect = from?.redirect ?? "follow", signal = from?.signal } = init ?? {};
      this.url = from ? from.url : toHref(input);
      this.method = /^(get|head|post|put|delete|options|patch)$/i.test(method) ? String(method).toUpperCase() : String(method);
      this.redirect = String(redirect);
      this.headers = new Headers(init?.headers ?? from?.headers);
      this.#signal = signal ?? new AbortSignal(secret);
      const body = init?.body ?? (from && secret.content(from) !== null ? secret.take(from) : null);
      const [content, type] = read(body);
      if (content !== null && (this.method === "GET" || this.method === "HEAD")) {
        throw new TypeError(`a ${this.method} request has no body`);
      }
      secret.fill(this, content);
      if (type !== null && !this.headers.has("content-type")) this.headers.set("content-type", type);
    }
    get signal() { return this.#signal; }
    clone() {
      if (this.bodyUsed) throw new TypeError("the body was read before");
      return new Request(this.url, { ...this, signal: this.#signal, body: secret.content(this) });
    }
  }

  class Response extends Body {
    #from = { url: "", redirected: false, type: "default" };
    static {
      secret.from = (response, from) => { response.#from = from; return response; };
    }
    constructor(body = null, { status = 200, statusText = "", headers } = {}) {
      super();
      if (!(status >= 200 && status <= 599)) throw new RangeError("status must be from 200 to 599");
      const [content, type] = read(body);
      secret.fill(this, content);
      this.status = status;
      this.statusText = String(statusText);
      this.headers = new Headers(headers);
      if (type !== null && !this.headers.has("content-type")) this.headers.set("content-type", type);
    }
    static json(data, init = {}) {
      const headers = new Headers(init.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(JSON.stringify(data), { ...init, headers });
    }
    static error() {
      const made = secret.from(new Response(), { url: "", redirected: false, type: "error" });
      made.status = 0;
      return made;
    }
    static redirect(url, status = 302) {
      if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError("the status is none of a redirect");
      return new Response(null, { status, headers: { location: toHref(url) } });
    }
    get ok() { return this.status >= 200 && this.status < 300; }
    get url() { return this.#from.url; }
    get redirected() { return this.#from.redirected; }
    get type() { return this.#from.type; }
    clone() {
      if (this.bodyUsed) throw new TypeError("the body was read before");
      return secret.from(new Response(secret.content(this), this), this.#from);
    }
  }

  // ---- Fetch.

  function settleUnlessAborted(answered, signal, abort) {
    return new Promise((resolve, reject) => {
      const stop = () => { reject(signal.reason); abort(); };
      signal.addEventListener("abort", stop);
      answered.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    });
  }

  let fetches = 0;
  async function fetch(hostCall, input, init) {
    const request = new Request(input, init);
    request.signal.throwIfAborted();
    const id = ++fetches;
    const { url, method, redirect, headers } = request;
    const asked = { id, method, redirect, headers: [...headers] };
    const content = secret.content(request) === null ? null : secret.take(request);
    if (typeof content === "string") asked.text = content;
    else if (content !== null) asked.body = content.toBase64();
    const answered = hostCall("http.fetch", JSON.stringify(url) + "," + JSON.stringify(asked));
    const answer = await settleUnlessAborted(answered, request.signal, () => { hostCall("http.abort", String(id)).catch(() => {}); });
    const body = answer.text ?? Uint8Array.fromBase64(answer.body);
    const { status, statusText, redirected } = answer;
    const made = new Response(null, { status, statusText, headers: answer.headers });
    secret.fill(made, body === "" ? null : body);
    return secret.from(made, { url: answer.url, redirected, type: "basic" });
  }

  return { __proto__: null, AbortController, AbortSignal, Headers, Request, Response, fetch };
});
