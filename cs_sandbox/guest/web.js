// Names of the web platform that code takes for granted. Made when the first of them is touched.
(function (host) {
  "use strict";
  const { random, digest } = host;
  const { apply } = Reflect;

  // ---- Encoding.

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(input = "") {
      const text = String(input).toWellFormed();
      const bytes = [];
      for (let i = 0; i < text.length; i++) {
        const code = text.codePointAt(i);
        if (code < 0x80) bytes.push(code);
        else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
        else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
        else {
          bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
          i++;
        }
      }
      return new Uint8Array(bytes);
    }
    encodeInto(text, target) {
      const bytes = this.encode(text);
      let end = Math.min(bytes.length, target.length);
      while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
      target.set(bytes.subarray(0, end));
      return { read: decodeUtf8(bytes.subarray(0, end), false).length, written: end };
    }
  }

  const asBytes = (input) => {
    if (input === undefined) return new Uint8Array(0);
    if (input instanceof Uint8Array) return input;
    if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    if (input instanceof ArrayBuffer) return new Uint8Array(input);
    throw new TypeError("expected an ArrayBuffer or a view of one");
  };

  // The ranges of the second byte reject overlong forms, surrogates, and what is past U+10FFFF.
  function sequence(first) {
    if (first >= 0xc2 && first <= 0xdf) return [1, 0x1f, 0x80, 0xbf];
    if (first >= 0xe0 && first <= 0xef) return [2, 0x0f, first === 0xe0 ? 0xa0 : 0x80, first === 0xed ? 0x9f : 0xbf];
    if (first >= 0xf0 && first <= 0xf4) return [3, 0x07, first === 0xf0 ? 0x90 : 0x80, first === 0xf4 ? 0x8f : 0xbf];
    return undefined;
  }

  function decodeUtf8(bytes, fatal) {
    const parts = [];
    let units = [];
    for (let i = 0; i < bytes.length;) {
      const first = bytes[i++];
      let code = first;
      if (first >= 0x80) {
        const shape = sequence(first);
        let left = shape === undefined ? -1 : shape[0];
        if (left > 0) {
          code = first & shape[1];
          let low = shape[2], high = shape[3];
          while (left > 0 && i < bytes.length && bytes[i] >= low && bytes[i] <= high) {
            code = (code << 6) | (bytes[i++] & 63);
            left--;
            low = 0x80;
            high = 0xbf;
          }
        }
        if (left !== 0) {
          if (fatal) throw new TypeError("the data is not valid UTF-8");
          code = 0xfffd;
        }
      }
      if (code > 0xffff) units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
      else units.push(code);
      if (units.length > 4096) {
        parts.push(apply(String.fromCharCode, undefined, units));
        units = [];
      }
    }
    return parts.join("") + apply(String.fromCharCode, undefined, units);
  }

  class TextDecoder {
    #fatal; #ignoreBOM;
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!/^\s*(utf-?8|unicode-1-1-utf-8)\s*$/i.test(label)) throw new RangeError(`the encoding "${label}" is not supported`);
      this.#fatal = fatal;
      this.#ignoreBOM = ignoreBOM;
    }
    get encoding() { return "utf-8"; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#ignoreBOM; }
    decode(input) {
      const text = decodeUtf8(asBytes(input), this.#fatal);
      return !this.#ignoreBOM && text[0] === "\ufeff" ? text.slice(1) : text;
    }
  }

  // ---- URLs.

  const encoder = new TextEncoder();
  const percent = (byte) => "%" + (byte < 16 ? "0" : "") + byte.toString(16).toUpperCase();
  const escapeText = (text, safe) => {
    let out = "";
    for (const char of text) out += safe.test(char) ? char : Array.from(encoder.encode(char), percent).join("");
    return out;
  };
  const unescapeForm = (text) => {
    if (!/[%+]/.test(text)) return text;
    const bytes = encoder.encode(text.replace(/\+/g, " "));
    const out = [];
    for (let i = 0; i < bytes.length; i++) {
      const hex = bytes[i] === 37 ? String.fromCharCode(bytes[i + 1] ?? 0, bytes[i + 2] ?? 0) : "";
      if (/^[0-9a-f]{2}$/i.test(hex)) {
        out.push(parseInt(hex, 16));
        i += 2;
      } else out.push(bytes[i]);
    }
    return decodeUtf8(new Uint8Array(out), false);
  };
  const FORM_SAFE = /[A-Za-z0-9*\-._ ]/;
  const escapeForm = (text) => escapeText(text.toWellFormed(), FORM_SAFE).replace(/ /g, "+");

  class URLSearchParams {
    #pairs = [];
    #changed;
    constructor(init = "", changed) {
      this.#changed = changed;
      if (typeof init === "object" && init !== null) {
        const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
        for (const pair of pairs) {
          const [name, value, ...rest] = pair;
          if (value === undefined || rest.length) throw new TypeError("each pair must have a name and a value");
          this.#pairs.push([String(name), String(value)]);
        }
      } else this.#pairs = parseForm(String(init).replace(/^\?/, ""));
    }
    #touch() { if (this.#changed) this.#changed(this.toString()); }
    get size() { return this.#pairs.length; }
    append(name, value) { this.#pairs.push([String(name), String(value)]); this.#touch(); }
    delete(name, value) {
      this.#pairs = this.#pairs.filter(([n, v]) => n !== String(name) || (value !== undefined && v !== String(value)));
      this.#touch();
    }
    get(name) { return this.#pairs.find(([n]) => n === String(name))?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter(([n]) => n === String(name)).map(([, v]) => v); }
    has(name, value) { return this.#pairs.some(([n, v]) => n === String(name) && (value === undefined || v === String(value))); }
    set(name, value) {
      const at = this.#pairs.findIndex(([n]) => n === String(name));
      if (at < 0) this.#pairs.push([String(name), String(value)]);
      else {
        this.#pairs[at][1] = String(value);
        this.#pairs = this.#pairs.filter(([n], i) => i <= at || n !== String(name));
      }
      this.#touch();
    }
    sort() { this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)); this.#touch(); }
    forEach(callback, self) { for (const [name, value] of this.#pairs) apply(callback, self, [value, name, this]); }
    *entries() { for (const [name, value] of this.#pairs) yield [name, value]; }
    *keys() { for (const [name] of this.#pairs) yield name; }
    *values() { for (const [, value] of this.#pairs) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#pairs.map(([n, v]) => escapeForm(n) + "=" + escapeForm(v)).join("&"); }
  }
  const parseForm = (text) => text.split("&").filter(Boolean).map((part) => {
    const at = part.indexOf("=");
    return at < 0 ? [unescapeForm(part), ""] : [unescapeForm(part.slice(0, at)), unescapeForm(part.slice(at + 1))];
  });

  const PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21" };
  const PATH_SAFE = /[A-Za-z0-9\-._~!$&'()*+,;=:@/%[\]|^]/;
  const QUERY_SAFE = /[A-Za-z0-9\-._~!$&()*+,;=:@/?%[\]|^`{}\\]/;
  const HASH_SAFE = /[A-Za-z0-9\-._~!$&'()*+,;=:@/?%[\]|^{}\\#]/;

  function resolveDots(path) {
    const out = [];
    const parts = path.split("/");
    parts.forEach((part, i) => {
      const plain = part.replace(/%2e/gi, ".");
      const last = i === parts.length - 1;
      if (plain === "..") {
        if (out.length > 1) out.pop();
        if (last) out.push("");
      } else if (plain === ".") {
        if (last) out.push("");
      } else out.push(part);
    });
    return out.join("/");
  }

  class URL {
    #parts;
    #params;
    constructor(input, base) {
      const text = String(input).replace(/^[\x00-\x20]+|[\x00-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
      const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text);
      if (scheme) this.#absolute(text, scheme[1].toLowerCase() + ":", text.slice(scheme[0].length));
      else if (base !== undefined) this.#relative(text, new URL(base));
      else throw new TypeError(`Invalid URL: ${text}`);
    }
    static canParse(input, base) { try { return Boolean(new URL(input, base)); } catch { return false; } }
    static parse(input, base) { try { return new URL(input, base); } catch { return null; } }
    #absolute(text, protocol, rest) {
      const special = protocol in PORTS;
      const [, body, query, hash] = /^([^?#]*)(\?[^#]*)?(#[\s\S]*)?$/.exec(rest);
      const flat = special ? body.replace(/\\/g, "/") : body;
      const authority = special ? /^\/*([^/]*)([\s\S]*)$/.exec(flat) : /^\/\/([^/]*)([\s\S]*)$/.exec(flat);
      const parts = { protocol, username: "", password: "", hostname: "", port: "", pathname: flat, opaque: !flat.startsWith("/") };
      if (authority) {
        const [, user, pass, host, port] = /^(?:([^@]*?)(?::([^@]*))?@)?(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority[1]) ?? [];
        if (host === undefined || (special && host === "")) throw new TypeError(`Invalid URL: ${text}`);
        parts.username = user ?? "";
        parts.password = pass ?? "";
        parts.hostname = special ? checkHost(host, text) : host;
        parts.port = port ? checkPort(port, protocol, text) : "";
        parts.pathname = authority[2] || (special ? "/" : "");
        parts.opaque = false;
      }
      this.#set(parts, query, hash);
    }
    #relative(text, base) {
      const [, path, query, hash] = /^([^?#]*)(\?[^#]*)?(#[\s\S]*)?$/.exec(text);
      const from = base.#parts;
      if (from.opaque && text[0] !== "#") throw new TypeError(`Invalid URL: ${text}`);
      const flat = from.protocol in PORTS ? path.replace(/\\/g, "/") : path;
      if (flat.startsWith("//")) return this.#absolute(text, from.protocol, text);
      const pathname = flat === "" ? from.pathname
        : flat[0] === "/" ? flat : from.pathname.replace(/[^/]*$/, "") + flat;
      return this.#set({ ...from, pathname }, flat === "" && query === undefined ? from.search : query, hash);
    }
    #set(parts, query = "", hash = "") {
      if (!parts.opaque) parts.pathname = escapeText(resolveDots(parts.pathname), PATH_SAFE);
      parts.search = query.length > 1 ? "?" + escapeText(query.slice(1), QUERY_SAFE) : "";
      parts.hash = hash.length > 1 ? "#" + escapeText(hash.slice(1), HASH_SAFE) : "";
      this.#parts = parts;
      this.#params = undefined;
    }
    get searchParams() {
      this.#params ??= new URLSearchParams(this.#parts.search, (text) => { this.#parts.search = text && "?" + text; });
      return this.#params;
    }
    get protocol() { return this.#parts.protocol; }
    set protocol(value) { this.#parts.protocol = String(value).replace(/:.*$/, "").toLowerCase() + ":"; }
    get username() { return this.#parts.username; }
    set username(value) { this.#parts.username = encodeURIComponent(value); }
    get password() { return this.#parts.password; }
    set password(value) { this.#parts.password = encodeURIComponent(value); }
    get hostname() { return this.#parts.hostname; }
    set hostname(value) { this.#parts.hostname = checkHost(String(value), String(value)); }
    get port() { return this.#parts.port; }
    set port(value) { this.#parts.port = value === "" ? "" : checkPort(String(value), this.protocol, String(value)); }
    get host() { return this.hostname + (this.port && ":" + this.port); }
    get pathname() { return this.#parts.pathname; }
    set pathname(value) { const path = String(value); this.#set({ ...this.#parts, pathname: path[0] === "/" ? path : "/" + path }, this.search, this.hash); }
    get search() { return this.#parts.search; }
    set search(value) { this.#set(this.#parts, value && "?" + String(value).replace(/^\?/, ""), this.hash); }
    get hash() { return this.#parts.hash; }
    set hash(value) { this.#set(this.#parts, this.search, value && "#" + String(value).replace(/^#/, "")); }
    get origin() { return this.protocol in PORTS ? this.protocol + "//" + this.host : "null"; }
    get href() {
      const { protocol, username, password, opaque, pathname, search, hash } = this.#parts;
      const user = username || password ? username + (password && ":" + password) + "@" : "";
      const authority = protocol in PORTS || this.hostname ? "//" + user + this.host : "";
      return protocol + (opaque ? "" : authority) + pathname + search + hash;
    }
    toString() { return this.href; }
    toJSON() { return this.href; }
  }
  function checkHost(host, text) {
    const plain = host.toLowerCase();
    if (/^\[[0-9a-f:.]+\]$/.test(plain)) return plain;
    // Names beyond ASCII would need the tables of IDNA, which the engine does not have.
    if (!/^[a-z0-9\-._~!$&'()*+,;=]+$/.test(plain)) throw new TypeError(`Invalid URL: ${text}`);
    return plain;
  }
  function checkPort(port, protocol, text) {
    const number = Number(port);
    if (!(number >= 0 && number <= 65535)) throw new TypeError(`Invalid URL: ${text}`);
    return String(number) === PORTS[protocol] ? "" : String(number);
  }

  // ---- Cloning.

  function structuredClone(value, options) {
    if (options?.transfer?.length) throw new DOMException("transfer is not supported", "DataCloneError");
    return clone(value, new Map());
  }
  function clone(value, seen) {
    if (typeof value === "function" || typeof value === "symbol") {
      throw new DOMException(`a ${typeof value} cannot be cloned`, "DataCloneError");
    }
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (copy) => { seen.set(value, copy); return copy; };
    if (Array.isArray(value)) {
      const copy = keep(new Array(value.length));
      for (const key of Object.keys(value)) copy[key] = clone(value[key], seen);
      return copy;
    }
    if (value instanceof Date) return keep(new Date(value.getTime()));
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
    if (value instanceof ArrayBuffer) return keep(value.slice(0));
    if (ArrayBuffer.isView(value)) {
      const buffer = clone(value.buffer, seen);
      const size = value instanceof DataView ? value.byteLength : value.length;
      return keep(new value.constructor(buffer, value.byteOffset, size));
    }
    if (value instanceof Map) {
      const copy = keep(new Map());
      for (const [key, item] of value) copy.set(clone(key, seen), clone(item, seen));
      return copy;
    }
    if (value instanceof Set) {
      const copy = keep(new Set());
      for (const item of value) copy.add(clone(item, seen));
      return copy;
    }
    if (value instanceof Error) {
      const known = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
      const copy = keep(new (known[value.name] ?? Error)(value.message));
      if ("cause" in value) copy.cause = clone(value.cause, seen);
      return copy;
    }
    if (value instanceof Boolean || value instanceof Number || value instanceof String) return keep(Object(value.valueOf()));
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef) {
      throw new DOMException("the value cannot be cloned", "DataCloneError");
    }
    const copy = keep({});
    for (const key of Object.keys(value)) copy[key] = clone(value[key], seen);
    return copy;
  }

  // ---- Randomness.

  const hexOf = (bytes) => Array.from(bytes, (byte) => (byte < 16 ? "0" : "") + byte.toString(16)).join("");
  const fill = (bytes, hex) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  };
  const DIGESTS = { "SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 };
  const crypto = {
    subtle: {
      async digest(algorithm, data) {
        const name = String(typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
        if (!(name in DIGESTS)) throw new DOMException(`the algorithm "${name}" is not supported`, "NotSupportedError");
        const out = new Uint8Array(DIGESTS[name]);
        fill(out, digest(name, hexOf(asBytes(data))));
        return out.buffer;
      },
    },
    getRandomValues(target) {
      if (!ArrayBuffer.isView(target) || target instanceof DataView || target instanceof Float32Array
        || target instanceof Float64Array) throw new TypeError("expected a typed array of integers");
      if (target.byteLength > 65536) throw new DOMException("more than 65536 bytes were asked for", "QuotaExceededError");
      const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
      fill(bytes, random(bytes.length));
      return target;
    },
    randomUUID() {
      const hex = random(16);
      const variant = "89ab"[parseInt(hex[16], 16) & 3];
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
    },
  };

  return { __proto__: null, TextEncoder, TextDecoder, URL, URLSearchParams, structuredClone, crypto };
});
