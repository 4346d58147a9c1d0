// The objects scripts see. `native` holds the few functions written in Rust (bindings.rs); everything here is
// checked here, so that a wrong option is refused by name and with the caller's line, before anything is sent.
(function (native) {
  "use strict";

  const show = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

  /** Refuses unknown fields by name. */
  function known(what, options, fields) {
    if (options === null || typeof options !== "object" || Array.isArray(options)) throw new TypeError(`${what} needs an object with ${fields.join(", ")}`);
    for (const field of Object.keys(options))
      if (!fields.includes(field)) throw new TypeError(`${what} has no option \`${field}\` (it knows ${fields.join(", ")})`);
    return options;
  }

  function text(what, value) {
    if (typeof value !== "string" || value === "") throw new TypeError(`${what} must be a text, not ${show(value)}`);
    return value;
  }

  function integer(what, value, min, max) {
    if (!Number.isInteger(value) || value < min || value > max) throw new TypeError(`${what} must be a whole number from ${min} to ${max}, not ${show(value)}`);
    return value;
  }

  function oneOf(what, value, choices) {
    if (!choices.includes(value)) throw new TypeError(`${what} must be one of ${choices.map(show).join(", ")}, not ${show(value)}`);
    return value;
  }

  const units = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 };
  const sizes = { "": 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 };

  /** Milliseconds. */
  function duration(what, value) {
    const parts = typeof value === "string" ? /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value) : null;
    const ms = parts ? Number(parts[1]) * units[parts[2]] : value;
    if (typeof ms !== "number" || !(ms >= 0) || ms > 3650 * units.d) throw new TypeError(`${what} must be a duration like "30s" or a number of milliseconds, not ${show(value)}`);
    return Math.round(ms);
  }

  /** Bytes. */
  function size(what, value) {
    const parts = typeof value === "string" ? /^(\d+(?:\.\d+)?)(|KiB|MiB|GiB|TiB)$/.exec(value) : null;
    const bytes = parts ? Number(parts[1]) * sizes[parts[2]] : value;
    if (typeof bytes !== "number" || !(bytes > 0) || bytes > Number.MAX_SAFE_INTEGER) throw new TypeError(`${what} must be a size like "8GiB" or a number of bytes, not ${show(value)}`);
    return Math.round(bytes);
  }

  /** Asks the host. The error is made before the wait, while the caller's line is still on the stack. */
  async function host(op, args) {
    const failure = new Error();
    try {
      return await native.host(op, JSON.stringify(args));
    } catch (reason) {
      failure.message = String(reason);
      throw failure;
    }
  }

  // ---- where the script runs: "client" (client.js), "recording" (cluster.js while it loads, in init() and configure())
  // or "live" (cluster.js later, and `disco eval`)

  const later = "in leader(), or in what every() and on() call";

  function only_in_client(verb) {
    if (native.mode() !== "client") throw new Error(`${verb} works only in client.js`);
  }

  function not_in_client(verb) {
    if (native.mode() === "client") throw new Error(`${verb} belongs in cluster.js, which \`disco apply\` sends to the nodes`);
  }

  function changes(verb) {
    if (native.mode() === "recording") throw new Error(`${verb} changes the cluster at once, so it does not work in configure() or before it: call it ${later}`);
  }

  function body_of(verb, body) {
    if (typeof body !== "function") throw new TypeError(`${verb} needs a function, not ${show(body)}`);
    return body;
  }

  /** What configure() leaves behind. The host numbers the functions as they come here. */
  const recorded = { services: new Map(), keys: new Map(), registrations: [], bodies: [] };

  function register(verb, registration, body) {
    if (native.mode() === "client") throw new Error(`${verb} works only in cluster.js`);
    if (native.mode() === "live") throw new Error(`${verb} works while cluster.js loads, in init() and in configure(), not later`);
    if (recorded.bodies.length === native.registrations_max) throw new RangeError(`${verb}: a script registers at most ${native.registrations_max} functions`);
    recorded.registrations.push(registration);
    return recorded.bodies.push(body) - 1;
  }

  const absent_yet = (what) => new Error(`${what} is not available yet in this version`);

  /** JSON of a service's spec. Functions would vanish without a word. */
  function spec_text(spec) {
    if (spec === null || typeof spec !== "object" || Array.isArray(spec)) throw new TypeError(`a service's spec must be an object like { command: ["…"] }, not ${show(spec)}`);
    return JSON.stringify(spec, (field, value) => {
      if (typeof value === "function" && field !== "script") throw new TypeError(`\`${field}\` of a service cannot be a function`);
      if (typeof value === "bigint" || typeof value === "symbol") throw new TypeError(`\`${field}\` of a service cannot be a ${typeof value}`);
      return typeof value === "function" ? {} : value;
    });
  }

  // ---- providers

  const inner = Symbol("made by init()");

  class LocalProvider {
    #name;
    constructor(name, made) {
      if (made !== inner) throw new TypeError('use `await LocalProvider.init({ name: "…" })` or `new Provider.Local({ name: "…" })`');
      this.#name = name;
    }
    static async init(options) {
      return new Provider.Local(options);
    }
    get name() {
      return this.#name;
    }
    get kind() {
      return "local";
    }
  }

  let awsOf;

  class AwsProvider {
    #options;
    constructor(options, made) {
      if (made !== inner) throw new TypeError('use `await AwsProvider.init({ name: "…", region: "…" })` or `new Provider.AWS({ … })`');
      this.#options = options;
    }
    static {
      awsOf = (provider) => provider.#options;
    }
    static async init(options) {
      return new Provider.AWS(options);
    }
    get name() {
      return this.#options.name;
    }
    get kind() {
      return "aws";
    }
  }

  const awsFields = ["name", "region", "profile", "endpoint", "role", "allow"];

  function aws_of(given) {
    const o = known("the aws provider", given, awsFields);
    const options = { name: text("the aws provider's `name`", o.name), region: text("the aws provider's `region`", o.region) };
    if (!/^[a-z0-9-]{1,32}$/.test(options.region)) throw new TypeError(`the aws provider's \`region\` must be one like "eu-central-1", not ${show(o.region)}`);
    for (const field of ["profile", "endpoint", "role"]) if (o[field] !== undefined) options[field] = text(`the aws provider's \`${field}\``, o[field]);
    if (o.allow !== undefined) {
      if (!Array.isArray(o.allow) || o.allow.length === 0 || o.allow.length > 16) throw new TypeError(`the aws provider's \`allow\` must be a list of 1 to 16 ranges like "203.0.113.7/32", not ${show(o.allow)}`);
      options.allow = o.allow.map((range) => {
        if (typeof range !== "string" || !/^[0-9a-fA-F.:]+\/\d{1,3}$/.test(range)) throw new TypeError(`the aws provider's \`allow\` needs ranges like "203.0.113.7/32", not ${show(range)}`);
        return range;
      });
    }
    return options;
  }

  let hostsOf;

  class HostsProvider {
    #name;
    #hosts;
    constructor(name, hosts, made) {
      if (made !== inner) throw new TypeError('use `await HostsProvider.init({ name: "…", hosts: [{ address: "…" }] })` or `new Provider.Hosts({ … })`');
      this.#name = name;
      this.#hosts = hosts;
    }
    static {
      hostsOf = (provider) => provider.#hosts;
    }
    static async init(options) {
      return new Provider.Hosts(options);
    }
    get name() {
      return this.#name;
    }
    get kind() {
      return "hosts";
    }
  }

  function hosts_of(given) {
    if (!Array.isArray(given) || given.length === 0) throw new TypeError(`the hosts provider's \`hosts\` must be a list like [{ address: "10.0.0.5" }], not ${show(given)}`);
    const hosts = given.map((entry) => {
      const o = known("a host", entry, ["address", "user", "port", "host_key"]);
      const host = { address: text("a host's `address`", o.address) };
      if (o.user !== undefined) host.user = text("a host's `user`", o.user);
      if (o.port !== undefined) host.port = integer("a host's `port`", o.port, 1, 65535);
      if (o.host_key !== undefined) host.host_key = text("a host's `host_key`", o.host_key);
      return host;
    });
    if (hosts.length > native.nodes_max) throw new RangeError(`a cluster has at most ${native.nodes_max} hosts`);
    const twice = hosts.find((host, at) => hosts.findIndex((other) => other.address === host.address) !== at);
    if (twice !== undefined) throw new Error(`host \`${twice.address}\` is listed twice`);
    return hosts;
  }

  const Provider = Object.freeze({
    AWS: class AWS extends AwsProvider {
      constructor(options) {
        super(aws_of(options), inner);
      }
    },
    Hosts: class Hosts extends HostsProvider {
      constructor(options) {
        known("the hosts provider", options, ["name", "hosts"]);
        super(text("the hosts provider's `name`", options.name), hosts_of(options.hosts), inner);
      }
    },
    Local: class Local extends LocalProvider {
      constructor(options) {
        known("the local provider", options, ["name"]);
        super(text("the local provider's `name`", options.name), inner);
      }
    },
  });

  const FileStorage = Object.freeze({
    S3: class S3 {
      constructor() {
        throw new Error("S3 storage is not available yet in this version");
      }
    },
  });

  // ---- cluster

  const events = [
    "leader", "follower",
    "node.joined", "node.lost", "node.back", "node.left", "node.leaving", "node.draining", "node.preferred",
    "instance.started", "instance.stopped", "instance.terminated", "instance.failed",
    "service.updated", "service.degraded", "service.healthy",
    "task.started", "task.exited",
    "cluster.scaled", "cluster.below_min", "cluster.recovered", "cluster.at_min", "cluster.destroyed",
    "script.reloaded", "script.failed",
    "ca.introduced", "ca.certifying", "ca.showing", "ca.replaced",
  ];
  const clusterFields = ["name", "provider", "managers", "min_nodes", "below_min", "max_nodes", "max_launches_per_hour", "replace_after"];
  const named = (object) => Object.defineProperty(object, "toString", { value: () => object.name ?? object.id, configurable: true });
  let optionsOf;

  function clusterOptions(given) {
    const o = known("`new Cluster`", given, clusterFields);
    const has = (field) => o[field] !== undefined;
    const options = { name: text("`name` of the cluster", o.name) };
    if (!(o.provider instanceof LocalProvider || o.provider instanceof HostsProvider || o.provider instanceof AwsProvider)) throw new TypeError(`\`provider\` of the cluster must be a provider, like \`await LocalProvider.init({ name: "…" })\`, not ${show(o.provider)}`);
    options.provider = { kind: o.provider.kind, name: o.provider.name };
    if (o.provider instanceof AwsProvider) options.provider = { kind: "aws", ...awsOf(o.provider) };
    if (o.provider instanceof HostsProvider) options.provider.hosts = hostsOf(o.provider);
    if (has("managers")) options.managers = oneOf("`managers`", o.managers, [1, 3, 5, 7]);
    if (has("min_nodes")) options.min_nodes = integer("`min_nodes`", o.min_nodes, 1, native.nodes_max);
    if (has("below_min")) options.below_min = oneOf("`below_min`", o.below_min, ["stop", "pause", "keep"]);
    if (has("max_nodes")) options.max_nodes = integer("`max_nodes`", o.max_nodes, 1, native.nodes_max);
    if (has("max_launches_per_hour")) options.max_launches_per_hour = integer("`max_launches_per_hour`", o.max_launches_per_hour, 0, 1000);
    if (has("replace_after")) options.replace_after = o.replace_after === null ? null : duration("`replace_after`", o.replace_after);
    if (options.replace_after === 0) throw new RangeError("`replace_after` must be more than 0; null means never");
    return Object.freeze(options);
  }

  class Cluster {
    #options;
    constructor(options, made) {
      this.#options = made === inner ? options : clusterOptions(options);
    }
    static {
      optionsOf = (value) => (typeof value === "object" && value !== null && #options in value ? value.#options : undefined);
    }
    #host(op, args) {
      return host(op, { cluster: this.#options, ...args });
    }
    /** A step of bootstrap(). */
    #step(verb, op, args) {
      only_in_client(`cluster.${verb}()`);
      return this.#host(op, args);
    }
    get name() {
      return this.#options.name;
    }
    healthy() {
      return this.#host("cluster.healthy");
    }
    async set_key_pair(pair) {
      only_in_client("cluster.set_key_pair()");
      known("set_key_pair()", pair, ["private", "public"]);
      return this.#host("cluster.set_key_pair", { private: text("`private`", pair.private), public: text("`public`", pair.public) });
    }
    async start_instance(options = {}) {
      only_in_client("cluster.start_instance()");
      const o = known("start_instance()", options, ["image", "instance_type", "spot", "disk"]);
      const args = {};
      if (o.image !== undefined) args.image = text("`image`", o.image);
      if (o.instance_type !== undefined) args.instance_type = text("`instance_type`", o.instance_type);
      if (o.spot !== undefined) args.spot = oneOf("`spot`", o.spot, [true, false]);
      if (o.disk !== undefined) args.disk = size("`disk`", o.disk);
      return this.#host("cluster.start_instance", args);
    }
    attach_ip() {
      return this.#step("attach_ip", "cluster.attach_ip");
    }
    primary_ip() {
      return this.#step("primary_ip", "cluster.primary_ip");
    }
    ssh_install() {
      return this.#step("ssh_install", "cluster.ssh_install");
    }
    join() {
      return this.#step("join", "cluster.join");
    }
    async scale(nodes) {
      changes("cluster.scale()");
      return this.#host("cluster.scale", { nodes: integer("scale()'s number of nodes", nodes, 1, native.nodes_max) });
    }
    destroy() {
      return this.#step("destroy", "cluster.destroy");
    }
    async nodes() {
      return (await this.#host("cluster.nodes")).map(named);
    }
    services() {
      return this.#host("cluster.services");
    }
    async leader() {
      const leader = await this.#host("cluster.leader");
      return leader === null ? null : named(leader);
    }
    key(name) {
      native.check_key(text("the key's name", name));
      return new Key(this.#options, name, inner);
    }
    service(name, spec) {
      not_in_client("cluster.service()");
      text("the service's name", name);
      if (spec === undefined) return new Service(this.#options, name, undefined, inner);
      const json = spec_text(spec);
      const meaning = native.check_service(name, json);
      if (native.mode() === "live") return new Service(this.#options, name, host("service.set", { cluster: this.#options, name, spec: JSON.parse(json) }), inner);
      const before = recorded.services.get(name);
      if (before !== undefined && before.meaning !== meaning) throw new Error(`service \`${name}\` is declared twice, and not the same way`);
      recorded.services.set(name, { meaning, spec: JSON.parse(json) });
      return new Service(this.#options, name, undefined, inner);
    }
    on(event, body) {
      oneOf("the event of cluster.on()", event, events);
      register("cluster.on()", { kind: "on", event }, body_of("cluster.on()", body));
    }
    link() {
      throw absent_yet("cluster.link()");
    }
    secret() {
      throw absent_yet("cluster.secret()");
    }
  }

  class Service {
    #args;
    #set;
    constructor(cluster, name, set, made) {
      if (made !== inner) throw new TypeError("use `cluster.service(name, { … })`");
      this.#args = { cluster, name };
      this.#set = set;
    }
    get name() {
      return this.#args.name;
    }
    async #change(verb, args) {
      changes(`the service's ${verb}()`);
      await this.#set;
      return host(`service.${verb}`, { ...this.#args, ...args });
    }
    async scale(replicas) {
      return this.#change("scale", { replicas: integer("scale()'s number of copies", replicas, 0, native.tasks_max) });
    }
    restart() {
      return this.#change("restart");
    }
    rollback() {
      return this.#change("rollback");
    }
    remove() {
      return this.#change("remove");
    }
    async status() {
      await this.#set;
      return host("service.status", this.#args);
    }
  }

  class Key {
    #args;
    constructor(cluster, key, made) {
      if (made !== inner) throw new TypeError("use `cluster.key(name)`");
      this.#args = { cluster, key };
    }
    get name() {
      return this.#args.key;
    }
    async get() {
      const declared = native.mode() === "recording" ? recorded.keys.get(this.#args.key) : undefined;
      return declared ?? host("key.get", this.#args);
    }
    async set(value) {
      if (typeof value !== "string") throw new TypeError(`a key's value must be a text, not ${show(value)}`);
      native.check_key(this.#args.key, value);
      if (native.mode() === "recording") recorded.keys.set(this.#args.key, value);
      else return host("key.set", { ...this.#args, value });
    }
    async delete() {
      changes("the key's delete()");
      return host("key.delete", this.#args);
    }
    on(event, body) {
      oneOf("the event of a key's on()", event, ["change"]);
      register("the key's on()", { kind: "key", key: this.#args.key }, body_of("the key's on()", body));
    }
  }

  // ---- functions

  function ask(question) {
    return host("ask", { question: String(question) }).then((answer) => answer === true);
  }

  function setTimeout(body, ms = 0, ...args) {
    if (typeof body !== "function") throw new TypeError("setTimeout needs a function");
    return native.set_timer(() => { body(...args); }, Number(ms));
  }

  function clearTimeout(id) {
    if (typeof id === "number") native.clear_timer(id);
  }

  function delay(ms) {
    const start = native.now();
    return new Promise((resolve) => native.set_timer(() => resolve((native.now() - start) / 1000), Number(ms)));
  }

  async function fetch(url, options = {}) {
    const o = known("fetch()", options, ["method", "headers", "body", "timeout"]);
    const request = { url: String(url), method: String(o.method ?? "GET").toUpperCase(), headers: [] };
    for (const name of Object.keys(o.headers ?? {})) request.headers.push([name, String(o.headers[name])]);
    if (o.body !== undefined) request.body = String(o.body);
    if (o.timeout !== undefined) request.timeout_ms = duration("`timeout`", o.timeout);
    const failure = new Error();
    try {
      const { status, body } = await native.fetch(JSON.stringify(request));
      return { status, ok: status >= 200 && status < 300, text: async () => body, json: async () => JSON.parse(body) };
    } catch (reason) {
      failure.message = String(reason);
      throw failure;
    }
  }

  async function run(program, args = [], options = {}) {
    const o = known("run()", options, ["stdin", "timeout", "cwd"]);
    if (!Array.isArray(args)) throw new TypeError(`run()'s arguments must be a list of texts, not ${show(args)}`);
    const request = { program: text("run()'s program", program), args: args.map(String) };
    if (o.stdin !== undefined) request.stdin = String(o.stdin);
    if (o.cwd !== undefined) request.cwd = text("`cwd`", o.cwd);
    if (o.timeout !== undefined) request.timeout_ms = duration("`timeout`", o.timeout);
    const failure = new Error();
    try {
      return await native.run(JSON.stringify(request));
    } catch (reason) {
      failure.message = String(reason);
      throw failure;
    }
  }

  function every(interval, body) {
    const interval_ms = duration("every()'s interval", interval);
    if (interval_ms < native.every_ms_min) throw new RangeError(`every()'s interval is at least ${native.every_ms_min} ms, not ${interval_ms}`);
    const registration = { kind: "every", interval_ms, stopped: false };
    const number = register("every()", registration, body_of("every()", body));
    return {
      stop() {
        if (native.mode() === "recording") registration.stopped = true;
        else host("every.stop", { number });
      },
    };
  }

  /** A value as `disco eval` shows it. */
  function print(value) {
    if (typeof value === "function") return `[function ${value.name || "without a name"}]`;
    if (typeof value === "bigint") return `${value}n`;
    if (typeof value !== "object" || value === null) return typeof value === "string" ? JSON.stringify(value) : String(value);
    if (value instanceof Error) return String(value);
    if (value instanceof Cluster || value instanceof Service || value instanceof Key) return `${value.constructor.name} ${JSON.stringify(value.name)}`;
    try {
      return JSON.stringify(value, null, 2);
    } catch {
      return native.display(value);
    }
  }

  const console = {};
  for (const level of ["log", "info", "warn", "error", "debug"]) console[level] = (...values) => native.console(level, ...values);

  const ENV = Object.freeze(native.env());
  const names = { Cluster, Provider, LocalProvider, AwsProvider, HostsProvider, FileStorage, console, delay, ask, ENV, fetch, run, setTimeout, clearTimeout, every };
  for (const name of Object.keys(names)) Object.defineProperty(globalThis, name, { value: names[name], writable: true, configurable: true });

  return {
    modules: { disco: names, "@disco/provider": { Provider, LocalProvider, AwsProvider, HostsProvider }, "@disco/storage": { FileStorage }, "@disco/cluster": { Cluster } },
    options_of: (value) => { const options = optionsOf(value); return options && JSON.stringify(options); },
    encode: (value) => JSON.stringify(value),
    declared: () =>
      JSON.stringify({
        services: Object.fromEntries([...recorded.services].map(([name, { spec }]) => [name, spec])),
        keys: Object.fromEntries(recorded.keys),
        registrations: recorded.registrations,
      }),
    registered: (number) => recorded.bodies[number],
    plain_cluster: (name) => new Cluster(Object.freeze({ name }), inner),
    print,
    /** A node, given to a hook, prints as its name. */
    named: (value) => (value !== null && typeof value === "object" ? named(value) : value),
  };
});
