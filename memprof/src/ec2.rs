//! A small EC2 at a loopback address, whose machines are processes: what a leader needs to launch others, and no more.
//!
//! Signatures are not looked at and every action but three is refused: the client is tested against a better one, here its
//! caller is measured. A machine does what its user-data would have it do: it becomes a node, of the same program.

use crate::cluster::copy_program;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// More is not asked for in one form.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Machines' last numbers, where the cluster's own addresses are not.
const FIRST_HOST: usize = 200;

/// The service; it answers as long as the program runs.
pub struct Ec2 {
    address: SocketAddr,
    machines: Arc<Mutex<Machines>>,
}

/// All machines there ever were.
#[derive(Default)]
struct Machines {
    /// Where the machines' disks lie: the folder of the instances.
    folder: PathBuf,
    /// What they run.
    program: PathBuf,
    all: Vec<Machine>,
}

struct Machine {
    id: String,
    /// Of the request that made it.
    token: String,
    ip: String,
    tags: BTreeMap<String, String>,
    ended: bool,
}

type Form = BTreeMap<String, String>;

impl Ec2 {
    /// An account with one machine: a node that runs already.
    ///
    /// # Errors
    /// The folder's `instance.json` does not say what the node is, or no port is to be had.
    pub fn with(node: &Path) -> io::Result<Ec2> {
        let about: Form = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&fs::read(node.join("instance.json"))?)?
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        let given = |name: &str| about.get(name).cloned().ok_or_else(|| io::Error::other(format!("instance.json has no {name}")));
        let tags =
            [("disco:cluster-id", given("cluster")?), ("disco:operation", given("operation")?), ("disco:ordinal", given("ordinal")?)];
        let address = given("address")?;
        let first = Machine {
            id: node.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            token: String::new(),
            ip: address.split(':').next().unwrap_or_default().to_owned(),
            tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
            ended: false,
        };
        let folder = node.parent().unwrap_or(node).to_owned();
        let machines = Arc::new(Mutex::new(Machines { folder, program: node.join("discod"), all: vec![first] }));
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        thread::spawn({
            let machines = machines.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let machines = machines.clone();
                    // A client that breaks off has what it wants.
                    thread::spawn(move || serve(&stream, &machines).unwrap_or_default());
                }
            }
        });
        Ok(Ec2 { address, machines })
    }

    /// For `provider.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Machines that were asked for, the first among them.
    pub fn launched(&self) -> usize {
        self.machines.lock().expect("no holder of the lock panics").all.len()
    }
}

/// Starts the node of a folder with `discod` and `disco.toml`, as somebody whom EC2 knows, and leaves its `pid` there.
///
/// # Errors
/// It does not start.
pub fn start(folder: &Path) -> io::Result<u32> {
    let log = File::options().create(true).append(true).open(folder.join("discod.log"))?;
    let mut command = Command::new(folder.join("discod"));
    command.args(["--detach", "--config"]).arg(folder.join("disco.toml")).current_dir("/");
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "example").env("AWS_EC2_METADATA_DISABLED", "true");
    let mut starter = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let mut line = String::new();
    // The node keeps this pipe open for a moment, so read a line, not to the end.
    let read = BufReader::new(starter.stdout.take().expect("it is piped").take(32)).read_line(&mut line);
    let status = starter.wait()?;
    read?;
    let pid = line.trim().parse().map_err(|_| io::Error::other(format!("discod ended with {status} and printed {line:?}")))?;
    fs::write(folder.join("pid"), line)?;
    Ok(pid)
}

/// Answers one connection's requests, one after the other.
fn serve(stream: &TcpStream, machines: &Mutex<Machines>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; BODY_BYTES_MAX.min(length)];
        reader.read_exact(&mut body)?;
        let (status, xml) = match answer(&read_form(&body), machines) {
            Ok(xml) => ("200 OK", xml),
            Err(error) => {
                let error = format!("<Error><Code>InternalError</Code><Message>{error}</Message></Error>");
                ("500 Internal Server Error", format!("<Response><Errors>{error}</Errors><RequestID>r-1</RequestID></Response>"))
            }
        };
        write!(&mut &*stream, "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n{xml}", xml.len())?;
    }
}

fn answer(form: &Form, machines: &Mutex<Machines>) -> io::Result<String> {
    let mut machines = machines.lock().expect("no holder of the lock panics");
    let action = form.get("Action").map(String::as_str).unwrap_or_default();
    let inner = match action {
        "DescribeInstances" => {
            let each = machines.all.iter().filter(|machine| machine.matches(form));
            let items: String = each.map(|machine| format!("<item>{}</item>", set_of(&machine.xml()))).collect();
            format!("<reservationSet>{items}</reservationSet>")
        }
        "RunInstances" => set_of(&machines.run(form)?),
        "TerminateInstances" => {
            let named = listed(form, "InstanceId.");
            let ended = machines.all.iter_mut().filter(|machine| named.contains(&&machine.id));
            let items = ended.map(|machine| {
                machine.ended = true;
                format!("<item><instanceId>{}</instanceId><currentState><name>shutting-down</name></currentState></item>", machine.id)
            });
            format!("<instancesSet>{}</instancesSet>", items.collect::<String>())
        }
        other => return Err(io::Error::other(format!("this EC2 cannot {other}"))),
    };
    Ok(format!("<{action}Response><requestId>r-1</requestId>{inner}</{action}Response>"))
}

fn set_of(item: &str) -> String {
    format!("<instancesSet><item>{item}</item></instancesSet>")
}

/// Values of `PREFIX1`, `PREFIX2`, …
fn listed<'f>(form: &'f Form, prefix: &str) -> Vec<&'f String> {
    (1..).map_while(|number| form.get(&format!("{prefix}{number}"))).collect()
}

impl Machines {
    /// The machine of this request, made unless it was asked for before.
    fn run(&mut self, form: &Form) -> io::Result<String> {
        let token = form.get("ClientToken").cloned().unwrap_or_default();
        if let Some(machine) = self.all.iter().find(|machine| machine.token == token) {
            return Ok(machine.xml());
        }
        let number = self.all.len() + 1;
        let first = self.all[0].ip.rsplit_once('.').map_or("127.0.0", |(network, _)| network);
        let machine =
            Machine { id: format!("i-{number}"), token, ip: format!("{first}.{}", FIRST_HOST + number), tags: tags(form), ended: false };
        let user_data = BASE64.decode(form.get("UserData").map(String::as_str).unwrap_or_default()).map_err(io::Error::other)?;
        let folder = self.folder.join(&machine.id);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("disco.toml"), machine.config(&String::from_utf8_lossy(&user_data)))?;
        copy_program(&self.program, &folder.join("discod"))?;
        start(&folder)?;
        let xml = machine.xml();
        self.all.push(machine);
        Ok(xml)
    }
}

impl Machine {
    /// What the user-data's script would have written, with this machine's folder for a disk.
    fn config(&self, script: &str) -> String {
        let text = script.split_once("<<'END_OF_CONFIG'\n").and_then(|(_, rest)| rest.split_once("\nEND_OF_CONFIG\n"));
        let address = format!("{}:5080", self.ip);
        let text = text.map_or("", |(text, _)| text).replace("@ADDRESS@", &address).replace("@INSTANCE@", &self.id);
        format!("listen = \"{address}\"\n{}\n", text.replace("\"/var/lib/disco\"", "\"data\""))
    }

    fn matches(&self, form: &Form) -> bool {
        let ids = listed(form, "InstanceId.");
        let filter = |number: usize, name: &String| {
            let tag = name.strip_prefix("tag:").and_then(|key| self.tags.get(key));
            tag.is_some_and(|tag| listed(form, &format!("Filter.{number}.Value.")).contains(&tag))
        };
        let mut filters = (1..).map_while(|number| Some((number, form.get(&format!("Filter.{number}.Name"))?)));
        (ids.is_empty() || ids.contains(&&self.id)) && filters.all(|(number, name)| filter(number, name))
    }

    fn xml(&self) -> String {
        let Machine { id, ip, .. } = self;
        let state = if self.ended { "terminated" } else { "running" };
        let tags = self.tags.iter().fold(String::new(), |mut tags, (key, value)| {
            write!(tags, "<item><key>{key}</key><value>{value}</value></item>").expect("a String takes everything");
            tags
        });
        format!(
            "<instanceId>{id}</instanceId><imageId>ami-1</imageId><instanceState><name>{state}</name></instanceState>\
             <instanceType>t4g.micro</instanceType><privateIpAddress>{ip}</privateIpAddress><tagSet>{tags}</tagSet>"
        )
    }
}

/// The tags of the first kind of thing that the request makes.
fn tags(form: &Form) -> BTreeMap<String, String> {
    let part = |number: usize, part: &str| form.get(&format!("TagSpecification.1.Tag.{number}.{part}")).cloned();
    (1..).map_while(|number| Some((part(number, "Key")?, part(number, "Value")?))).collect()
}

/// `a=b&c=d%20e`
fn read_form(body: &[u8]) -> Form {
    let pairs = body.split(|byte| *byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((decoded(&pair[..at]), decoded(&pair[at + 1..])))
    });
    pairs.collect()
}

fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, after) = match (byte, hex) {
            (b'%', Some(value)) => (value, &after[2..]),
            (b'+', _) => (b' ', after),
            _ => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_meant() {
        let form = read_form(b"Action=RunInstances&TagSpecification.1.Tag.1.Key=disco%3Aa&TagSpecification.1.Tag.1.Value=x+y%2B%");
        assert_eq!(tags(&form), [("disco:a".to_owned(), "x y+%".to_owned())].into());
    }

    #[test]
    fn machines_are_found_by_their_ids_and_tags() {
        let tags = [("k".to_owned(), "v".to_owned())].into();
        let machine = Machine { id: "i-1".into(), token: String::new(), ip: "127.9.0.2".into(), tags, ended: false };
        for (form, found) in [
            ("", true),
            ("Filter.1.Name=tag%3Ak&Filter.1.Value.1=u&Filter.1.Value.2=v", true),
            ("InstanceId.1=i-1&Filter.1.Name=tag%3Ak&Filter.1.Value.1=v", true),
            ("InstanceId.1=i-2", false),
            ("Filter.1.Name=tag%3Ak&Filter.1.Value.1=v&Filter.2.Name=tag%3Al&Filter.2.Value.1=v", false),
        ] {
            assert_eq!(machine.matches(&read_form(form.as_bytes())), found, "{form}");
        }
    }
}
