// What client.js may use in this version of Disco. It lists only what works; later versions add to it.
// Scripts are ECMAScript modules. The names below are globals; `import { Cluster } from "disco"` gives the same ones
// (or `{ Cluster } from "@disco/cluster"`, `{ Provider } from "@disco/provider"`).
// A script may import other files of its own folder by relative name.

/** Waits `ms` milliseconds; resolves with the seconds that really passed. */
declare function delay(ms: number): Promise<number>;
/** Calls `body` after `ms` milliseconds, unless the hook is over by then; the number cancels it. */
declare function setTimeout(body: (...args: any[]) => unknown, ms?: number, ...args: any[]): number;
declare function clearTimeout(id: number): void;
/** Asks the person at the terminal; true only for "yes"/"y". `--yes` answers true; no terminal and no `--yes` answers false and says so. */
declare function ask(question: string): Promise<boolean>;
/** HTTP(S) request. Bounded body (1 MiB) and time (30 s unless given); 8 at once, more wait their turn. */
declare function fetch(url: string, options?: { method?: string; headers?: Record<string, string>; body?: string; timeout?: Duration }): Promise<{ status: number; ok: boolean; text(): Promise<string>; json(): Promise<any> }>;
/** Runs a native command without a shell. Bounded in number (16 at once, more wait their turn), output (1 MiB) and time (60 s unless given). */
declare function run(program: string, args?: string[], options?: { stdin?: string; timeout?: Duration; cwd?: string }): Promise<{ status: number | null; signal: number | null; stdout: string; stderr: string }>;
/** Process environment, read-only. */
declare const ENV: Readonly<Record<string, string>>;
/** At most 200 lines a second and 1 MiB a hook; the rest is dropped and counted. */
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
/** The other way to say it: `new Provider.Local({ name })`. */
declare const Provider: {
  readonly Local: new (options: { name: string }) => LocalProvider;
};

/** Unknown options are refused by name. `class Mine extends Cluster` works. */
declare class Cluster {
  constructor(options: {
    name: string;
    provider: LocalProvider;
    /** voters to aim for: 1, 3, 5 or 7 (default 3; fewer while there are fewer nodes) */
    managers?: number;
    /** below this many live nodes services do not run; the cluster itself keeps working (default 1) */
    min_nodes?: number;
    /** what happens to running services when live nodes fall under min_nodes */
    below_min?: "stop" | "pause" | "keep";
    /** spending brake for scale() and self-healing: never more instances than this, never more launches per hour */
    max_nodes?: number;
    max_launches_per_hour?: number; // default 10; repairs of existing instances don't count
    /** a lost node's instance is replaced after this long (default "2m"; null: never) */
    replace_after?: Duration | null;
  });
  readonly name: string;

  // ---- bootstrap verbs (every one is idempotent: run again, it continues where it stopped)
  healthy(): Promise<boolean>;
  set_key_pair(pair: { private: string; public: string }): Promise<void>;
  start_instance(options?: { image?: string; instance_type?: string; spot?: boolean; disk?: Size }): Promise<Instance>;
  attach_ip(): Promise<string>;
  primary_ip(): Promise<string>;
  ssh_install(): Promise<void>;
  join(): Promise<void>;
  /** Sets how many nodes the cluster keeps; resolves when that many are healthy members. */
  scale(nodes: number): Promise<void>;
  destroy(): Promise<void>;

  // ---- what is there
  nodes(): Promise<Node[]>;
  services(): Promise<ServiceStatus[]>;
  leader(): Promise<Node | null>;
  /** replicated key-value */
  key(name: string): Key;
}

interface Node { id: string; name: string; address: string; role: "manager" | "worker"; state: "joining" | "ready" | "draining" | "lost" | "left"; leader: boolean; cpus: number; memory: number; labels: Record<string, string>; instance?: string; toString(): string }
interface Instance { id: string; address: string; private_address: string; state: string }
interface Key { get(): Promise<string | null>; set(value: string): Promise<void>; delete(): Promise<void> }
/** There are no services yet in this version: the list is empty. */
interface ServiceStatus { name: string; desired: number; running: number; healthy: number }

// ---- hooks that client.js exports
//   init(): Cluster                       bootstrap(cluster)                  destroy(cluster)
