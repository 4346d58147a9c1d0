//! Machines that start from what `disco init --image` wrote, and from nothing else: the path of somebody who bakes images.

mod common;

use common::{DISCO, text, wait_until};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(30);

/// A machine started from the image: its own address and disk, everything else as baked.
struct Machine {
    disk: PathBuf,
    child: Child,
}

impl Machine {
    fn start(folder: &Path, address: &str) -> Machine {
        let disk = folder.join(address);
        fs::create_dir_all(&disk).expect("the folder is ours");
        let log = fs::File::create(disk.join("log")).expect("the folder is ours");
        let discod = Path::new(DISCO).with_file_name("discod");
        let mut command = Command::new(discod);
        command.arg("--config").arg(folder.join("image/disco.toml")).arg("--data-dir").arg(disk.join("data"));
        command.args(["--listen", &format!("{address}:5080"), "--name", &address.replace('.', "-")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("discod starts");
        Machine { disk, child }
    }

    /// `disco --socket`, as on that machine.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(DISCO);
        command.args(args).arg("--socket").arg(self.disk.join("data/control.sock")).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn disco(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("disco starts")
    }

    fn status(&self) -> Option<Value> {
        let output = self.disco(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("it prints JSON"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.disk.join("log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three addresses that no other test of this machine uses.
fn addresses() -> [String; 3] {
    let pid = std::process::id();
    [1, 2, 3].map(|host| format!("127.{}.{}.{host}", 2 + pid % 62, pid / 62 % 256))
}

#[test]
fn machines_that_start_from_an_image_at_once_are_one_cluster_that_a_person_can_use() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let init = Command::new(DISCO).args(["init", "--image", "--dir"]).arg(folder.path()).output().expect("disco starts");
    assert!(init.status.success(), "{}", text(&init.stderr));
    let addresses = addresses();

    // Baked as it was written, each machine would be a cluster of its own: nothing starts.
    let mut careless = Machine::start(folder.path(), &addresses[0]);
    wait_until(SOON, "it to be refused", || careless.child.try_wait().expect("our child").is_some(), String::new);
    assert!(careless.log().contains("needs `seeds`"), "{}", careless.log());
    drop(careless);

    let toml = folder.path().join("image/disco.toml");
    let baked = fs::read_to_string(&toml).expect("it was written").replace("seeds = []", &format!("seeds = {addresses:?}"));
    fs::write(&toml, baked + "originate_after = \"1s\"\n").expect("the folder is ours");
    let machines: Vec<Machine> = addresses.iter().map(|address| Machine::start(folder.path(), address)).collect();
    let all_logs = || machines.iter().map(Machine::log).collect::<Vec<_>>().join("----\n");
    let seen = |wanted: &dyn Fn(&Value) -> bool| machines.iter().position(|machine| machine.status().is_some_and(|status| wanted(&status)));
    let count = |status: &Value, what: &str, is: &str| {
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| node[what] == is).count())
    };
    let whole = |status: &Value| status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3) && count(status, "state", "ready") == 3;
    wait_until(SOON, "one cluster of three", || seen(&whole).is_some(), all_logs);

    // All came by the image's token, a worker's: a person says who votes besides the first.
    let leader = &machines[seen(&whole).expect("just seen")];
    let others: Vec<String> = leader.status().expect("it leads")["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|node| node["leader"] != true)
        .map(|node| node["name"].as_str().expect("a name").to_owned())
        .collect();
    for name in &others {
        let promoted =
            || leader.disco(&["node", "promote", name]).status.success() || seen(&|status| count(status, "role", "manager") == 3).is_some();
        wait_until(SOON, "a promotion", promoted, all_logs);
    }
    wait_until(SOON, "three managers", || seen(&|status| count(status, "role", "manager") == 3).is_some(), all_logs);
    assert!(machines.iter().all(|machine| machine.disco(&["kv", "set", "k", "v"]).status.success()), "each of them writes");

    // Nothing here makes a fourth machine, so a scale waits, until somebody wants another number.
    let wants = |nodes: u64| seen(&|status| status["cluster"]["nodes"] == nodes).is_some();
    let waiting = leader.command(&["scale", "5"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("disco starts");
    wait_until(SOON, "five to be wanted", || wants(5), all_logs);
    let mut other = leader.command(&["scale", "4"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("disco starts");
    let told = waiting.wait_with_output().expect("it is ours");
    let _ = other.kill();
    let _ = other.wait();
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    assert!(text(&told.stderr).contains("somebody scaled it to 4 meanwhile"), "{}", text(&told.stderr));
}
