// What client.js (run by `disco`) and cluster.js (run by the node that leads) may use in this version of Disco. It lists
// only what works; later versions add to it.
// Scripts are ECMAScript modules. The names below are globals; `import { Cluster } from "disco"` gives the same ones
// (or `{ Cluster } from "@disco/cluster"`, `{ Provider } from "@disco/provider"`).
// A script may import other files of its own folder by relative name.

/** Waits `ms` milliseconds; resolves with the seconds that really passed. */
declare function delay(ms: number): Promise<number>;
/** Calls `body` after `ms` milliseconds, unless the hook is over by then; the number cancels it. */
declare function setTimeout(body: (...args: any[]) => unknown, ms?: number, ...args: any[]): number;
declare function clearTimeout(id: number): void;
/** Asks the person at the terminal; true only for "yes"/"y". `--yes` answers true; no terminal and no `--yes` answers false and says so. (client.js) */
declare function ask(question: string): Promise<boolean>;
/** HTTP(S) request. Bounded body (1 MiB) and time (30 s unless given); 8 at once, more wait their turn. */
declare function fetch(url: string, options?: { method?: string; headers?: Record<string, string>; body?: string; timeout?: Duration }): Promise<{ status: number; ok: boolean; text(): Promise<string>; json(): Promise<any> }>;
/** Runs a native command without a shell. Bounded in number (16 at once, on a node `external_commands_max`; more wait their turn), output (1 MiB) and time (60 s unless given). */
declare function run(program: string, args?: string[], options?: { stdin?: string; timeout?: Duration; cwd?: string }): Promise<{ status: number | null; signal: number | null; stdout: string; stderr: string }>;
/** Calls `body` while this node leads, at least 100 ms apart, until stop(). The daemon keeps the timer: register it while cluster.js loads, in init() or in configure(). (cluster.js) */
declare function every(interval: Duration, body: () => unknown | Promise<unknown>): { stop(): void };
/** Process environment, read-only. */
declare const ENV: Readonly<Record<string, string>>;
/** At most 200 lines a second and 1 MiB a hook (a node's log takes 20 a second after the first 200); the rest is dropped and counted. */
declare const console: {
  log(...values: any[]): void;
  info(...values: any[]): void;
  warn(...values: any[]): void;
  error(...values: any[]): void;
  debug(...values: any[]): void;
};

/** "250ms" | "30s" | "5m" | "1h" | "7d", or a number of milliseconds. */
type Duration = string | number;
/** "64MiB" | "512KiB" | "1GiB", or a number of bytes. */
type Size = string | number;

/** Instances are `discod` processes on this machine, each on a loopback address of its own. No root, no account, no cost. */
declare class LocalProvider {
  private constructor();
  static init(options: { name: string }): Promise<LocalProvider>;
  readonly name: string;
  readonly kind: "local";
}
/**
 * Machines that exist: `disco` installs a node on each over SSH. `user` is who logs in (default: your own name) and
 * becomes root by sudo or doas without a password; `host_key` is the machine's public key (`ssh-ed25519 AAAA…`) or its
 * fingerprint (`SHA256:…`). Without one the machine must be in known_hosts: nothing is trusted at first sight.
 */
declare class HostsProvider {
  private constructor();
  static init(options: { name: string; hosts: Host[] }): Promise<HostsProvider>;
  readonly name: string;
  readonly kind: "hosts";
}
interface Host {
  address: string;
  user?: string;
  port?: number;
  host_key?: string;
}
/** Amazon EC2. Credentials: environment, then the profile of ~/.aws, then the instance role (IMDSv2). */
declare class AwsProvider {
  private constructor();
  static init(options: AwsOptions): Promise<AwsProvider>;
  readonly name: string;
  readonly kind: "aws";
}
interface AwsOptions {
  name: string;
  region: string;
  /** of ~/.aws; default: AWS_PROFILE, or the environment */
  profile?: string;
  /** whom to ask instead of Amazon, for tests */
  endpoint?: string;
  /** an instance profile of yours that lets nodes launch others; default: one is made */
  role?: string;
  /** from where nodes may be reached, like "203.0.113.7/32"; default: from where `disco bootstrap` runs */
  allow?: string[];
}
/** The other way to say it: `new Provider.Local({ name })`. */
declare const Provider: {
  readonly AWS: new (options: AwsOptions) => AwsProvider;
  readonly Hosts: new (options: { name: string; hosts: Host[] }) => HostsProvider;
  readonly Local: new (options: { name: string }) => LocalProvider;
};

/** Unknown options are refused by name. `class Mine extends Cluster` works. */
declare class Cluster {
  constructor(options: {
    name: string;
    provider: LocalProvider | AwsProvider | HostsProvider;
    // What cluster.js says wins over client.js.
    /** voters to aim for: 1, 3, 5 or 7 (default 3; fewer while there are fewer nodes) */
    managers?: number;
    /** below this many live nodes services do not run; the cluster itself keeps working (default 1) */
    min_nodes?: number;
    /** what happens to running services when live nodes fall under min_nodes (default "keep") */
    below_min?: "stop" | "pause" | "keep";
    /** spending brake for scale() and self-healing: never more instances than this (default 16, at most 64), never more launches per hour */
    max_nodes?: number;
    max_launches_per_hour?: number; // default 10; repairs of existing instances don't count
    /** a lost node's instance is replaced after this long (default "2m"; null: never) */
    replace_after?: Duration | null;
  });
  readonly name: string;

  /** client.js: somebody leads and every wanted node is ready; cluster.js: `disco status` would name no problem. */
  healthy(): Promise<boolean>;
  // ---- bootstrap verbs (client.js; every one is idempotent: run again, it continues where it stopped)
  set_key_pair(pair: { private: string; public: string }): Promise<void>;
  start_instance(options?: { image?: string; instance_type?: string; spot?: boolean; disk?: Size }): Promise<Instance>;
  attach_ip(): Promise<string>;
  primary_ip(): Promise<string>;
  ssh_install(): Promise<void>;
  join(): Promise<void>;
  destroy(): Promise<void>;
  /** Sets how many nodes the cluster keeps; resolves when that many are healthy members. (client.js; cluster.js after configure(), but not with HostsProvider, whose machines only `disco` gets onto) */
  scale(nodes: number): Promise<void>;

  // ---- what is there
  nodes(): Promise<Node[]>;
  services(): Promise<ServiceStatus[]>;
  leader(): Promise<Node | null>;
  /** replicated key-value */
  key(name: string): Key;

  // ---- desired state (cluster.js)
  /** In configure(): declares it; a service that is not declared any more is removed. Later: changes it at once. Unknown fields are refused by name. */
  service(name: string, spec: ServiceSpec): Service;
  /** One that exists. */
  service(name: string): Service;
  /** Calls `body` for each such event while this node leads. Register it while cluster.js loads, in init() or in configure(). */
  on(event: EventName, body: (event: ClusterEvent) => unknown | Promise<unknown>): void;
}

type EventName =
  | "leader" | "follower" // this node became leader, or stopped being it
  | "node.joined" | "node.lost" | "node.back" | "node.left" | "node.leaving" | "node.draining" | "node.preferred"
  | "instance.started" | "instance.stopped" | "instance.terminated" | "instance.failed"
  | "service.updated" | "service.degraded" | "service.healthy"
  | "task.started" | "task.exited"
  | "cluster.scaled" | "cluster.below_min" | "cluster.recovered" | "cluster.at_min" | "cluster.destroyed"
  | "script.reloaded" | "script.failed"
  | "ca.introduced" | "ca.certifying" | "ca.showing" | "ca.replaced";

/** `at`: milliseconds since 1970; `subject`: the node, service, task or instance it is about, empty if it is about the whole cluster; `text`: for a person. */
interface ClusterEvent { id: number; at: number; name: EventName; subject: string; text: string }

interface Node { id: string; name: string; address: string; role: "manager" | "worker"; state: "joining" | "ready" | "draining" | "lost" | "left"; leader: boolean; cpus: number; memory: number; labels: Record<string, string>; instance?: string | null; toString(): string }
interface Instance { id: string; address: string; private_address: string; state: string }
/** set() in configure() declares the value; `on` is registered like Cluster.on (cluster.js), its `body` gets the new value, null if it was deleted. */
interface Key { readonly name: string; get(): Promise<string | null>; set(value: string): Promise<void>; delete(): Promise<void>; on(event: "change", body: (value: string | null) => unknown | Promise<unknown>): void }

interface ServiceSpec {
  /** a native process: the program and its arguments, no shell */
  command: string[];
  /** absolute (default "/") */
  cwd?: string;
  user?: string;
  /** default SIGTERM, and SIGKILL after 10 s */
  stop?: { signal?: "SIGHUP" | "SIGINT" | "SIGQUIT" | "SIGKILL" | "SIGUSR1" | "SIGUSR2" | "SIGTERM" | "SIGWINCH"; timeout?: Duration };
  env?: Record<string, string>;
  /** default 1 */
  replicas?: number | "every-node";
  /** `port` names the service's port. The node assigns a free one, passed as DISCO_PORT_<port> (the first also as PORT);
   *  TaskStatus.ports maps declared to assigned. `public` is a fixed node port: such tasks update stop-first. */
  ports?: (number | { port: number; public?: number; protocol?: "tcp" | "udp" })[];
  memory?: Size;
  /** cores: 0.5, 2 */
  cpus?: number;
  /** labels that a node must have; services whose nodes are avoided if another will do; copies are spread over nodes */
  place?: { labels?: Record<string, string>; spread?: "node"; avoid?: string[] };
  /** default: always, the first wait 500 ms (it doubles up to a minute), without an end */
  restart?: { policy?: "always" | "on-failure" | "never"; backoff?: Duration; max?: number };
  /** a task that stays up for `grace` has started (default 1s) */
  health?: { grace?: Duration };
  /** default: start-first, one at a time, no rollback, 5 min */
  update?: { order?: "start-first" | "stop-first"; parallel?: number; rollback?: boolean; deadline?: Duration };
}
/** The verbs work after configure(); scale() holds until the next `disco apply`. */
interface Service { readonly name: string; scale(replicas: number): Promise<void>; restart(): Promise<void>; rollback(): Promise<void>; remove(): Promise<void>; status(): Promise<ServiceStatus> }
interface ServiceStatus { name: string; desired: number; running: number; healthy: number; version: number; tasks: TaskStatus[] }
interface TaskStatus { id: string; service: string; node: string; state: "pending" | "starting" | "running" | "stopping" | "exited" | "failed" | "paused" | "held"; exit?: { code?: number | null; signal?: number | null } | null; last_error?: string | null; address?: string | null; ports: Record<number, number> }

// ---- hooks a script exports
// client.js
//   init(): Cluster                       bootstrap(cluster)                  destroy(cluster)
// cluster.js (all but init may be missing)
//   init(): Cluster
//   configure(cluster)                    declares services and keys, registers every() and on(); run by the leader at every load
//                                         and every election, and by `disco plan`; it may look at the cluster but changes nothing itself
//   leader(cluster, node)                 this node became leader             follower(cluster, node)   it stopped being it
// Between two calls the process that runs cluster.js may go away, and its variables with it: keep state in cluster.key().
