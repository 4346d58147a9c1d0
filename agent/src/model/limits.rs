//! Every bound on what outside input can grow, in one place. Bytes, counts and milliseconds; the unit goes last in the name.

/// Raft's clock: one tick of `now`.
pub const TICK_MS: u64 = 50;
/// A node that said nothing for this long is lost (unless its provider says "stopped" earlier).
pub const LOST_AFTER_MS: u64 = 5_000;
/// A voter gives way to a clearly better node after that was ready, and the voters the same, for this long.
pub const SWAP_AFTER_MS: u64 = 60_000;
/// An agent that starts and hears of no manager for this long goes by its last assignment.
pub const ALONE_AFTER_MS: u64 = 30_000;
/// A node that is not a Raft member reports this often.
pub const REPORT_INTERVAL_MS: u64 = 1_000;

/// Uncompacted log kept in memory; a peer further behind gets a snapshot.
pub const LOG_BYTES_MAX: usize = 512 * 1024;
/// Entries kept behind the snapshot so that a briefly absent peer need not take one.
pub const LOG_ENTRIES_KEPT: u64 = 64;
/// One encoded command.
pub const COMMAND_BYTES_MAX: usize = 320 * 1024;
/// One encoded snapshot of the state.
pub const SNAPSHOT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of a state that takes more, about, no command that adds to what people and scripts keep in it becomes an entry. What nodes and
/// the plan add by themselves has its own bounds, and fits above.
pub const STATE_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX / 8 * 5;
/// Raft messages handed in by a peer at once.
pub const RAFT_MESSAGE_BYTES_MAX: usize = 448 * 1024;

pub const NODES_MAX: usize = 64;
pub const MANAGERS_MAX: usize = 7;
pub const INSTANCES_MAX: usize = 128;
/// Ended instances remembered (oldest forgotten first).
pub const INSTANCES_ENDED_KEPT: usize = 16;
/// What every launch is made of (image, size, network …), and one name or value of it.
pub const LAUNCH_PARAMETERS_MAX: usize = 32;
pub const LAUNCH_PARAMETER_BYTES_MAX: usize = 1024;
/// After a launch was refused for want of spot capacity, this long none is asked for.
pub const SPOT_REFUSED_FOR_MS: u64 = 3_600_000;
pub const REMOVED_NODES_KEPT: usize = 256;
pub const TOKENS_MAX: usize = 64;
pub const EVENTS_KEPT: usize = 256;
pub const EVENT_TEXT_BYTES_MAX: usize = 256;
pub const LABELS_MAX: usize = 16;
pub const NAME_BYTES_MAX: usize = 64;
pub const ADDRESS_BYTES_MAX: usize = 128;

pub const KEY_BYTES_MAX: usize = 256;
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
pub const KEYS_MAX: usize = 4096;
/// Keys and values together.
pub const KV_BYTES_MAX: usize = 1024 * 1024;

/// Clients whose last answers are remembered, and how many answers each.
pub const CLIENTS_MAX: usize = 256;
pub const ANSWERS_PER_CLIENT_MAX: usize = 8;
/// Why a command was refused, as it is answered and remembered.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 512;

/// Requests waiting for their entry to be applied; one more is answered Busy.
pub const REQUESTS_PENDING_MAX: usize = 512;
/// Reads waiting for their read index; one more is answered Busy.
pub const READS_PENDING_MAX: usize = 512;
/// A request not answered by then gets `Unavailable`: its outcome is unknown, retrying with the same id is safe.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;

pub const TOKEN_TTL_DEFAULT_MS: u64 = 3_600_000;
pub const CERTIFICATE_TTL_MS: u64 = 30 * 24 * 3_600_000;
pub const CERTIFICATE_BACKDATE_MS: u64 = 24 * 3_600_000;
pub const ADMIN_CERTIFICATE_TTL_MS: u64 = 365 * 24 * 3_600_000;
/// A launch older than this is settled by looking for its tag, never relaunched.
pub const LAUNCH_RETRY_MAX_MS: u64 = 12 * 3_600_000;

/// Programs that go out at once, and how long one may take.
pub const ARTIFACT_FETCHES_MAX: usize = 4;
pub const ARTIFACT_FETCH_MS_MAX: u64 = 300_000;

/// Connections the port takes at once, handshakes included.
pub const CONNECTIONS_MAX: usize = 64;
pub const HANDSHAKES_MAX: usize = 16;
pub const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
pub const STREAMS_PER_CONNECTION_MAX: u32 = 32;
/// One gRPC message on the wire.
pub const WIRE_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// What a script may allocate above what its bare executor needs.
pub const SCRIPT_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// All modules of one script together.
pub const SCRIPT_SOURCE_BYTES_MAX: usize = 256 * 1024;
pub const SCRIPT_MODULES_MAX: usize = 64;
/// One message between the executor and whoever started it.
pub const SCRIPT_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// How deep a value may nest that passes between the two.
pub const SCRIPT_VALUE_DEPTH_MAX: usize = 64;
/// Running without a pause: longer is taken for an endless loop.
pub const SCRIPT_BUSY_MS_MAX: u64 = 10_000;
/// Running in all, during one hook; waiting does not count.
pub const SCRIPT_TIME_MS_MAX: u64 = 30_000;
/// Loading the module, and init(), from begin to end; only waiting for the host (a person's answer) does not count.
pub const SCRIPT_INIT_MS_MAX: u64 = 30_000;
/// `configure()`, from begin to end.
pub const SCRIPT_CONFIGURE_MS_MAX: u64 = 30_000;
/// `leader()`, what `every` and `on` call, and `disco eval`, from begin to end.
pub const SCRIPT_HOOK_MS_MAX: u64 = 300_000;
/// What `disco eval` prints.
pub const SCRIPT_PRINTED_BYTES_MAX: usize = 128 * 1024;
/// An executor without work goes away after this long.
pub const SCRIPT_IDLE_MS: u64 = 5_000;
pub const SCRIPT_CONSOLE_LINES_PER_SECOND_MAX: usize = 200;
/// Output of one hook.
pub const SCRIPT_CONSOLE_BYTES_MAX: usize = 1024 * 1024;
pub const SCRIPT_CONSOLE_LINE_BYTES_MAX: usize = 8 * 1024;
pub const SCRIPT_TIMERS_MAX: usize = 1024;
/// Calls to the host, fetches and runs that wait for their result at once.
pub const SCRIPT_REQUESTS_MAX: usize = 256;
pub const FETCHES_MAX: usize = 8;
pub const FETCH_BODY_BYTES_MAX: usize = 1024 * 1024;
pub const FETCH_TIMEOUT_MS: u64 = 30_000;
/// Programs of `run` at once; more wait their turn.
pub const EXTERNAL_COMMANDS_MAX: usize = 16;
pub const EXTERNAL_COMMAND_OUTPUT_BYTES_MAX: usize = 1024 * 1024;
pub const EXTERNAL_COMMAND_TIMEOUT_MS: u64 = 60_000;
/// `disco.toml`.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// Addresses to ask when joining.
pub const SEEDS_MAX: usize = 64;
/// A list of seeds, from a file or a URL.
pub const SEED_LIST_BYTES_MAX: usize = 64 * 1024;
/// One log line's text.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// Log lines that may come at once, and steadily.
pub const LOG_LINES_BURST: u64 = 400;
pub const LOG_LINES_PER_SECOND: u64 = 100;
/// The same for what the cluster's script says.
pub const SCRIPT_LOG_LINES_BURST: u64 = 200;
pub const SCRIPT_LOG_LINES_PER_SECOND: u64 = 20;
/// A daemon's own log file; past it only the newest eighth stays.
pub const LOG_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub const SERVICES_MAX: usize = 128;
pub const TASKS_MAX: usize = 1024;
/// Tasks on one node.
pub const TASKS_PER_NODE_MAX: usize = 256;
/// What one node is told of all its tasks together, about.
pub const ORDERS_BYTES_MAX: usize = 256 * 1024;
pub const COMMAND_ARGUMENTS_MAX: usize = 128;
/// One service's declaration, encoded.
pub const SERVICE_SPEC_BYTES_MAX: usize = 16 * 1024;
/// Everything a script declares, encoded.
pub const DECLARATION_BYTES_MAX: usize = 256 * 1024;
/// What is kept of a failed run's words.
pub const SCRIPT_ERROR_BYTES_MAX: usize = 4096;
pub const MODULE_SETS_KEPT: usize = 5;
pub const REGISTRATIONS_MAX: usize = 64;
/// The shortest `every`.
pub const EVERY_MS_MIN: u64 = 100;
/// Script calls waiting for their turn; the oldest events are dropped and counted.
pub const SCRIPT_CALLS_MAX: usize = 64;
/// A task's log; past it the oldest half is punched out.
pub const TASK_LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Logs of forgotten tasks kept on a node.
pub const TASK_LOGS_KEPT: usize = 16;
/// A longer line of a task is shown as several.
pub const TASK_LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Streams of task logs one node serves at once.
pub const LOG_STREAMS_MAX: usize = 16;
