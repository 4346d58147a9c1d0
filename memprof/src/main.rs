//! `memprof`: brings real binaries into the promised states and judges them by `budgets.toml`.

use lexopt::prelude::*;
use memprof::{
    Budgets,
    load::Identity,
    scenarios::{self, Outcome, Scenario},
    trend::{self, Run},
    verdict::{Breach, BudgetError, megabytes},
};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::Duration,
};

const HELP: &str = "\
memprof: measures Disco against its budgets

  memprof --bin-dir DIR [--scenario NAME]... [--skip NAME]... [--budgets FILE] [--json] [--record FILE]
      Runs the scenarios (idle, executor, load, leader-changes, tasks, nine, launches, snapshot, hooks,
      deploys, joins, requests by default; capped, which needs control groups v2) with DIR/disco and DIR/discod.
      --skip NAME leaves one out.
      Exit 0: every budget was kept; 1: one was passed, or a scenario could not be brought about.
      --record FILE appends the figures to FILE, one JSON line a run.
  memprof starts --bin-dir DIR
      Starts a task twenty times on an idle cluster and prints how long each took from request to running.
  memprof puts HOST:PORT [--admin DIR]
      32 clients write for ten seconds, each again once it is answered; prints writes a second, the median and the
      99th of 100 in milliseconds. DIR has ca.crt, admin.crt and admin.key of a cluster; without it HOST:PORT is etcd's.
  memprof trend FILE [--svg FILE]
      Draws what was recorded: in the terminal, and as a picture.
  memprof touch BYTES
      Writes to BYTES of memory, prints `ready` and waits for the end of its input: a process of known size,
      with which memprof is tested itself.
";

const STARTS: usize = 20;
const PUTS: Duration = Duration::from_secs(10);

struct Options {
    bin_dir: PathBuf,
    scenarios: Vec<&'static Scenario>,
    budgets: Budgets,
    json: bool,
    record: Option<PathBuf>,
}

enum Command {
    Help,
    Starts(PathBuf),
    Puts { address: String, admin: Option<PathBuf> },
    Touch(usize),
    Trend { file: PathBuf, svg: Option<PathBuf> },
    Run(Options),
}

fn main() -> ExitCode {
    let ended = match parse() {
        Ok(Command::Help) => {
            print!("{HELP}");
            Ok(true)
        }
        Ok(Command::Touch(bytes)) => touch(bytes),
        Ok(Command::Starts(bin_dir)) => starts(&bin_dir),
        Ok(Command::Puts { address, admin }) => puts(&address, admin.as_deref()),
        Ok(Command::Trend { file, svg }) => draw(&file, svg.as_deref()),
        Ok(Command::Run(options)) => run(&options),
        Err(error) => {
            complain(&*error);
            eprintln!("hint: memprof --help");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&*error);
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Command, Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_env();
    let mut bin_dir = None;
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    let mut budgets = Budgets::shipped();
    let mut only_starts = false;
    let (mut json, mut record, mut trend, mut svg) = (false, None, None, None);
    let (mut puts, mut admin) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Value(word) if word == "touch" => return Ok(Command::Touch(parser.value()?.parse()?)),
            Value(word) if word == "starts" => only_starts = true,
            Value(word) if word == "puts" => puts = Some(parser.value()?.string()?),
            Long("admin") if puts.is_some() => admin = Some(PathBuf::from(parser.value()?)),
            Value(word) if word == "trend" => trend = Some(PathBuf::from(parser.value()?)),
            Long("svg") if trend.is_some() => svg = Some(PathBuf::from(parser.value()?)),
            Long("record") => record = Some(PathBuf::from(parser.value()?)),
            Long("bin-dir") => bin_dir = Some(PathBuf::from(parser.value()?)),
            Long("json") => json = true,
            Long("budgets") => budgets = Budgets::parse(&fs::read_to_string(parser.value()?)?)?,
            Long("scenario") => chosen.push(scenario(&parser.value()?.string()?)?),
            Long("skip") => skipped.push(scenario(&parser.value()?.string()?)?.name),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(file) = trend {
        return Ok(Command::Trend { file, svg });
    }
    if let Some(address) = puts {
        return Ok(Command::Puts { address, admin });
    }
    if chosen.is_empty() {
        chosen = scenarios::ALL[..scenarios::USUAL].iter().collect();
    }
    chosen.retain(|scenario| !skipped.contains(&scenario.name));
    let bin_dir = bin_dir.ok_or("`--bin-dir` is missing")?;
    if only_starts {
        return Ok(Command::Starts(bin_dir));
    }
    Ok(Command::Run(Options { bin_dir, scenarios: chosen, budgets, json, record }))
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    let found = scenarios::ALL.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| format!("there is no scenario `{name}`"))
}

fn starts(bin_dir: &Path) -> Result<bool, Box<dyn Error>> {
    let took = memprof::starts::measure(bin_dir, STARTS)?;
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!("{STARTS} starts, request to running: {:.1} ms median, {:.1} ms for 90 %, {:.1} ms at most", at(0.5), at(0.9), at(1.0));
    Ok(true)
}

fn puts(address: &str, admin: Option<&Path>) -> Result<bool, Box<dyn Error>> {
    let report = match admin {
        Some(dir) => {
            let read = |name| fs::read(dir.join(name));
            let identity = Identity { ca: read("ca.crt")?, certificate: read("admin.crt")?, key: read("admin.key")? };
            memprof::puts::disco(address, &identity, PUTS)?
        }
        None => memprof::puts::etcd(address, PUTS),
    };
    if let Some(error) = &report.error {
        eprintln!("memprof: {} refused: {error}", report.refused);
    }
    let [middle, most, _] = report.latency_ms;
    println!("{:.0} {middle:.1} {most:.1}", report.rate());
    Ok(report.refused == 0)
}

/// True if every promise was kept.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let (mut passed, mut failed) = (0, 0);
    let mut all = Vec::new();
    for scenario in &options.scenarios {
        eprintln!("memprof: {} …", scenario.name);
        match (scenario.run)(&options.bin_dir) {
            Ok(outcomes) => {
                for breach in too_wide(&options.budgets, &outcomes)? {
                    eprintln!("error: {breach}");
                    failed += 1;
                }
                for outcome in outcomes {
                    let breaches = options.budgets.of(outcome.phase)?.judge(outcome.phase, &outcome.measured);
                    show(&outcome, breaches.is_empty());
                    for breach in &breaches {
                        eprintln!("error: {} ({breach})", outcome.who);
                    }
                    if breaches.is_empty() {
                        passed += 1
                    } else {
                        failed += 1
                    }
                    all.push(outcome);
                }
            }
            Err(error) => {
                failed += 1;
                complain(&error);
            }
        }
    }
    if let Some(record) = &options.record {
        Run::of(&build(&options.bin_dir)?, &all).append(record)?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!("memprof: {passed} passed, {failed} failed");
    }
    Ok(failed == 0)
}

/// What there is to say against budgets of these states that would not notice a megabyte.
fn too_wide(budgets: &Budgets, outcomes: &[Outcome]) -> Result<Vec<Breach>, BudgetError> {
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in outcomes {
        let most = largest.entry(outcome.phase).or_default();
        *most = outcome.measured.anonymous_median.max(*most);
    }
    let judge = |(phase, most)| Ok(budgets.of(phase)?.judge_width(phase, most));
    largest.into_iter().map(judge).filter_map(Result::transpose).collect()
}

fn show(outcome: &Outcome, kept: bool) {
    let is = &outcome.measured;
    eprintln!(
        "{} {:22} {:6} footprint {} (median {}), RSS {}, anonymous {} (median {}), peak {}, {} threads, {:.2} % CPU, {:.0} wake-ups/s, {} samples{}{}{}",
        if kept { "ok  " } else { "FAIL" },
        outcome.phase,
        outcome.who,
        megabytes(is.footprint),
        megabytes(is.footprint_median),
        megabytes(is.rss),
        megabytes(is.anonymous),
        megabytes(is.anonymous_median),
        megabytes(is.peak),
        is.threads,
        is.cpu_percent,
        is.wakeups_per_second,
        is.samples,
        if is.growth > 0 { format!(", grown by {}", megabytes(is.growth)) } else { String::new() },
        if outcome.note.is_empty() { "" } else { "; " },
        outcome.note,
    );
}

/// What the measured program says of itself.
fn build(bin_dir: &Path) -> Result<String, Box<dyn Error>> {
    let output = process::Command::new(bin_dir.join("discod")).arg("--version").output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.trim().strip_prefix("discod ").ok_or("`discod --version` says something else")?.to_owned())
}

fn draw(file: &Path, svg: Option<&Path>) -> Result<bool, Box<dyn Error>> {
    let runs = trend::parse(&fs::read_to_string(file)?)?;
    print!("{}", trend::terminal(&runs));
    if let Some(path) = svg {
        fs::write(path, trend::svg(&runs))?;
    }
    Ok(true)
}

fn touch(bytes: usize) -> Result<bool, Box<dyn Error>> {
    let memory = vec![1u8; bytes];
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // Read at the end, so that nothing can decide the pages were never needed.
    Ok(memory.iter().all(|byte| *byte == 1))
}

fn complain(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(because) = cause {
        eprintln!("  caused by: {because}");
        cause = because.source();
    }
}
