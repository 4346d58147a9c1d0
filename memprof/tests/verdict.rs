//! The probe is probed: a program of a known size must get the verdict that its size deserves.

use memprof::{Budgets, Measured, Sampler, verdict::Breach};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// `memprof touch BYTES`, ended with the test.
struct Program(Child);

impl Program {
    fn touching(bytes: u64) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memprof"));
        let child = command.args(["touch", &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut program = Program(child.expect("memprof was built beside this test"));
        let mut line = String::new();
        let output = program.0.stdout.as_mut().expect("piped above");
        BufReader::new(output).read_line(&mut line).expect("memprof writes to its pipe");
        assert_eq!(line, "ready\n");
        program
    }

    fn measured(&self) -> Measured {
        let sampler = Sampler::start(self.0.id());
        sampler.wait_for(Duration::from_secs(10), |_| true).expect("the program waits for us");
        Measured::of(&sampler.finish())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn verdict(measured: &Measured) -> Vec<Breach> {
    let budgets = Budgets::parse("[any.idle-leader]\nfootprint_max = 10_000_000\nrss_max = 10_000_000\n").expect("well formed");
    budgets.of("idle-leader").expect("just written").judge("idle-leader", measured)
}

#[test]
fn a_program_that_touches_eleven_megabytes_fails_with_both_numbers() {
    let measured = Program::touching(11_000_000).measured();
    assert!(measured.footprint > 11_000_000, "{measured:?}");
    let breaches = verdict(&measured);
    let footprint = breaches.iter().find(|breach| breach.what == "footprint").expect("11 MB is over 10 MB");
    assert!(footprint.to_string().ends_with("the budget is 10.000 MB"), "{footprint}");
    assert!(footprint.measured.starts_with("1"), "{footprint}");
    assert!(breaches.iter().any(|breach| breach.what == "daemon RSS"));
}

#[test]
fn the_probe_tells_a_megabyte_from_eleven() {
    let (small, large) = (Program::touching(1_000_000).measured(), Program::touching(11_000_000).measured());
    assert!(verdict(&small).is_empty(), "{:?}", verdict(&small));
    let more = large.anonymous - small.anonymous;
    assert!((9_900_000..=10_100_000).contains(&more), "ten million bytes more were measured as {more}");
}

#[test]
fn a_process_that_died_is_not_a_small_one() {
    let mut program = Program::touching(1);
    let pid = program.0.id();
    program.0.kill().expect("it is ours");
    program.0.wait().expect("it is ours");
    assert!(!verdict(&Measured::of(&Sampler::start(pid).finish())).is_empty());
}
