//! The table of what may be said and what may not.

use super::*;

/// Parses flags, `NAME=value` variables (they start with `DISCO_`) and, if not empty, a file's text.
fn parse(words: &[&str], file: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (variables, flags): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("DISCO_"));
    let mut arguments: Vec<OsString> = flags.into_iter().map(OsString::from).collect();
    if !file.is_empty() {
        let path = folder.path().join("disco.toml");
        fs::write(&path, file).expect("writable");
        arguments.extend(["--config".into(), path.into()]);
    }
    let variable = |name: &str| variables.iter().find_map(|v| Some(v.strip_prefix(name)?.strip_prefix('=')?.into()));
    let told = |e: ConfigError| format!("{e} | {}", e.hint().unwrap_or_default());
    match Config::parse(arguments, variable).map_err(told)? {
        Invocation::Run(config) => Ok(*config),
        other => panic!("{words:?} is {other:?}"),
    }
}

const D: &str = "--data-dir=/d";

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let all = |words: &[&str]| parse(words, "data_dir = '/d'\nname = 'file'").expect("well formed").name.expect("given");
    assert_eq!(all(&[]), "file");
    assert_eq!(all(&["DISCO_NAME=variable"]), "variable");
    assert_eq!(all(&["DISCO_NAME=variable", "--name", "flag"]), "flag");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse(&[D], "").expect("a data dir is enough");
    assert_eq!(config.listen.to_string(), "0.0.0.0:5080");
    assert_eq!((config.heartbeat_interval_ms, config.election_timeout_min_ms, config.election_timeout_max_ms), (200, 1000, 2000));
    assert_eq!(config.external_commands_max, 16, "help says so");
    assert!(!config.originate && config.seeds.is_empty() && config.token.is_none() && config.provider.is_none());
}

#[test]
fn a_whole_file_is_understood() {
    let file = "name = 'n2'\nlisten = '127.77.3.2:5080'\nadvertise = '127.77.3.2:5080'\nseeds = ['127.77.3.1:5080', 'node.example']\n\
                token = 'DISCO1-abc-def'\ncluster_id = '0123456789abcdef'\ncluster_name = 'demo'\ninstance = 'i-2'\ndata_dir = 'data'\n\
                heartbeat_interval = '100ms'\nelection_timeout_min = '0.5s'\nelection_timeout_max = '1s'\nexternal_commands_max = 3\n\
                log = 'warn,agent=debug'\n[labels]\nzone = 'a'\n[provider]\nkind = 'local'\nroot = '../..'\nbinary = 'discod'\n";
    let config = parse(&[], file).expect("well formed");
    assert_eq!(config.seeds, ["127.77.3.1:5080", "node.example:5080"]);
    assert_eq!((config.heartbeat_interval_ms, config.election_timeout_min_ms, config.external_commands_max), (100, 500, 3));
    assert_eq!(config.cluster_id, Some(ClusterId(0x0123_4567_89ab_cdef)));
    assert_eq!(config.labels.get("zone").map(String::as_str), Some("a"));
    let folder = config.file.as_deref().and_then(Path::parent).expect("it came from a file");
    assert_eq!(config.data_dir, folder.join("data"), "paths in a file count from its folder");
    let Some(ProviderConfig::Local { root, binary }) = &config.provider else { panic!("{:?}", config.provider) };
    assert_eq!((root.clone(), binary.clone()), (folder.join("../.."), folder.join("discod")));
}

#[test]
fn flags_and_variables_say_the_same_as_the_file() {
    let words = [
        D,
        "--provider-kind=local",
        "--provider-root=/p",
        "DISCO_PROVIDER_BINARY=/b",
        "--labels=a=1,b=2",
        "--seeds=10.0.0.1, 10.0.0.2:99,[::1]",
        "--token=DISCO1-a-b",
        "DISCO_LISTEN=[::]:5080",
        "--detach",
    ];
    let config = parse(&words, "").expect("well formed");
    assert_eq!(config.provider, Some(ProviderConfig::Local { root: "/p".into(), binary: "/b".into() }));
    let there = parse(&[D], "[provider]\nkind = 'aws'\nregion = 'eu-central-1'\nendpoint = 'http://127.0.0.1:5000'").expect("well formed");
    let aws = ProviderConfig::Aws { region: "eu-central-1".into(), endpoint: Some("http://127.0.0.1:5000".into()) };
    assert_eq!(there.provider, Some(aws));
    assert_eq!(config.labels.len(), 2);
    assert_eq!(config.seeds, ["10.0.0.1:5080", "10.0.0.2:99", "[::1]:5080"]);
    assert!(config.detach && config.listen.is_ipv6());
    assert!(parse(&[D, "--originate"], "").expect("a switch").originate);
    assert!(!parse(&[D, "--originate=false"], "originate = true").expect("a switch").originate);
}

#[test]
fn what_is_not_allowed_is_refused_by_name() {
    let cases: &[(&[&str], &str, &[&str])] = &[
        (&[], "", &["no data dir", "--data-dir"]),
        (&[D], "nam = 'x'", &["unknown key `nam`", "disco.toml", "did you mean `name`"]),
        (&[D], "election_timeout = '1s'", &["unknown key `election_timeout`", "`election_timeout_m"]),
        (&[D], "quorum = 3", &["unknown key `quorum`", "--help"]),
        (&[D], "[provider]\nkind = 'local'\nroots = '/'", &["unknown key `provider.roots`", "`provider.root`"]),
        (&[D], "[lables]\na = 'b'", &["unknown key `lables`", "`labels`"]),
        (&[D, "--seed=x"], "", &["unknown flag `--seed`", "`--seeds`"]),
        (&[D, "-x"], "", &["unknown flag `-x`"]),
        (&[D, "start"], "", &["unexpected argument `start`"]),
        (&[D, "--name=a", "--name=b"], "", &["`--name` is given twice"]),
        (&[D, "--name"], "", &["--name"]),
        (&[D, "--name=a b"], "", &["`--name` cannot be `a b`", "1 to 64"]),
        (&[D], "name = 7", &["`name` in ", "cannot be `7`"]),
        (&[D, "--listen=5080"], "", &["`--listen` cannot be `5080`", "0.0.0.0:5080"]),
        (&[D, "DISCO_LISTEN=localhost:1"], "", &["`DISCO_LISTEN` cannot be `localhost:1`"]),
        (&[D, "--advertise=0.0.0.0:5080"], "", &["`--advertise` cannot be `0.0.0.0:5080`"]),
        (&[D, "--advertise=10.0.0.1:0"], "", &["`--advertise`"]),
        (&[D, "--advertise=10.0.0.256:1"], "", &["`--advertise`"]),
        (&[D, "--advertise=a:1", "--bind-interface=eth0"], "", &["`--advertise` and `--bind-interface` do not go together"]),
        (&[D, "--seeds=a b"], "", &["`--seeds` cannot be `a b`"]),
        (&[D, "--seeds=http://x/y"], "", &["`--seeds`"]),
        (&[D, "--seeds=file://x"], "", &["`--seeds`"]),
        (&[D, "--originate-after=1ms"], "", &["`--originate-after` cannot be `1ms`", "1s to 3600s"]),
        (&[D, "--originate=maybe"], "", &["`--originate` cannot be `maybe`", "true or false"]),
        (&[D, "--labels=a"], "", &["`--labels` cannot be `a`"]),
        (&[D], "labels = { a = 1 }", &["`labels` in"]),
        (&[D, "--cluster-id=XYZ"], "", &["`--cluster-id` cannot be `XYZ`", "16 lower-case"]),
        (&[D, "--heartbeat-interval=200"], "", &["`--heartbeat-interval` cannot be `200`", "50ms to 5s"]),
        (&[D, "--heartbeat-interval=1ms"], "", &["`--heartbeat-interval`"]),
        (&[D, "--heartbeat-interval=infs"], "", &["`--heartbeat-interval`"]),
        (&[D, "--heartbeat-interval=1s"], "", &["heartbeat 1000ms", "two heartbeats"]),
        (&[D, "--election-timeout-min=2s"], "", &["2000ms to 2000ms"]),
        (&[D, "--external-commands-max=0"], "", &["`--external-commands-max` cannot be `0`", "1 to 16"]),
        (&[D, "--external-commands-max=17"], "", &["`--external-commands-max`"]),
        (&[D, "--log=loud"], "", &["`--log` cannot be `loud`", "debug"]),
        (&[D, "--token=DISCO1-a-b", "--token-file=/x"], "", &["do not go together"]),
        (&[D, "--provider-kind=gcp"], "", &["`--provider-kind` cannot be `gcp`", "local or aws"]),
        (&[D, "--provider-kind=aws"], "", &["`--provider-kind` needs `provider.region`"]),
        (&[D, "--provider-kind=aws", "--provider-region=EU"], "", &["`--provider-region` cannot be `EU`"]),
        (&[D, "--provider-endpoint=ftp://x"], "", &["`--provider-endpoint` cannot be `ftp://x`"]),
        (&[D, "--provider-kind=local"], "", &["`--provider-kind` needs `provider.root`"]),
        (&[D, "--image=/i", "--originate"], "", &["`--image` needs `seeds`", "seeds = ["]),
        (&[D, "--image=/i", "--seeds="], "", &["`--image` needs `seeds`"]),
        (&[D, "--provider-root=/p"], "", &["`--provider-root` needs `provider.kind`"]),
        (&[D, "--config=/nonexistent/f"], "", &["cannot read /nonexistent/f"]),
        (&[D], "name = 'a\nb = 1", &["disco.toml is no configuration: line 1"]),
        (&[D], "name = 'a'\nname = 'b'", &["line 2"]),
    ];
    for (words, file, expected) in cases {
        let told = parse(words, file).expect_err(&format!("{words:?} {file:?} is not allowed"));
        for part in *expected {
            assert!(told.contains(part), "{words:?} {file:?}: {told:?} does not say {part:?}");
        }
    }
    let told = parse(&[D], &format!("# {}\n", "x".repeat(70_000))).expect_err("too large");
    assert!(told.contains("larger than 65536 bytes"), "{told}");
}

#[test]
fn the_token_is_never_shown() {
    let secret = "DISCO1-digest-verysecret";
    let config = parse(&[D, &format!("--token={secret}")], "").expect("well formed");
    assert_eq!(config.token.as_ref().map(Secret::expose), Some(secret));
    assert!(!format!("{config:?}").contains("verysecret"));
    for (words, file) in [
        (vec![D, "--token=verysecret"], String::new()),
        (vec![D], "token = 'verysecret".into()),
        (vec![D], "token = 'verysecret' 3".into()),
    ] {
        let told = parse(&words, &file).expect_err("malformed");
        assert!(!told.contains("verysecret"), "{told}");
    }
}

#[test]
fn a_token_file_holds_one_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("token");
    fs::write(&path, "DISCO1-a-b\n").expect("writable");
    let flag = format!("--token-file={}", path.display());
    let config = parse(&[D, &flag], "").expect("well formed");
    assert_eq!(config.join_token().expect("well formed").as_ref().map(Secret::expose), Some("DISCO1-a-b"));
    fs::write(&path, "two words\n").expect("writable");
    let told = config.join_token().expect_err("no token").to_string();
    assert!(told.contains("holds no join token") && !told.contains("two words"), "{told}");
    // Whoever has joined starts without it.
    fs::remove_file(&path).expect("it is there");
    let config = parse(&[D, &flag], "").expect("well formed");
    let told = config.join_token().expect_err("no file").to_string();
    assert_eq!(told, format!("cannot read {}", path.display()));
}

#[test]
fn help_names_every_key_and_only_those() {
    let text = help();
    for key in KEYS {
        assert!(text.contains(&format!("--{} ", key.flag())) || text.contains(&format!("--{}\n", key.flag())), "{}", key.name);
    }
    let asks = |words: &[&str]| Config::parse(words.iter().map(OsString::from), |_| None).expect("well formed");
    assert!(matches!(asks(&["--help"]), Invocation::Help));
    assert!(matches!(asks(&["-V"]), Invocation::Version));
}

#[test]
fn others_are_told_an_address_they_can_use() {
    let told = |words: &[&str], bound: &str| {
        let config = parse(&[&[D], words].concat(), "").expect("well formed");
        config.advertised(bound.parse().expect("an address")).map_err(|e| e.to_string())
    };
    assert_eq!(told(&["--advertise=node.example:80"], "0.0.0.0:1"), Ok("node.example:80".into()));
    assert_eq!(told(&[], "127.1.2.3:77"), Ok("127.1.2.3:77".into()));
    assert_eq!(told(&["--bind-interface=lo"], "0.0.0.0:77"), Ok("127.0.0.1:77".into()));
    let error = told(&["--bind-interface=nosuch0"], "0.0.0.0:77").expect_err("there is no such interface");
    assert!(error.contains("`nosuch0`"), "{error}");
}
