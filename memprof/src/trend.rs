//! What the figures were, commit by commit: one JSON line a run, drawn in the terminal and as an SVG.
//!
//! A budget says how much is too much; only a row of runs shows that a node grows by a little each week.

use crate::scenarios::Outcome;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

/// One run of some scenarios.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// As `--version` of the measured program says it: version, commit, target.
    pub build: String,
    /// By state; the worst node of each.
    pub phases: BTreeMap<String, Figures>,
}

/// What is kept of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes.
    pub footprint: u64,
    /// Bytes.
    pub rss: u64,
    /// Bytes.
    pub anonymous: u64,
    /// Most threads.
    pub threads: u64,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Wake-ups a second.
    pub wakeups_per_second: f64,
}

impl Run {
    /// Keeps of each state the largest figure of any node.
    pub fn of(build: &str, outcomes: &[Outcome]) -> Run {
        let mut phases: BTreeMap<String, Figures> = BTreeMap::new();
        for Outcome { phase, measured, .. } in outcomes {
            let kept = phases.entry((*phase).to_owned()).or_default();
            kept.footprint = kept.footprint.max(measured.footprint);
            kept.rss = kept.rss.max(measured.rss);
            kept.anonymous = kept.anonymous.max(measured.anonymous);
            kept.threads = kept.threads.max(measured.threads);
            kept.cpu_percent = kept.cpu_percent.max(round(measured.cpu_percent));
            kept.wakeups_per_second = kept.wakeups_per_second.max(round(measured.wakeups_per_second));
        }
        Run { build: build.to_owned(), phases }
    }

    /// Adds this run to the end of a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
    }
}

/// More places than the kernel counts in would only be noise.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Reads a file's text, oldest run first.
///
/// # Errors
/// A line that is no run.
pub fn parse(text: &str) -> Result<Vec<Run>, serde_json::Error> {
    text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect()
}

/// The footprints of one state on one target, oldest first.
struct Series<'a> {
    target: &'a str,
    phase: &'a str,
    megabytes: Vec<f64>,
}

impl Series<'_> {
    fn last(&self) -> f64 {
        self.megabytes.last().copied().unwrap_or_default()
    }
}

/// `0.1.0 (commit, target)`: figures of two targets are no row.
fn target(build: &str) -> &str {
    build.rsplit_once(", ").map_or("unknown", |(_, rest)| rest.trim_end_matches(')'))
}

fn series(runs: &[Run]) -> Vec<Series<'_>> {
    let mut rows: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (phase, figures) in &run.phases {
            rows.entry((target(&run.build), phase)).or_default().push(figures.footprint as f64 / 1e6);
        }
    }
    rows.into_iter().map(|((target, phase), megabytes)| Series { target, phase, megabytes }).collect()
}

/// One line a state: its name, a bar a run, the first and the last footprint.
pub fn terminal(runs: &[Run]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut out = String::new();
    let mut before = "";
    for row in series(runs) {
        if row.target != before {
            let _ = writeln!(out, "{}, footprint in MB", row.target);
            before = row.target;
        }
        // From zero: a bar twice as high is twice as much.
        let most = row.megabytes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let bars: String = row.megabytes.iter().map(|mb| BARS[((mb / most) * 7.0).round() as usize]).collect();
        let _ = writeln!(out, "  {:22} {bars} {:.2} → {:.2}", row.phase, row.megabytes[0], row.last());
    }
    out
}

/// A picture of the same, for a README.
pub fn svg(runs: &[Run]) -> String {
    const WIDTH: f64 = 720.0;
    const PLOT: (f64, f64) = (60.0, 500.0);
    const HEIGHT: f64 = 160.0;
    const COLOURS: [&str; 8] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];
    let rows = series(runs);
    let mut targets: Vec<&str> = rows.iter().map(|row| row.target).collect();
    targets.dedup();
    let mut out = String::new();
    let total = (HEIGHT + 70.0) * targets.len().max(1) as f64;
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{total}" fill="white"/>"#
    );
    for (place, wanted) in targets.iter().enumerate() {
        let top = 40.0 + (HEIGHT + 70.0) * place as f64;
        let of_target: Vec<&Series> = rows.iter().filter(|row| row.target == *wanted).collect();
        let most = of_target.iter().flat_map(|row| row.megabytes.iter().copied()).fold(10.0, f64::max);
        let y = |mb: f64| top + HEIGHT * (1.0 - mb / most);
        let _ = writeln!(out, r#"<text x="{}" y="{}" font-weight="bold">footprint of a node, MB: {wanted}</text>"#, PLOT.0, top - 16.0);
        for mark in [0.0, 5.0, 10.0] {
            let dash = if mark == 10.0 { "" } else { r#" stroke-dasharray="2 4""# };
            let (left, right, at) = (PLOT.0, PLOT.1, y(mark));
            let _ = writeln!(out, r##"<line x1="{left}" x2="{right}" y1="{at:.1}" y2="{at:.1}" stroke="#999"{dash}/>"##);
            let _ = writeln!(out, r#"<text x="{}" y="{:.1}" text-anchor="end">{mark:.0}</text>"#, left - 8.0, at + 4.0);
        }
        let longest = of_target.iter().map(|row| row.megabytes.len()).max().unwrap_or(1).max(2);
        for (number, row) in of_target.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            // The newest run of every state stands at the right.
            let x = |at: usize| PLOT.1 - (PLOT.1 - PLOT.0) * (row.megabytes.len() - 1 - at) as f64 / (longest - 1) as f64;
            let points: Vec<String> = row.megabytes.iter().enumerate().map(|(at, mb)| format!("{:.1},{:.1}", x(at), y(*mb))).collect();
            let _ = writeln!(out, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, points.join(" "));
            let _ = writeln!(out, r#"<circle cx="{}" cy="{:.1}" r="3" fill="{colour}"/>"#, PLOT.1, y(row.last()));
            let label = top + 14.0 * number as f64 + 4.0;
            let _ = writeln!(out, r#"<text x="{}" y="{label:.1}" fill="{colour}">{} {:.2}</text>"#, PLOT.1 + 12.0, row.phase, row.last());
        }
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(commit: &str, footprint: u64) -> Run {
        let figures = Figures { footprint, ..Figures::default() };
        Run { build: format!("0.1.0 ({commit}, x86_64-unknown-linux-musl)"), phases: BTreeMap::from([("idle-leader".into(), figures)]) }
    }

    #[test]
    fn a_run_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("trend.jsonl");
        let runs = [run("aaaa", 3_500_000), run("bbbb", 7_000_000)];
        for run in &runs {
            run.append(&path).expect("it is ours");
        }
        assert_eq!(parse(&std::fs::read_to_string(&path).expect("just written")).expect("well formed"), runs);
        assert!(parse("{}\n").is_err());
    }

    #[test]
    fn the_drawing_names_the_state_and_shows_that_it_doubled() {
        let drawn = terminal(&[run("aaaa", 3_500_000), run("bbbb", 7_000_000)]);
        assert!(drawn.contains("x86_64-unknown-linux-musl") && drawn.contains("idle-leader"), "{drawn}");
        assert!(drawn.contains("▅█ 3.50 → 7.00"), "{drawn}");
        assert_eq!(terminal(&[]), "");
    }

    #[test]
    fn the_picture_is_one_element_with_a_line_for_each_state() {
        let drawn = svg(&[run("aaaa", 3_500_000), run("bbbb", 7_000_000)]);
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
        assert_eq!(drawn.matches("<polyline").count(), 1);
    }
}
